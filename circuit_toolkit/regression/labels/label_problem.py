"""What a regression of labels minimises, and how far from the minimum coefficients are.

With Z the sources in standard deviations, f = Z B + b0 the decision values, s the shares of the
rows (they sum to one) and l the loss of a row, it is

    s . l(f) + alpha (w . |B| + l2 |B|^2 / 2) .
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.special import entr, expit, log_softmax, softmax

from circuit_toolkit.regression.certificate import violation
from circuit_toolkit.regression.matrices import Matrix, reciprocal, standard_deviation
from circuit_toolkit.regression.statistics.sums import Columns

ROUNDING = 1e-15  # of slopes: Z has columns of unit spread
_BALANCED = 1e-9  # largest sum of residuals at which they still make a dual point


class Loss(NamedTuple):
    """A loss of rows: decision values, and what is wanted of them, have shape (n, q)."""

    rows: Callable[[np.ndarray, np.ndarray], np.ndarray]  # decision, wanted -> (n,)
    probability: Callable[[np.ndarray], np.ndarray]  # decision -> (n, q)
    entropy: Callable[[np.ndarray], np.ndarray]  # probability -> (n,)
    intercepts: Callable[[np.ndarray], np.ndarray]  # shares of the classes -> (q,), without sources


BINARY = Loss(  # one column: log odds of the label 1
    lambda decision, wanted: (np.logaddexp(0, decision) - wanted * decision)[:, 0],
    expit,
    lambda p: (entr(p) + entr(1 - p))[:, 0],
    lambda mean: np.log(mean / (1 - mean)),
)
CLASSES = Loss(  # a column a class
    lambda decision, wanted: -(log_softmax(decision, axis=1) * wanted).sum(axis=1),
    lambda decision: softmax(decision, axis=1),
    lambda p: entr(p).sum(axis=1),
    lambda mean: np.log(mean) - np.log(mean).mean(),
)


@dataclass(frozen=True, eq=False)
class Sources:
    """Columns over their standard deviations, about an origin that the free intercepts absorb."""

    columns: Columns  # in standard deviations
    scale: np.ndarray  # (p,) standard deviations, zero for constant columns

    @classmethod
    def of(cls, matrix: Matrix, share: np.ndarray) -> Sources:
        """Standardise a checked matrix (n, p) whose rows have these shares (n,)."""
        about = share @ matrix if isinstance(matrix, np.ndarray) else None
        raw = Columns.of(matrix, about)
        shared = raw.weighted(share)
        off = shared.sums()
        scale = standard_deviation(raw.square_sums(shared) - off**2, off + raw.origin)
        unit, sparse = reciprocal(scale), raw.is_sparse
        scaled = sp.csc_array(raw.sparse @ sp.diags_array(unit[sparse]))
        return cls(Columns(raw.origin * unit, sparse, scaled, raw.dense * unit[~sparse]), scale)

    def select(self, some: np.ndarray) -> Sources:
        """Keep the columns with these numbers, in rising order."""
        c = self.columns
        sparse = c.is_sparse[some]
        rank = np.where(c.is_sparse, np.cumsum(c.is_sparse), np.cumsum(~c.is_sparse)) - 1
        parts = c.sparse[:, rank[some[sparse]]], c.dense[:, rank[some[~sparse]]]
        return Sources(Columns(c.origin[some], sparse, *parts), self.scale[some])

    def times(self, B: np.ndarray) -> np.ndarray:
        """Multiply with coefficients (p,) or (p, q): Z B, a row an observation."""
        c = self.columns
        if c.is_sparse.all():
            return c.sparse @ B
        found = c.dense @ B[~c.is_sparse]
        return found + c.sparse @ B[c.is_sparse] if c.is_sparse.any() else found

    def back(self, rows: np.ndarray) -> np.ndarray:
        """Multiply the transpose with values of rows (n,) or (n, q)."""
        c = self.columns
        found = np.empty((len(c.origin), *rows.shape[1:]))
        found[~c.is_sparse] = c.dense.T @ rows
        if c.is_sparse.any():
            found[c.is_sparse] = c.sparse.T @ rows
        return found

    def curvature(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Second derivatives for weights (n,) of the rows."""
        root = self.columns.weighted(np.sqrt(weights))
        H = np.zeros((len(self.scale), len(self.scale)))
        root.add_product(root, H)
        mixed = self.back(weights)
        return H - np.outer(mixed, mixed) / weights.sum(), mixed


@dataclass(frozen=True, eq=False)
class Problem:
    """Labels on sources, without a strength: see the head of this file."""

    Z: Sources
    wanted: np.ndarray
    share: np.ndarray
    w: np.ndarray
    l2: float
    positive: bool
    loss: Loss

    def penalties(self, alpha: float) -> np.ndarray:
        """Penalties on absolute values, (p, 1) or (p, q)."""
        found = np.full(self.w.shape, np.inf)
        return np.multiply(alpha, self.w, out=found, where=np.isfinite(self.w))

    def size(self, pull: np.ndarray) -> np.ndarray:
        """How strongly a slope pulls a coefficient away from zero, to where it may go."""
        return pull if self.positive else np.abs(pull)

    def absolute(self, B: np.ndarray) -> float:
        """Sum of absolute values times penalties, over alpha."""
        live = B != 0
        return float(np.broadcast_to(self.w, B.shape)[live] @ np.abs(B[live]))

    def mean_loss(self, decision: np.ndarray) -> float:
        """Loss of the rows, without the penalty."""
        return float(self.share @ self.loss.rows(decision, self.wanted))

    def objective(self, decision: np.ndarray, B: np.ndarray, alpha: float) -> float:
        """Return the value that is minimised."""
        penalty = self.absolute(B) + self.l2 * float((B**2).sum()) / 2
        return self.mean_loss(decision) + alpha * penalty

    def residual(self, decision: np.ndarray) -> np.ndarray:
        """Wanted minus probability, (n, q)."""
        return self.wanted - self.loss.probability(decision)

    def pull(self, residual: np.ndarray, B: np.ndarray, alpha: float) -> np.ndarray:
        """Slope of all but the absolute values, downhill, (p, q)."""
        return self.Z.back(self.share[:, None] * residual) - alpha * self.l2 * B

    def rule(self, alpha: float, previous: float) -> np.ndarray:
        """Least pull on a zero coefficient that may matter (Tibshirani, 2012), (p, 1 or q)."""
        return self.penalties(max(2 * alpha - previous, alpha / 2))

    def certificate(self, decision: np.ndarray, B: np.ndarray, alpha: float) -> tuple[float, float]:
        """Duality gap, and largest violation of the optimality conditions."""
        residual = self.residual(decision)
        unbalanced = float(np.abs(self.share @ residual).max())
        pull, penalties = self.pull(residual, B, alpha), self.penalties(alpha)
        shrink = 1 / float((self.size(pull) / (penalties + ROUNDING)).max(initial=1))
        probability = np.clip(self.wanted - shrink * residual, 0, 1)
        dual = float(self.share @ self.loss.entropy(probability))
        dual -= shrink**2 * alpha * self.l2 * float((B**2).sum()) / 2
        gap = self.objective(decision, B, alpha) - dual if unbalanced <= _BALANCED else np.inf
        worst = float(violation(pull, B, penalties, self.positive).max(initial=0))
        return gap, max(worst, unbalanced)

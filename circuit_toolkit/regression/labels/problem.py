"""What a logistic regression minimises, and how far from the minimum coefficients are.

With Z the sources in standard deviations, f = Z b + b0 the decision values and t the labels (0 or
1), it is

    mean(log(1 + exp f) - t f) + alpha w . |b| .
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.special import entr, expit

from circuit_toolkit.regression.certificate import violation
from circuit_toolkit.regression.matrices import Matrix, reciprocal, standard_deviation
from circuit_toolkit.regression.statistics.sums import Columns

ROUNDING = 1e-15  # of slopes: Z has columns of unit spread
_BALANCED = 1e-9  # largest sum of residuals at which they still make a dual point


@dataclass(frozen=True, eq=False)
class Sources:
    """Columns over their standard deviations, about an origin that the free intercepts absorb."""

    columns: Columns  # in standard deviations
    scale: np.ndarray  # (p,) standard deviations, zero for constant columns

    @classmethod
    def of(cls, matrix: Matrix) -> Sources:
        """Standardise a checked matrix (n, p)."""
        n, raw = matrix.shape[0], Columns.of(matrix)
        off = raw.sums() / n
        scale = standard_deviation(raw.square_sums() / n - off**2, off + raw.origin)
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
        """Multiply with coefficients (p,) or (p, q): a row an observation."""
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

    def curvature(self, weights: np.ndarray) -> np.ndarray:
        """Second derivatives for weights (n,) of the rows."""
        root = self.columns.weighted(np.sqrt(weights))
        H = np.zeros((len(self.scale), len(self.scale)))
        root.add_product(root, H)
        mixed = self.back(weights)
        return H - np.outer(mixed, mixed) / weights.sum()


@dataclass(frozen=True, eq=False)
class Problem:
    """Labels on sources, without a strength: see the head of this file."""

    Z: Sources
    labels: np.ndarray  # (n,) 0 and 1
    w: np.ndarray  # (p,)

    def penalties(self, alpha: float) -> np.ndarray:
        """Penalties on absolute values (p,)."""
        found = np.full(self.w.shape, np.inf)
        return np.multiply(alpha, self.w, out=found, where=np.isfinite(self.w))

    def absolute(self, b: np.ndarray) -> float:
        """Sum of absolute values times penalties, over alpha."""
        live = b != 0
        return float(self.w[live] @ np.abs(b[live]))

    def objective(self, decision: np.ndarray, b: np.ndarray, alpha: float) -> float:
        """Return the value that is minimised."""
        loss = np.mean(np.logaddexp(0, decision) - self.labels * decision)
        return float(loss) + alpha * self.absolute(b)

    def residual(self, decision: np.ndarray) -> np.ndarray:
        """Label minus probability (n,)."""
        return self.labels - expit(decision)

    def pull(self, residual: np.ndarray) -> np.ndarray:
        """Slope of the loss, downhill (p,)."""
        return self.Z.back(residual) / len(residual)

    def certificate(self, decision: np.ndarray, b: np.ndarray, alpha: float) -> tuple[float, float]:
        """Duality gap, and largest violation of the optimality conditions."""
        residual = self.residual(decision)
        unbalanced = abs(float(residual.mean()))
        pull, penalties = self.pull(residual), self.penalties(alpha)
        shrink = 1 / float((np.abs(pull) / (penalties + ROUNDING)).max(initial=1))
        probability = np.clip(self.labels - shrink * residual, 0, 1)
        dual = float(np.mean(entr(probability) + entr(1 - probability)))
        gap = self.objective(decision, b, alpha) - dual if unbalanced <= _BALANCED else np.inf
        worst = float(violation(pull, b, penalties).max(initial=0))
        return gap, max(worst, unbalanced)

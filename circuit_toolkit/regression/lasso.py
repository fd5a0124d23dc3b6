"""Lasso paths for many targets at once, from second moments, each point with its certificate."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression.active_set import active_set
from circuit_toolkit.regression.centred import reciprocal
from circuit_toolkit.regression.certificate import ConvergenceWarning, certificate
from circuit_toolkit.regression.gram import GramStatistics
from circuit_toolkit.regression.primal_dual import primal_dual

_EXACT = 1e-8  # times alpha: violation at which the solver stops, far below what `tol` asks
_NEWTON_STEPS = 8  # for all targets at once; a warm start needs one to three
_PROXIMAL = (1e-2, 1e-4)  # curvature lent, in turn, where sources depend on each other


@dataclass(frozen=True, eq=False)
class LassoPath:
    """Lasso solutions for q targets at k strengths, each with a certificate of optimality.

    For every target the objective is `mean((y - X b)^2) / 2 + alpha |b|_1` on standardised
    columns (mean 0, standard deviation 1), with the intercept free. The coefficients are
    dependency scores, not causal effects.

    Parameters
    ----------
    strengths : ndarray, shape (k,)
        Decreasing; alpha as a share of the smallest alpha at which a target has no sources.
    alphas : ndarray, shape (k, q)
        Penalties, in correlation units and in scikit-learn's scale.
    coefficients : tuple of k csc_array, shape (p, q)
        In standardised units; zeros are exact. `raw` gives them in the unit of the data.
    gap : ndarray, shape (k, q)
        Duality gap over the objective of the empty model: the objective is at most this far
        from its optimum.
    kkt : ndarray, shape (k, q)
        Largest violation of the optimality conditions, in correlation units.
    converged : ndarray of bool, shape (k, q)
        Whether the gap is within the tolerance. Never read coefficients where it is false.
    r2 : ndarray, shape (k, q)
        Share of variance explained on the training rows; NaN for a constant target.
    stats : GramStatistics
        What was fitted.
    tol, max_iter : float and int
        Settings that `solve` goes on using.
    """

    strengths: np.ndarray
    alphas: np.ndarray
    coefficients: tuple[sp.csc_array, ...]
    gap: np.ndarray
    kkt: np.ndarray
    converged: np.ndarray
    r2: np.ndarray
    stats: GramStatistics
    tol: float
    max_iter: int

    def __repr__(self) -> str:
        """Sizes and the certificate: the arrays are too large to print."""
        p, q = self.stats.xy.shape
        return (
            f"LassoPath({len(self.strengths)} strengths {self.strengths[0]:.3g} to "
            f"{self.strengths[-1]:.3g}, sources={p}, targets={q}, "
            f"certified={self.converged.mean():.0%})"
        )

    @cached_property
    def _problem(self) -> _Problem:
        return _Problem.of(self.stats)

    def at(self, strength: float) -> int:
        """Index of the stored point nearest to a strength, on a logarithmic scale.

        Parameters
        ----------
        strength : float
            Share of alpha_max, in (0, 1].

        Returns
        -------
        int
            Into the first axis of everything the path holds.
        """
        check_strengths([strength])
        return int(np.abs(np.log(self.strengths / strength)).argmin())

    def solve(self, strength: float) -> LassoPath:
        """Exact solution at one strength, stored or not, as a path of one point.

        Starts from the stored neighbours, so it is fast between points of the path.

        Parameters
        ----------
        strength : float
            Share of alpha_max, in (0, 1].

        Returns
        -------
        LassoPath
            With one strength, certified like every other point.

        Raises
        ------
        InputError
            If the strength is not in (0, 1].
        """
        strengths = check_strengths([strength])
        after = int(np.searchsorted(-self.strengths, -strength))  # first stored one not above it
        above, below = max(after - 1, 0), min(after, len(self.strengths) - 1)
        span = self.strengths[above] - self.strengths[below]
        share = np.clip((self.strengths[above] - strength) / span, 0, 1) if span else 0.0
        # paths are piecewise linear: where no source enters or leaves in between, this is exact
        start = (1 - share) * self.coefficients[above] + share * self.coefficients[below]
        return _fit(self.stats, self._problem, strengths, start.toarray(), self.tol, self.max_iter)

    def raw(self, index: int) -> tuple[sp.csc_array, np.ndarray]:
        """Coefficients in the unit of the data, and the intercepts.

        Parameters
        ----------
        index : int
            Point of the path.

        Returns
        -------
        tuple of csc_array (p, q) and ndarray (q,)
            Such that `X @ coefficients + intercepts` predicts Y.
        """
        stats = self.stats
        scaled = sp.diags_array(reciprocal(stats.scale_x)) @ self.coefficients[index]
        coefficients = sp.csc_array(scaled @ sp.diags_array(stats.scale_y))
        return coefficients, stats.mean_y - coefficients.T @ stats.mean_x

    def held_out_r2(self, other: GramStatistics) -> np.ndarray:
        """Share of variance explained on rows that were not fitted.

        Equals `1 - sum((y - prediction)^2) / sum((y - mean(y))^2)` on those rows, without them.

        Parameters
        ----------
        other : GramStatistics
            Of the other rows, with the same columns.

        Returns
        -------
        ndarray, shape (k, q)
            At most 1; negative where the mean of those rows predicts better; NaN for targets
            that are constant there.

        Raises
        ------
        MismatchError
            If the columns differ in number.
        """
        if other.xy.shape != self.stats.xy.shape:
            raise MismatchError(
                f"The path has {self.stats.xy.shape} (sources, targets), the other statistics "
                f"{other.xy.shape}. Select the same columns in both."
            )
        scores = []
        for index in range(len(self.strengths)):
            b, intercepts = self.raw(index)  # (p, q), (q,)
            explained = (b.multiply(2 * other.xy - other.xx @ b)).sum(axis=0)  # (q,)
            bias = other.mean_y - other.mean_x @ b - intercepts  # (q,)
            scores.append(_share(explained - bias**2, np.where(other.scale_y > 0, other.yy, 0)))
        return np.array(scores)


def lasso_path(
    stats: GramStatistics,
    strengths: np.ndarray | list[float] | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
) -> LassoPath:
    """Fit a lasso path for every target, warm-started from strong to weak penalties.

    Parameters
    ----------
    stats : GramStatistics
        Of the training rows. Constant columns get no coefficients.
    strengths : array of shape (k,), optional
        Penalties as shares of each target's alpha_max, in (0, 1]; sorted in decreasing order.
        By default 30 values from 1 to 0.01, evenly spaced on a logarithmic scale.
    tol : float, default 1e-6
        Duality gap, as a share of the objective of the empty model, up to which a solution
        counts as converged. The solver aims at the exact solution whatever the value.
    max_iter : int, default 1000
        Most active-set steps per target and strength.

    Returns
    -------
    LassoPath
        With a certificate for every target and strength.

    Raises
    ------
    InputError
        If a strength is not in (0, 1], or a setting is not positive.

    Warns
    -----
    ConvergenceWarning
        Once, if some solutions are not certified.
    """
    if tol <= 0 or max_iter < 1:
        raise InputError(f"tol and max_iter must be positive, got {tol} and {max_iter}.")
    values = check_strengths(np.geomspace(1, 0.01, 30) if strengths is None else strengths)
    start = np.zeros(stats.xy.shape)
    return _fit(stats, _Problem.of(stats), values, start, tol, max_iter)


@dataclass(frozen=True, eq=False)
class _Problem:
    """The lasso in correlation units."""

    G: np.ndarray  # (p, p)
    C: np.ndarray  # (p, q)
    yy: np.ndarray  # (q,) 1, or 0 for constant targets

    @classmethod
    def of(cls, stats: GramStatistics) -> _Problem:
        yy = (stats.scale_y > 0).astype(float)
        return cls(stats.correlation_xx, stats.correlation_xy, yy)


def _fit(
    stats: GramStatistics,
    problem: _Problem,
    strengths: np.ndarray,
    start: np.ndarray,
    tol: float,
    max_iter: int,
) -> LassoPath:
    """Walk down the strengths, from the coefficients `start` (p, q)."""
    G, C = problem.G, problem.C
    alpha_max = np.abs(C).max(axis=0, initial=0)  # (q,)
    alphas = strengths[:, None] * alpha_max  # (k, q)
    steps = min(max_iter, _NEWTON_STEPS)
    B, slopes, path, certificates = start, np.zeros_like(start), [], []
    for alpha, last in zip(alphas, [alphas[0], *alphas[:-1]], strict=True):
        bound = _EXACT * alpha + 1e-15  # (q,)
        ahead = B + (last - alpha) * slopes  # exact until a source enters or leaves
        ahead[ahead * B < 0] = 0
        ahead, slopes, left = primal_dual(G, C, alpha, ahead, slopes, bound, steps)
        near = _proximal_steps(G, C[:, left], alpha[left], B[:, left], bound[left], steps)
        for j, b in zip(left, near.T, strict=True):
            ahead[:, j] = active_set(G, C[:, j], alpha[j], b, bound[j], max_iter)
        B, slopes[:, left] = ahead, 0
        path.append(sp.csc_array(B))
        certificates.append(certificate(G, C, problem.yy, B, alpha))
    gap, kkt, explained = (np.array(values) for values in zip(*certificates, strict=True))
    converged = gap <= tol
    if not converged.all():
        warnings.warn(
            f"{np.count_nonzero(~converged)} of {converged.size} lasso solutions are not "
            f"certified (largest relative duality gap {gap.max():.1e}, tolerance {tol:.1e}). "
            "See path.converged; raise max_iter, or drop sources that are nearly copies.",
            ConvergenceWarning,
            stacklevel=3,
        )
    r2 = _share(explained, problem.yy)
    return LassoPath(strengths, alphas, tuple(path), gap, kkt, converged, r2, stats, tol, max_iter)


def _proximal_steps(
    G: np.ndarray, C: np.ndarray, alphas: np.ndarray, B: np.ndarray, tol: np.ndarray, max_iter: int
) -> np.ndarray:
    """Get near the solutions by proximal point steps (Rockafellar, 1976).

    Each adds `curvature |b - B|^2 / 2`, so that the Newton steps get through where the Gram
    matrix is singular, as with features whose sum is constant; little remains to be searched.
    """
    for curvature in _PROXIMAL if len(alphas) else ():
        lifted, shifted = G + curvature * np.eye(len(G)), C + curvature * B
        near, _, left = primal_dual(lifted, shifted, alphas, B, np.zeros_like(B), tol, max_iter)
        near[:, left] = B[:, left]
        B = near
    return B


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def check_strengths(strengths: np.ndarray | list[float]) -> np.ndarray:
    """Strengths as a decreasing float array."""
    values = np.unique(np.asarray(strengths, dtype=float))[::-1]
    if values.size == 0 or not (values[-1] > 0 and values[0] <= 1):
        raise InputError(
            f"Strengths are shares of alpha_max, in (0, 1]; got {np.asarray(strengths)}."
        )
    return values

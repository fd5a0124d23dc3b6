"""Lasso paths for many targets at once, from second moments, each point with its certificate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.arguments import number
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression.certificate import certificate
from circuit_toolkit.regression.matrices import reciprocal, rescaled
from circuit_toolkit.regression.paths.path import Path, warn_of
from circuit_toolkit.regression.settings import (
    check_alphas,
    check_solver,
    check_strengths,
    check_weights,
)
from circuit_toolkit.regression.solvers.all_targets import Penalty, Start, solve
from circuit_toolkit.regression.solvers.working_sets import on_working_sets
from circuit_toolkit.regression.statistics.gram import GramStatistics


@dataclass(frozen=True, eq=False, repr=False)
class LassoPath(Path):
    """Lasso solutions for q targets at k strengths, each with a certificate of optimality.

    For every target the objective is `mean((y - X b)^2) / 2 + alpha (l1_ratio w.|b| +
    (1 - l1_ratio) |b|^2 / 2)`, on columns in the form of the statistics: raw, centred (a free
    intercept) or standardised. The coefficients are dependency scores, not causal effects.

    Parameters
    ----------
    strengths : ndarray, shape (k,)
        Decreasing; alpha as a share of the smallest at which a target has no sources (the largest
        share of a target, where alphas were given).
    alphas : ndarray, shape (k, q)
        Penalties in scikit-learn's scale, in the unit of the form: for standardised columns of
        correlations, else of x times y.
    coefficients : tuple of k csc_array, shape (p, q)
        In the unit of the data, whatever the form; zeros are exact. `intercepts` goes with them,
        `standardised` gives them in standard deviations.
    gap : ndarray, shape (k, q)
        Duality gap over the objective of the empty model: the objective is at most this far
        from its optimum.
    kkt : ndarray, shape (k, q)
        Largest violation of the optimality conditions, in the unit of alpha.
    converged : ndarray of bool, shape (k, q)
        Whether that is within the tolerance, a share of alpha_max. Never read coefficients where
        it is false. At strengths not far above the tolerance the gap says more.
    r2 : ndarray, shape (k, q)
        Share of variance explained on the training rows; NaN for a constant target.
    stats : GramStatistics
        What was fitted.
    penalty : Penalty
        Weights of the sources, ratio and sign, as fitted.
    tol, max_iter : float and int
        Settings that `solve` goes on using.
    """

    r2: np.ndarray
    stats: GramStatistics
    penalty: Penalty
    tol: float
    max_iter: int

    def intercepts(self, index: int) -> np.ndarray:
        """Return the intercepts that go with `coefficients[index]`.

        Parameters
        ----------
        index : int
            Point of the path.

        Returns
        -------
        ndarray, shape (q,)
            Zeros on raw statistics.
        """
        return self.stats.intercepts(self.coefficients[index])

    def standardised(self, index: int) -> sp.csc_array:
        """Coefficients in standard deviations.

        Parameters
        ----------
        index : int
            Point of the path.

        Returns
        -------
        csc_array, shape (p, q)
            Standard deviations of a target per standard deviation of a source.
        """
        return rescaled(
            self.coefficients[index], self.stats.scale_x, reciprocal(self.stats.scale_y)
        )

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
        for index, b in enumerate(self.coefficients):  # (p, q)
            explained = b.multiply(2 * other.xy - other.xx @ b).sum(axis=0)  # (q,)
            bias = other.mean_y - other.mean_x @ b - self.intercepts(index)  # (q,)
            scores.append(_share(explained - bias**2, np.where(other.scale_y > 0, other.yy, 0)))
        return np.array(scores)

    def solve(self, strength: float) -> LassoPath:
        """Exact solution at one strength, stored or not, as a path of one point.

        Starts from the stored point above it, so it is fast between points of the path.

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
        above = np.flatnonzero(self.strengths >= strength)
        start = None
        if len(above):
            unit_x, unit_y = _units(self.stats)
            form = rescaled(self.coefficients[above[-1]], reciprocal(unit_x), reciprocal(unit_y))
            start = form, self.alphas[above[-1]]
        return _fit(self.stats, strengths, self.penalty, self.tol, self.max_iter, start)


def lasso_path(
    stats: GramStatistics,
    strengths: np.ndarray | list[float] | None = None,
    tol: float = 1e-8,
    *,
    alphas: np.ndarray | list[float] | None = None,
    weights: np.ndarray | None = None,
    positive: bool = False,
    l1_ratio: float = 1.0,
    max_iter: int = 1000,
) -> LassoPath:
    """Fit a lasso path for every target, warm-started from strong to weak penalties.

    Targets do not share anything but the sources: `lasso_path(stats.select(y=some))` gives the
    same numbers for these as `lasso_path(stats)`, so blocks of targets can be fitted apart.

    Parameters
    ----------
    stats : GramStatistics
        Of the training rows, in the form to fit: `stats`, `stats.centred()` (with an intercept) or
        `stats.standardised()`. In the last two constant columns get no coefficients.
    strengths : array of shape (k,), optional
        Penalties as shares of each target's alpha_max, in (0, 1]; sorted in decreasing order, each
        once. By default 30 from 1 to 0.01, evenly spaced on a logarithmic scale.
    tol : float, default 1e-8
        Largest violation of the optimality conditions, as a share of alpha_max, up to which a
        solution counts as converged.
    alphas : array of shape (k,) or (k, q), optional
        Instead of strengths: penalties as scikit-learn means them, positive, for all targets or
        for each; sorted in decreasing order.
    weights : array of shape (p,) or (p, q), optional
        What the penalty of each source is multiplied with, positive; infinite for a source that
        must not enter. See `adaptive_weights`. By default ones.
    positive : bool, default False
        Whether coefficients may not be negative.
    l1_ratio : float, default 1
        Share of the penalty that is on absolute values, in (0, 1]; the rest is on half the
        squares (elastic net, as in scikit-learn).
    max_iter : int, default 1000
        Most steps of each kind per target and strength.

    Returns
    -------
    LassoPath
        With a certificate for every target and strength.

    Raises
    ------
    InputError
        If a strength is not in (0, 1], or a setting is out of range.
    MismatchError
        If alphas or weights do not fit the statistics.

    Warns
    -----
    ConvergenceWarning
        Once, if some solutions are not certified.
    """
    if not isinstance(stats, GramStatistics):
        raise InputError(
            f"stats must be GramStatistics, got {type(stats).__name__}. From data: "
            "GramStatistics.from_arrays(X, Y); from folds: folds.total()."
        )
    check_solver(tol, max_iter)
    number(l1_ratio, "l1_ratio", 0, 1, open_low=True)
    if strengths is not None and alphas is not None:
        raise InputError("Pass strengths or alphas, not both.")
    p, q = stats.xy.shape
    penalty = Penalty(check_weights(weights, p, q), l1_ratio, positive)
    if alphas is not None:
        return _fit(stats, check_alphas(alphas, q), penalty, tol, max_iter)
    values = check_strengths(np.geomspace(1, 0.01, 30) if strengths is None else strengths)
    return _fit(stats, values, penalty, tol, max_iter)


def _fit(
    stats: GramStatistics,
    values: np.ndarray,
    penalty: Penalty,
    tol: float,
    max_iter: int,
    start: Start | None = None,
) -> LassoPath:
    """Solve and certify every point, of strengths (k,) or of alphas (k, q)."""
    relative = values.ndim == 1
    given = np.repeat(values[:, None], stats.xy.shape[1], axis=1) if relative else values
    coefficients, alpha_max, alphas, yy, summary = solve(
        stats, given, penalty, relative, tol, max_iter, start
    )
    gap, kkt, error = certificate(summary, yy, alphas, alphas * (1 - penalty.l1_ratio))
    converged = kkt <= tol * alpha_max
    worst = (kkt / np.where(alpha_max > 0, alpha_max, 1)).max(initial=0)
    warn_of(converged, "lasso solutions", f"violation {worst:.1e} of alpha_max", tol)
    shares = values
    if not relative:
        shares = (alphas / np.where(alpha_max > 0, alpha_max, np.inf)).max(axis=1, initial=0)
    unit_x, unit_y = _units(stats)
    spread = np.where(stats.scale_y > 0, yy if stats.form == "standardised" else stats.yy, 0)
    return LassoPath(
        shares,
        alphas,
        tuple(rescaled(b, unit_x, unit_y) for b in coefficients),
        gap,
        kkt,
        converged,
        1 - _share(error, spread),
        stats,
        penalty,
        tol,
        max_iter,
    )


def _units(stats: GramStatistics) -> tuple[np.ndarray, np.ndarray]:
    """Factors from coefficients in the form of the statistics to those of the data: (p,), (q,)."""
    if stats.form == "standardised":
        return reciprocal(stats.scale_x), stats.scale_y
    return np.ones(len(stats.mean_x)), np.ones(len(stats.mean_y))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide, with NaN where the whole is zero."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def lasso_at(
    X: np.ndarray, Y: np.ndarray, alphas: np.ndarray, *, max_iter: int = 2000
) -> np.ndarray:
    """Solve the lasso of every target at its own penalty, (p, q), on columns as they are.

    Minimises `mean((y - X b)^2) / 2 + alpha |b|_1` with X (n, p) and y a column of Y (n, q), also
    where sources are many more than rows.
    """
    tol = 1e-8
    B, kkt, top = on_working_sets(X, Y, alphas, tol, max_iter)
    worst = (kkt / np.where(top > 0, top, 1)).max(initial=0)
    warn_of(kkt <= tol * top, "lasso solutions", f"violation {worst:.1e} of alpha_max", tol)
    return B

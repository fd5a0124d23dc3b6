"""The adaptive lasso: a second fit that spares the sources which a first one found strong."""

from __future__ import annotations

import numpy as np

from circuit_toolkit.regression.labels.logistic import LogisticPath, logistic_path
from circuit_toolkit.regression.matrices import Matrix
from circuit_toolkit.regression.paths.choose import smallest_bic
from circuit_toolkit.regression.paths.lasso import LassoPath, lasso_path
from circuit_toolkit.regression.statistics.gram import GramStatistics


def adaptive_weights(
    path: LassoPath | LogisticPath, index: int | np.ndarray | None = None
) -> np.ndarray:
    """Penalty weights that spare the sources which a first fit found strong (Zou, 2006).

    Parameters
    ----------
    path : LassoPath or LogisticPath
        The first fit.
    index : int or ndarray of int, shape (q,), optional
        Point of it, for all targets or for each; by default, of a LassoPath, that with the
        smallest Bayesian information criterion.

    Returns
    -------
    ndarray, shape (p, q)
        `largest |b| of the target / |b|`, in the form of the statistics, for
        `lasso_path(..., weights=)`; infinite where b is zero.
    """
    if index is None:
        assert isinstance(path, LassoPath)
        n = path.stats.n
        unexplained = np.clip(1 - np.nan_to_num(path.r2), 1e-12, 1)
        index = smallest_bic(n * np.log(unexplained), _sources(path), n)
    raw = isinstance(path, LassoPath) and path.stats.form != "standardised"
    p, q = path.coefficients[0].shape  # type: ignore[misc]  # the stub says it may be None
    size = np.zeros((p, q))
    points = np.broadcast_to(index, q)
    for k in np.unique(points).tolist():
        here = points == k
        b = path.coefficients[k] if raw else path.standardised(k)
        size[:, here] = np.abs(b[:, here].toarray())
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = size.max(axis=0, initial=0) / size
    return np.where(size > 0, weights, np.inf)


def adaptive_lasso(
    stats: GramStatistics,
    strengths: np.ndarray | list[float],
    tol: float = 1e-8,
    *,
    weights: np.ndarray | None = None,
) -> LassoPath:
    """Fit a lasso path, and another with the adaptive weights from it.

    Parameters
    ----------
    stats : GramStatistics
        Of the training rows, in the form to fit.
    strengths, tol
        As in `lasso_path`, of both fits.
    weights : ndarray, optional
        As in `lasso_path`, of the first.

    Returns
    -------
    LassoPath
        The second.
    """
    weights = adaptive_weights(lasso_path(stats, strengths, tol, weights=weights))
    return lasso_path(stats, strengths, tol, weights=weights)


def adaptive_logistic(
    X: Matrix, y: np.ndarray, strengths: np.ndarray | list[float]
) -> LogisticPath:
    """Fit a logistic path, and another with the adaptive weights from it.

    Parameters
    ----------
    X, y, strengths
        As in `logistic_path`, of both fits.

    Returns
    -------
    LogisticPath
        The second.
    """
    first = logistic_path(X, y, strengths)
    odds = np.hstack([first.decision(X, k) for k in range(len(first.alphas))])  # (n, k)
    deviance = 2 * (np.logaddexp(0, odds) - np.asarray(y)[:, None] * odds).sum(axis=0)[:, None]
    index = smallest_bic(deviance, _sources(first), len(odds))
    weights = adaptive_weights(first, index)[:, 0]
    return logistic_path(X, y, strengths, weights=weights)


def _sources(path: LassoPath | LogisticPath) -> np.ndarray:
    """Count the coefficients that are not zero (k, q)."""
    return np.array([np.diff(b.indptr) for b in path.coefficients])

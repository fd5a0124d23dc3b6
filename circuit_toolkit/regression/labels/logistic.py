"""Sparse logistic regression paths for a binary label, each point with its certificate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression.labels.label_path import (
    LabelPath,
    check_settings,
    fit,
    plain,
    row_shares,
)
from circuit_toolkit.regression.labels.label_problem import BINARY, Problem, Sources
from circuit_toolkit.regression.labels.newton import proximal_newton
from circuit_toolkit.regression.matrices import as_matrix
from circuit_toolkit.regression.settings import check_weights

_EXACT = 1e-8  # violation at which the solver stops, over the strength and the largest slope


@dataclass(frozen=True, eq=False)
class LogisticPath(LabelPath):
    """Sparse logistic regressions of one binary label at k strengths.

    The objective is `mean(log(1 + exp(-t f))) + alpha (l1_ratio w.|b| + (1 - l1_ratio) |b|^2 / 2)`
    with t = +1 or -1 and f the decision value, on columns divided by their standard deviation, with
    the intercept free. A path keeps no rows, so unlike a `LassoPath` it has no `solve`: for another
    strength call `logistic_path` again.

    Parameters
    ----------
    strengths : ndarray, shape (k,)
        Decreasing; alpha as a share of the smallest that gives no sources.
    alphas : ndarray, shape (k,)
        Penalties in scikit-learn's scale, `1 / (C n)`, for columns in standard deviations.
    coefficients : tuple of k csc_array, shape (p, 1)
        In the unit of the data; zeros are exact. `intercepts` goes with them, `standardised` gives
        them per standard deviation of a source.
    constants : ndarray, shape (k, 1)
        What `intercepts` gives.
    gap : ndarray, shape (k,)
        Duality gap over the objective of the model without sources: the objective is at most this
        far from its optimum.
    kkt : ndarray, shape (k,)
        Largest violation of the optimality conditions, that of the intercept among them, in the
        unit of alpha.
    converged : ndarray of bool, shape (k,)
        Whether the gap, whatever its sign, is within the tolerance. Never read coefficients where
        it is false.
    train_accuracy : ndarray, shape (k,)
        Share of training rows on the right side.
    scale_x : ndarray, shape (p,)
        Standard deviations of the training columns.
    """

    def _numbers(self, y: Any, rows: int) -> np.ndarray:
        return _as_labels(y, rows).astype(int)


def logistic_path(
    X: object,
    y: object,
    strengths: np.ndarray | list[float] | None = None,
    tol: float = 1e-6,
    *,
    alphas: np.ndarray | list[float] | None = None,
    weights: np.ndarray | None = None,
    positive: bool = False,
    l1_ratio: float = 1.0,
    sample_weights: object | None = None,
    max_iter: int = 50,
) -> LogisticPath:
    """Fit sparse logistic regressions, warm-started from strong to weak penalties.

    Proximal Newton (Lee, Sun and Saunders, 2014): every step solves the lasso of the local
    quadratic model exactly, on the sources that the strong rule (Tibshirani et al., 2012)
    keeps or that violate the optimality conditions.

    Parameters
    ----------
    X : array, scipy.sparse matrix or Tensor, shape (n, p)
        Source activations. Sparse input stays sparse, but for columns that are not zero in more
        than half of the rows. Constant columns get no coefficients.
    y : array or Tensor, shape (n,)
        Labels, 0 and 1 or bool, both present. For more classes there is `multinomial_path`.
    strengths : array of shape (k,), optional
        Penalties as shares of alpha_max, in (0, 1]; by default 30 from 1 to 0.01.
    tol : float, default 1e-6
        Duality gap, as a share of the objective without sources, that counts as converged.
    alphas : array of shape (k,), optional
        Instead of strengths: penalties as scikit-learn means them, `1 / (C n)` (with
        sample_weights their sum instead of n), positive.
    weights : array of shape (p,), optional
        What the penalty of each source is multiplied with, positive; infinite for a source that
        must not enter. By default ones.
    positive : bool, default False
        Whether coefficients may not be negative.
    l1_ratio : float, default 1
        Share of the penalty that is on absolute values, in (0, 1]; the rest is on half the
        squares (elastic net, as in scikit-learn).
    sample_weights : array of shape (n,), optional
        What the loss of each row is multiplied with, not negative; their size does not matter. A
        row of weight 2 counts like two rows, also in standard deviations. By default ones.
    max_iter : int, default 50
        Most Newton steps per strength.

    Returns
    -------
    LogisticPath
        With a certificate for every strength.

    Raises
    ------
    InputError
        If values are not finite, labels are not binary or of one class, or settings out of range.
    MismatchError
        If X, y, weights and sample_weights do not fit each other.

    Warns
    -----
    ConvergenceWarning
        Once, if some solutions are not certified.
    """
    check_settings(tol, max_iter, l1_ratio, strengths is not None and alphas is not None)
    matrix = as_matrix("X", X)
    labels = _as_labels(y, matrix.shape[0])
    share = row_shares(sample_weights, len(labels))
    counted = labels[share > 0]
    if counted.min() == counted.max():
        raise InputError(
            f"All {len(counted)} labels are {counted[0]:.0f}. Two classes are needed to tell apart."
        )
    w = l1_ratio * check_weights(weights, matrix.shape[1], 1)
    Z, wanted = Sources.of(matrix, share), labels[:, None]
    problem = Problem(Z, wanted, share, w, 1 - l1_ratio, positive, BINARY)
    points = fit(problem, proximal_newton, _EXACT, strengths, alphas, tol, max_iter)
    return LogisticPath(**points)


def _as_labels(y: object, rows: int) -> np.ndarray:
    """Labels as floats 0 and 1, shape (rows,)."""
    labels = np.asarray(plain(y))
    if labels.shape != (rows,):
        raise MismatchError(f"y must have shape ({rows},), one label per row; got {labels.shape}.")
    if labels.dtype.kind not in "biuf" or not np.isin(labels, (0, 1)).all():
        raise InputError(
            f"y must hold only 0 and 1, or be bool; got {np.unique(labels)[:5]}. "
            "For one class of several pass y == that_class."
        )
    return labels.astype(float)

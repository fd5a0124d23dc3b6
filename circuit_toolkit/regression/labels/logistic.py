"""Sparse logistic regression paths for a binary label, each point with its certificate."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression.certificate import ConvergenceWarning
from circuit_toolkit.regression.labels.newton import proximal_newton
from circuit_toolkit.regression.labels.problem import ROUNDING, Problem, Sources
from circuit_toolkit.regression.matrices import as_array, as_matrix, reciprocal, rescaled
from circuit_toolkit.regression.settings import (
    check_alphas,
    check_solver,
    check_strengths,
    check_weights,
    nearest,
)

_EXACT = 1e-8  # violation at which the solver stops, over the strength and the largest slope


@dataclass(frozen=True, eq=False)
class LogisticPath:
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
        What `intercepts` returns.
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

    strengths: np.ndarray
    alphas: np.ndarray
    coefficients: tuple[sp.csc_array, ...]
    constants: np.ndarray
    gap: np.ndarray
    kkt: np.ndarray
    converged: np.ndarray
    train_accuracy: np.ndarray
    scale_x: np.ndarray

    def __repr__(self) -> str:
        """Sizes and the certificate: the arrays are too large to print."""
        return (
            f"LogisticPath({len(self.strengths)} strengths {self.strengths[0]:.3g} to "
            f"{self.strengths[-1]:.3g}, sources={len(self.scale_x)}, "
            f"certified={self.converged.mean():.0%})"
        )

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

        Raises
        ------
        InputError
            If the strength is not in (0, 1].
        """
        return nearest(self.strengths, strength)

    def intercepts(self, index: int) -> np.ndarray:
        """Return the intercept that goes with `coefficients[index]`.

        Parameters
        ----------
        index : int
            Point of the path.

        Returns
        -------
        ndarray, shape (1,)
            Such that `X @ coefficients[index] + intercepts(index)` are the decision values.
        """
        return self.constants[index]

    def standardised(self, index: int) -> sp.csc_array:
        """Coefficients per standard deviation of a source.

        Parameters
        ----------
        index : int
            Point of the path.

        Returns
        -------
        csc_array, shape (p, 1)
            In log odds per standard deviation.
        """
        return rescaled(self.coefficients[index], self.scale_x, np.ones(1))

    def decision(self, X: object, index: int) -> np.ndarray:
        """Log odds of the label 1 for rows at one strength.

        Parameters
        ----------
        X : array, scipy.sparse matrix or Tensor, shape (m, p)
            Source activations, in the unit of the training data.
        index : int
            Point of the path.

        Returns
        -------
        ndarray, shape (m, 1)

        Raises
        ------
        MismatchError
            If the number of columns differs.
        """
        matrix = as_matrix("X", X)
        if matrix.shape[1] != len(self.scale_x):
            raise MismatchError(
                f"X has {matrix.shape[1]} columns, the path was fitted on {len(self.scale_x)}."
            )
        return matrix @ self.coefficients[index].toarray() + self.constants[index]

    def held_out_accuracy(self, X: object, y: object) -> np.ndarray:
        """Share of other rows that are on the right side, at every strength.

        Parameters
        ----------
        X : array, scipy.sparse matrix or Tensor, shape (m, p)
            Source activations.
        y : array or Tensor, shape (m,)
            Labels 0 and 1; here one class alone is allowed.

        Returns
        -------
        ndarray, shape (k,)
            Between 0 and 1. The yardstick is the share of the largest class.

        Raises
        ------
        InputError
            If labels are not 0 and 1.
        MismatchError
            If X and y do not fit each other or the path.
        """
        matrix = as_matrix("X", X)
        found = np.hstack([self.decision(matrix, k) for k in range(len(self.alphas))])  # (m, k)
        labels = _as_labels(y, len(found))
        return ((found > 0) == labels[:, None]).mean(axis=0)


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
        Labels, 0 and 1 or bool, both present.
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
    check_solver(tol, max_iter, l1_ratio, strengths is not None and alphas is not None)
    matrix = as_matrix("X", X)
    labels = _as_labels(y, matrix.shape[0])
    share = _row_shares(sample_weights, len(labels))
    counted = labels[share > 0]
    if counted.min() == counted.max():
        raise InputError(
            f"All {len(counted)} labels are {counted[0]:.0f}. Two classes are needed to tell apart."
        )
    w = l1_ratio * check_weights(weights, matrix.shape[1], 1)[:, 0]
    problem = Problem(Sources.of(matrix, share), labels, share, w, 1 - l1_ratio, positive)
    if alphas is None:
        values = check_strengths(np.geomspace(1, 0.01, 30) if strengths is None else strengths)
        path = _fit(problem, values, True, tol, max_iter)
    else:
        path = _fit(problem, check_alphas(alphas, 1)[:, 0], False, tol, max_iter)
    if not path.converged.all():
        warnings.warn(
            f"{np.count_nonzero(~path.converged)} of {len(path.alphas)} logistic regressions are "
            f"not certified (largest relative duality gap {np.abs(path.gap).max():.1e}, tolerance "
            f"{tol:.1e}). See path.converged; raise max_iter, or drop sources that are nearly "
            "copies.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return path


def _fit(
    problem: Problem, values: np.ndarray, relative: bool, tol: float, max_iter: int
) -> LogisticPath:
    """Solve and certify every point, of strengths or of alphas."""
    Z, labels, share = problem.Z, problem.labels, problem.share
    b, ones = np.zeros(len(Z.scale)), share @ labels
    b0 = float(np.log(ones / (1 - ones)))
    empty = np.full(len(labels), b0)
    slope = problem.size(problem.pull(problem.residual(empty), b, 0))
    slope[slope <= ROUNDING] = 0
    steepest, alpha_max = float(slope.max(initial=0)), float((slope / problem.w).max(initial=0))
    null = problem.objective(empty, b, 0)
    alphas = values * alpha_max if relative else values
    previous, points, constants, certificates, accuracy = alpha_max, [], [], [], []
    for alpha in alphas:
        if alpha < alpha_max:
            stop = _EXACT * steepest * alpha / alpha_max + ROUNDING
            b, b0 = proximal_newton(problem, alpha, previous, b, b0, stop, max_iter)
            previous = alpha
        decision = Z.times(b) + b0
        points.append(rescaled(sp.csc_array(b[:, None]), reciprocal(Z.scale), np.ones(1)))
        constants.append([b0 - Z.columns.origin @ b])
        certificates.append(problem.certificate(decision, b, alpha))
        accuracy.append(1 - share @ ((decision > 0) != (labels > 0)))
    gap, kkt = np.array(certificates).T
    gap = gap / null
    return LogisticPath(
        strengths=values if relative else values / (alpha_max or np.inf),
        alphas=alphas,
        coefficients=tuple(points),
        constants=np.array(constants),
        gap=gap,
        kkt=kkt,
        converged=np.abs(gap) <= tol,  # below zero by more than rounding, it would prove nothing
        train_accuracy=np.array(accuracy),
        scale_x=Z.scale,
    )


def _as_labels(y: object, rows: int) -> np.ndarray:
    """Labels as floats 0 and 1, shape (rows,)."""
    labels = as_array(y)
    if labels.shape != (rows,):
        raise MismatchError(f"y must have shape ({rows},), one label per row; got {labels.shape}.")
    if labels.dtype.kind not in "biuf" or not np.isin(labels, (0, 1)).all():
        raise InputError(
            f"y must hold only 0 and 1, or be bool; got {np.unique(labels)[:5]}. "
            "For one class of several pass y == that_class."
        )
    return labels.astype(float)


def _row_shares(weights: object, n: int) -> np.ndarray:
    """Shares (n,) of the rows, from their weights; without any, all alike."""
    values = np.ones(n) if weights is None else np.asarray(as_array(weights), dtype=float)
    if values.shape != (n,):
        raise MismatchError(f"sample_weights must have shape ({n},), got {values.shape}.")
    if not np.isfinite(values).all() or values.min() < 0 or values.sum() == 0:
        raise InputError(
            "sample_weights must be finite, none negative and not all zero, got "
            f"{values.min():.3g} to {values.max():.3g}."
        )
    return values / values.sum()

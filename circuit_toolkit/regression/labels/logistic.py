"""Sparse logistic regression paths for a binary label, each point with its certificate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.stats import rankdata

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression.labels.newton import proximal_newton
from circuit_toolkit.regression.labels.problem import ROUNDING, Problem, Sources
from circuit_toolkit.regression.matrices import as_array, as_matrix, reciprocal, rescaled
from circuit_toolkit.regression.paths.path import Path, warn_of
from circuit_toolkit.regression.settings import check_solver, check_strengths, check_weights

_EXACT = 1e-8  # violation at which the solver stops, over the strength and the largest slope


@dataclass(frozen=True, eq=False, repr=False)
class LogisticPath(Path):
    """Sparse logistic regressions of one binary label at k strengths.

    The objective is `mean(log(1 + exp(-t f))) + alpha w.|b|` with t = +1 or -1 and f the decision
    value, on columns divided by their standard deviation, with the intercept free. A path keeps no
    rows, so unlike a `LassoPath` it has no `solve`: call `logistic_path` for another strength.

    Parameters
    ----------
    strengths, coefficients
        As in `LassoPath`, for one target: k csc_array of shape (p, 1), in the unit of the data.
    alphas : ndarray, shape (k,)
        Penalties in scikit-learn's scale, `1 / (C n)`, for columns in standard deviations.
    gap, kkt : ndarray, shape (k,)
        As in `LassoPath`; `kkt` includes the violation of the intercept's condition.
    converged : ndarray of bool, shape (k,)
        Whether the gap, whatever its sign, is within the tolerance. Never read coefficients where
        it is false.
    constants : ndarray, shape (k, 1)
        What `intercepts` returns.
    train_accuracy : ndarray, shape (k,)
        Share of training rows on the right side.
    scale_x : ndarray, shape (p,)
        Standard deviations of the training columns.
    """

    constants: np.ndarray
    train_accuracy: np.ndarray
    scale_x: np.ndarray

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

    def held_out_auroc(self, X: object, y: object) -> np.ndarray:
        """Area under the ROC curve of other rows, at every strength.

        How often a row of label 1 has greater log odds than one of label 0; ties count half. Chance
        is .5 however rare a label is, and what an empty model has.

        Parameters
        ----------
        X : array, scipy.sparse matrix or Tensor, shape (m, p)
            Source activations.
        y : array or Tensor, shape (m,)
            Labels 0 and 1.

        Returns
        -------
        ndarray, shape (k,)
            Between 0 and 1; NaN where y is of one class.

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
        ones = labels.sum()
        if ones in (0, len(labels)):
            return np.full(len(self.alphas), np.nan)
        above = rankdata(found, axis=0)[labels > 0].sum(axis=0) - ones * (ones + 1) / 2
        return above / (ones * (len(labels) - ones))


def logistic_path(
    X: object,
    y: object,
    strengths: np.ndarray | list[float] | None = None,
    tol: float = 1e-6,
    *,
    weights: np.ndarray | None = None,
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
    strengths, weights
        As in `lasso_path`, for one target.
    tol : float, default 1e-6
        Duality gap, as a share of the objective without sources, that counts as converged.
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
        If X, y and weights do not fit each other.

    Warns
    -----
    ConvergenceWarning
        Once, if some solutions are not certified.
    """
    check_solver(tol, max_iter)
    matrix = as_matrix("X", X)
    labels = _as_labels(y, matrix.shape[0])
    if labels.min() == labels.max():
        raise InputError(
            f"All {len(labels)} labels are {labels[0]:.0f}. Two classes are needed to tell apart."
        )
    problem = Problem(Sources.of(matrix), labels, check_weights(weights, matrix.shape[1], 1)[:, 0])
    values = check_strengths(np.geomspace(1, 0.01, 30) if strengths is None else strengths)
    return _fit(problem, values, tol, max_iter)


def _fit(problem: Problem, strengths: np.ndarray, tol: float, max_iter: int) -> LogisticPath:
    """Solve and certify every point."""
    Z, labels = problem.Z, problem.labels
    b, ones = np.zeros(len(Z.scale)), labels.mean()
    b0 = float(np.log(ones / (1 - ones)))
    empty = np.full(len(labels), b0)
    slope = np.abs(problem.pull(problem.residual(empty)))
    slope[slope <= ROUNDING] = 0
    steepest, alpha_max = float(slope.max(initial=0)), float((slope / problem.w).max(initial=0))
    null = problem.objective(empty, b, 0)
    alphas = strengths * alpha_max
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
        accuracy.append(np.mean((decision > 0) == (labels > 0)))
    gap, kkt = np.array(certificates).T
    gap = gap / null
    converged = np.abs(gap) <= tol  # below zero by more than rounding, it would prove nothing
    worst = f"relative duality gap {np.abs(gap).max():.1e}"
    warn_of(converged, "logistic regressions", worst, tol)
    return LogisticPath(
        strengths=strengths,
        alphas=alphas,
        coefficients=tuple(points),
        constants=np.array(constants),
        gap=gap,
        kkt=kkt,
        converged=converged,
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

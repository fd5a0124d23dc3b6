"""Sparse multinomial regression paths for a label of several classes, each point certified.

The loss is the mean of -log of the softmax probability of the right class. Classes take turns: for
one of them the loss is replaced by its quadratic model and the lasso that results is solved exactly
(Friedman, Hastie and Tibshirani, 2010), with a line search, so every turn descends.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import entr, log_softmax, softmax

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression.active_set import active_set
from circuit_toolkit.regression.certificate import ConvergenceWarning, violation
from circuit_toolkit.regression.logistic import standardised
from circuit_toolkit.regression.matrices import Matrix, as_matrix, reciprocal
from circuit_toolkit.regression.newton import hessian
from circuit_toolkit.regression.settings import check_strengths

_EXACT = 1e-7  # times alpha: violation at which the solver stops
_INNER_STEPS = 1000


@dataclass(frozen=True, eq=False)
class MultinomialPath:
    """L1-penalised multinomial regressions of one label with K classes at k strengths.

    The objective is `mean(-log p(class)) + alpha |B|_1` with p the softmax of K decision values, on
    columns divided by their standard deviation, with the intercepts free.

    Parameters
    ----------
    classes : ndarray, shape (K,)
        In the order of the columns.
    strengths, alphas : ndarray, shape (k,)
        Decreasing; penalties as shares of the smallest alpha that gives no sources, and as such.
    coefficients : tuple of k csc_array, shape (p, K)
        In standardised units (per standard deviation of the source); zeros are exact.
    intercepts : ndarray, shape (k, K)
        Of the decision values in the unit of the data; their sum over classes is 0.
    gap, kkt : ndarray, shape (k,)
        Duality gap over the objective without sources, and largest violation of the optimality
        conditions in the unit of alpha.
    converged : ndarray of bool, shape (k,)
        Whether the gap is within the tolerance.
    train_accuracy : ndarray, shape (k,)
        Share of training rows whose class has the largest decision value.
    scale_x : ndarray, shape (p,)
        Standard deviations of the training columns.
    """

    classes: np.ndarray
    strengths: np.ndarray
    alphas: np.ndarray
    coefficients: tuple[sp.csc_array, ...]
    intercepts: np.ndarray
    gap: np.ndarray
    kkt: np.ndarray
    converged: np.ndarray
    train_accuracy: np.ndarray
    scale_x: np.ndarray

    def __repr__(self) -> str:
        """Sizes and the certificate: the arrays are too large to print."""
        return (
            f"MultinomialPath({len(self.classes)} classes, {len(self.strengths)} strengths "
            f"{self.strengths[0]:.3g} to {self.strengths[-1]:.3g}, sources={len(self.scale_x)}, "
            f"certified={self.converged.mean():.0%})"
        )

    def decision(self, X: object, index: int) -> np.ndarray:
        """Decision values of rows at one strength.

        Parameters
        ----------
        X : array, scipy.sparse matrix or Tensor, shape (m, p)
            Source activations, in the unit of the training data.
        index : int
            Point of the path.

        Returns
        -------
        ndarray, shape (m, K)
            The largest is the likeliest class; their softmax are probabilities.

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
        b = self.coefficients[index].toarray() * reciprocal(self.scale_x)[:, None]
        return matrix @ b + self.intercepts[index]

    def held_out_accuracy(self, X: object, y: np.ndarray) -> np.ndarray:
        """Share of other rows whose class is the likeliest, at every strength: (k,).

        Parameters
        ----------
        X : array, scipy.sparse matrix or Tensor, shape (m, p)
            Source activations.
        y : array, shape (m,)
            Labels.

        Returns
        -------
        ndarray, shape (k,)
            Between 0 and 1. The yardstick is the share of the largest class.

        Raises
        ------
        MismatchError
            If X and y do not fit each other or the path.
        """
        matrix, labels = as_matrix("X", X), np.asarray(y)
        if labels.shape != (matrix.shape[0],):
            raise MismatchError(f"y must have shape ({matrix.shape[0]},), got {labels.shape}.")
        found = [
            self.classes[self.decision(matrix, index).argmax(axis=1)]
            for index in range(len(self.strengths))
        ]
        return (np.array(found) == labels).mean(axis=1)


def multinomial_path(
    X: object,
    y: Any,
    strengths: np.ndarray | list[float] | None = None,
    tol: float = 1e-6,
    max_iter: int = 200,
) -> MultinomialPath:
    """Fit L1-penalised multinomial regressions, warm-started from strong to weak penalties.

    Parameters
    ----------
    X : array, scipy.sparse matrix or Tensor, shape (n, p)
        Source activations. Sparse input stays sparse. Constant columns get no coefficients.
    y : array, shape (n,)
        Labels of any kind that sorts, two or more of them present.
    strengths : array of shape (k,), optional
        Penalties as shares of alpha_max, in (0, 1]; by default 30 from 1 to 0.01.
    tol : float, default 1e-6
        Duality gap, as a share of the objective without sources, that counts as converged.
    max_iter : int, default 200
        Most rounds through the classes per strength.

    Returns
    -------
    MultinomialPath
        With a certificate for every strength.

    Raises
    ------
    InputError
        If values are not finite, there is one class only, or settings are not positive.
    MismatchError
        If y has not one label per row.

    Warns
    -----
    ConvergenceWarning
        Once, if some solutions are not certified.
    """
    if tol <= 0 or max_iter < 1:
        raise InputError(f"tol and max_iter must be positive, got {tol} and {max_iter}.")
    matrix, labels = as_matrix("X", X), np.asarray(y)
    if labels.shape != (matrix.shape[0],):
        raise MismatchError(
            f"y must have shape ({matrix.shape[0]},), one label per row; got {labels.shape}."
        )
    classes, number = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"All {len(labels)} labels are {classes[0]!r}: nothing to tell apart.")
    values = check_strengths(np.geomspace(1, 0.01, 30) if strengths is None else strengths)
    Z, off, scale = standardised(matrix)
    wanted = np.eye(len(classes))[number]  # (n, K)
    share = wanted.mean(axis=0)
    B, b0 = np.zeros((matrix.shape[1], len(classes))), np.log(share) - np.log(share).mean()
    alpha_max = float(np.abs(Z.T @ (wanted - share)).max(initial=0)) / len(labels)
    null_objective = float(entr(share).sum())
    previous, path, intercepts, certificates, accuracy = alpha_max, [], [], [], []
    for alpha in values * alpha_max:
        B, b0 = _solve(Z, wanted, alpha, previous, B, b0, _EXACT * alpha + 1e-15, max_iter)
        path.append(sp.csc_array(B))
        intercepts.append(b0 - off @ B)
        certificates.append(_certificate(Z, wanted, B, b0, alpha))
        accuracy.append(np.mean((Z @ B + b0).argmax(axis=1) == number))
        previous = alpha
    gap, kkt = np.array(certificates).T
    gap = gap / null_objective
    converged = gap <= tol
    if not converged.all():
        warnings.warn(
            f"{np.count_nonzero(~converged)} of {len(values)} multinomial solutions are not "
            f"certified (largest relative duality gap {gap.max():.1e}, tolerance {tol:.1e}). "
            "See path.converged; raise max_iter, or drop sources that are nearly copies.",
            ConvergenceWarning,
            stacklevel=2,
        )
    found = np.array(intercepts)
    return MultinomialPath(
        classes=classes,
        strengths=values,
        alphas=values * alpha_max,
        coefficients=tuple(path),
        intercepts=found - found.mean(axis=1, keepdims=True),
        gap=gap,
        kkt=kkt,
        converged=converged,
        train_accuracy=np.array(accuracy),
        scale_x=scale,
    )


def _solve(
    Z: Matrix,
    wanted: np.ndarray,
    alpha: float,
    previous: float,
    B: np.ndarray,
    b0: np.ndarray,
    tol: float,
    max_iter: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Solve at one strength, from the solution at the one before."""
    n, B = len(wanted), B.copy()
    for _ in range(max_iter):
        b0 = _best_intercepts(Z @ B, wanted, b0)
        decision = Z @ B + b0
        pull = Z.T @ (wanted - softmax(decision, axis=1)) / n  # (p, K)
        if violation(pull, B, alpha).max() <= tol:
            break
        for c in range(len(b0)):
            residual = wanted[:, c] - softmax(decision, axis=1)[:, c]
            weights = (wanted[:, c] - residual) * (1 - wanted[:, c] + residual) / n
            down = Z.T @ residual / n
            near = np.flatnonzero((B[:, c] != 0) | (np.abs(down) > 2 * alpha - previous))
            total = weights.sum()
            if not (len(near) and total > 0):
                continue
            Zn, b = Z[:, near], B[near, c]
            # the intercept of the class follows its coefficients
            mixed, rest = Zn.T @ weights, residual.mean()
            H = hessian(Zn, weights)
            slope = down[near] - mixed * rest / total
            move = active_set(H, H @ b + slope, alpha, b, tol / 10, _INNER_STEPS) - b
            shift = (rest - mixed @ move) / total
            step = _line_search(decision, wanted, c, Zn @ move + shift, alpha, b, move)
            decision[:, c] += step * (Zn @ move + shift)
            B[near, c] = b + step * move
            b0 = b0.copy()
            b0[c] += step * shift
    return B, _best_intercepts(Z @ B, wanted, b0)


def _line_search(decision, wanted, c, along, alpha, b, move) -> float:
    """Halve the step until the objective does not rise."""
    moved = decision.copy()

    def objective(step: float) -> float:
        moved[:, c] = decision[:, c] + step * along
        return _loss(moved, wanted) + alpha * float(np.abs(b + step * move).sum())

    now, step = objective(0.0), 1.0
    while step > 1e-8 and objective(step) > now + 1e-15:
        step /= 2
    return step


def _loss(decision: np.ndarray, wanted: np.ndarray) -> float:
    return -float((log_softmax(decision, axis=1) * wanted).sum()) / len(wanted)


def _best_intercepts(decision: np.ndarray, wanted: np.ndarray, b0: np.ndarray) -> np.ndarray:
    """Find the intercepts (K,) at which the residuals of every class sum to 0: damped Newton."""
    n = len(wanted)
    for _ in range(100):
        probability = softmax(decision + b0, axis=1)
        slope = (wanted - probability).mean(axis=0)
        if np.abs(slope).max() < 1e-14:
            break
        curvature = np.diag(probability.mean(axis=0)) - probability.T @ probability / n
        move = np.linalg.lstsq(curvature, slope, rcond=1e-12)[0]
        now, step = _loss(decision + b0, wanted), 1.0
        while step > 1e-8 and _loss(decision + b0 + step * move, wanted) > now + 1e-15:
            step /= 2
        if step <= 1e-8:
            break
        b0 = b0 + step * (move - move.mean())
    return b0


def _certificate(
    Z: Matrix, wanted: np.ndarray, B: np.ndarray, b0: np.ndarray, alpha: float
) -> tuple[float, float]:
    """Duality gap, and largest violation of the optimality conditions.

    The dual value is the mean entropy of probabilities pulled towards the labels until no
    source correlates with their residual by more than alpha.
    """
    decision = Z @ B + b0
    residual = wanted - softmax(decision, axis=1)
    pull = Z.T @ residual / len(wanted)
    largest = np.abs(pull).max(initial=0)
    shrink = min(1.0, alpha / largest) if largest > 0 else 1.0
    dual = float(entr(np.clip(wanted - shrink * residual, 0, 1)).sum()) / len(wanted)
    primal = _loss(decision, wanted) + alpha * float(np.abs(B).sum())
    return primal - dual, float(violation(pull, B, alpha).max(initial=0))

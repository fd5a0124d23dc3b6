"""Sparse logistic regression paths for a binary label, each point with its certificate."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from scipy.special import entr

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression.certificate import ConvergenceWarning
from circuit_toolkit.regression.matrices import (
    Matrix,
    as_matrix,
    reciprocal,
)
from circuit_toolkit.regression.newton import logistic_certificate, proximal_newton
from circuit_toolkit.regression.settings import check_strengths
from circuit_toolkit.regression.sums import spread

_EXACT = 1e-8  # times alpha: violation at which the solver stops


@dataclass(frozen=True, eq=False)
class LogisticPath:
    """L1-penalised logistic regressions of one binary label at k strengths.

    The objective is `mean(log(1 + exp(-t f))) + alpha |b|_1` with t = +1 or -1 and f the
    decision value, on columns divided by their standard deviation, with the intercept free.

    Parameters
    ----------
    strengths, alphas : ndarray, shape (k,)
        Decreasing; penalties as shares of the smallest alpha that gives no sources, and as such.
    coefficients : csc_array, shape (p, k)
        In standardised units (per standard deviation of the source); zeros are exact.
    intercepts : ndarray, shape (k,)
        Of the decision value in the unit of the data.
    gap : ndarray, shape (k,)
        Duality gap over the objective of the model without sources.
    kkt : ndarray, shape (k,)
        Largest violation of the optimality conditions, in the unit of alpha.
    converged : ndarray of bool, shape (k,)
        Whether the gap is within the tolerance.
    train_accuracy : ndarray, shape (k,)
        Share of training rows on the right side.
    scale_x : ndarray, shape (p,)
        Standard deviations of the training columns.
    """

    strengths: np.ndarray
    alphas: np.ndarray
    coefficients: sp.csc_array
    intercepts: np.ndarray
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

    def raw(self, index: int) -> tuple[np.ndarray, float]:
        """Coefficients in the unit of the data, and the intercept.

        Parameters
        ----------
        index : int
            Point of the path.

        Returns
        -------
        tuple of ndarray (p,) and float
            Such that `X @ coefficients + intercept` is the decision value.
        """
        b = self.coefficients[:, [index]].toarray()[:, 0]
        return b * reciprocal(self.scale_x), float(self.intercepts[index])

    def decision(self, X: object) -> np.ndarray:
        """Log odds of the label, at every strength.

        Parameters
        ----------
        X : array, scipy.sparse matrix or Tensor, shape (m, p)
            Source activations, in the unit of the training data.

        Returns
        -------
        ndarray, shape (m, k)
            Positive where the label 1 is the likelier.

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
        b = sp.diags_array(reciprocal(self.scale_x)) @ self.coefficients  # (p, k)
        values = matrix @ b
        return (values.toarray() if sp.issparse(values) else values) + self.intercepts

    def held_out_accuracy(self, X: object, y: object) -> np.ndarray:
        """Share of other rows on the right side, at every strength: (k,).

        Parameters
        ----------
        X : array, scipy.sparse matrix or Tensor, shape (m, p)
            Source activations.
        y : array or Tensor, shape (m,)
            Labels, 0 and 1 or bool; here one class alone is allowed.

        Returns
        -------
        ndarray, shape (k,)
            Between 0 and 1. The yardstick is the share of the larger class.

        Raises
        ------
        MismatchError
            If X and y do not fit each other or the path.
        """
        decision = self.decision(X)
        labels = _as_labels(y, len(decision))
        return ((decision > 0) == (labels[:, None] > 0)).mean(axis=0)


def logistic_path(
    X: object,
    y: object,
    strengths: np.ndarray | list[float] | None = None,
    tol: float = 1e-6,
    max_iter: int = 50,
) -> LogisticPath:
    """Fit L1-penalised logistic regressions, warm-started from strong to weak penalties.

    Proximal Newton (Lee, Sun and Saunders, 2014): every step solves the lasso of the local
    quadratic model exactly, on the sources that the strong rule (Tibshirani et al., 2012)
    keeps or that violate the optimality conditions.

    Parameters
    ----------
    X : array, scipy.sparse matrix or Tensor, shape (n, p)
        Source activations. Sparse input stays sparse. Constant columns get no coefficients.
    y : array or Tensor, shape (n,)
        Labels, 0 and 1 or bool, both present. For more classes call once per class.
    strengths : array of shape (k,), optional
        Penalties as shares of alpha_max, in (0, 1]; by default 30 from 1 to 0.01.
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
        If values are not finite, labels are not binary or of one class, or settings not positive.
    MismatchError
        If X and y have different numbers of rows.

    Warns
    -----
    ConvergenceWarning
        Once, if some solutions are not certified.
    """
    matrix = as_matrix("X", X)
    labels = _as_labels(y, matrix.shape[0])
    if labels.min() == labels.max():
        raise InputError(
            f"All {len(labels)} labels are {labels[0]:.0f}. Two classes are needed to tell apart."
        )
    if tol <= 0 or max_iter < 1:
        raise InputError(f"tol and max_iter must be positive, got {tol} and {max_iter}.")
    values = check_strengths(np.geomspace(1, 0.01, 30) if strengths is None else strengths)
    Z, shift, scale = standardised(matrix)

    share = labels.mean()
    alpha_max = np.abs(Z.T @ (labels - share)).max(initial=0) / len(labels)
    null_objective = float(entr(share) + entr(1 - share))
    b, b0, previous = np.zeros(Z.shape[1]), float(np.log(share / (1 - share))), alpha_max
    path, intercepts, certificates, accuracy = [], [], [], []
    for alpha in values * alpha_max:
        b, b0 = proximal_newton(Z, labels, alpha, previous, b, b0, _EXACT * alpha + 1e-15, max_iter)
        path.append(b)
        intercepts.append(b0 - shift @ b)
        certificates.append(logistic_certificate(Z, labels, b, b0, alpha))
        accuracy.append(np.mean((b0 + Z @ b > 0) == (labels > 0)))
        previous = alpha
    gap, kkt = np.array(certificates).T
    gap = gap / null_objective
    converged = gap <= tol
    if not converged.all():
        warnings.warn(
            f"{np.count_nonzero(~converged)} of {len(values)} logistic solutions are not "
            f"certified (largest relative duality gap {gap.max():.1e}, tolerance {tol:.1e}). "
            "See path.converged; raise max_iter, or drop sources that are nearly copies.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return LogisticPath(
        strengths=values,
        alphas=values * alpha_max,
        coefficients=sp.csc_array(np.array(path).T),
        intercepts=np.array(intercepts),
        gap=gap,
        kkt=kkt,
        converged=converged,
        train_accuracy=np.array(accuracy),
        scale_x=scale,
    )


def _as_labels(y: object, rows: int) -> np.ndarray:
    """Labels as floats 0 and 1, shape (rows,)."""
    labels = np.asarray(y.detach().cpu() if isinstance(y, torch.Tensor) else y)
    if labels.shape != (rows,):
        raise MismatchError(f"y must have shape ({rows},), one label per row; got {labels.shape}.")
    if labels.dtype.kind not in "biuf" or not np.isin(labels, (0, 1)).all():
        raise InputError(
            f"y must hold only 0 and 1, or be bool; got {np.unique(labels)[:5]}. "
            "For one class of several pass y == that_class."
        )
    return labels.astype(float)


def standardised(matrix: Matrix) -> tuple[Matrix, np.ndarray, np.ndarray]:
    """Columns over their standard deviation; dense ones also centred, which keeps digits.

    The free intercept makes centring immaterial to the solution. Returns also what was
    subtracted, in standardised units, and the standard deviations.
    """
    mean, scale = spread(matrix)
    if isinstance(matrix, np.ndarray):
        return (matrix - mean) * reciprocal(scale), mean * reciprocal(scale), scale
    scaled = sp.csc_array(matrix @ sp.diags_array(reciprocal(scale)))
    return scaled, np.zeros(len(scale)), scale

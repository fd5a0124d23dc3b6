"""What the paths of label regressions have in common: the points, and the loop that finds them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression.certificate import ConvergenceWarning
from circuit_toolkit.regression.labels.label_problem import ROUNDING, Problem
from circuit_toolkit.regression.matrices import Matrix, as_matrix, reciprocal
from circuit_toolkit.regression.settings import check_alphas, check_strengths, nearest

# Problem, alpha, the alpha before, its coefficients and intercepts, violation at which to stop,
# most steps -> coefficients (p, q) and intercepts (q,).
Solver = Callable[..., tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class LabelPath:
    """Sparse regressions of one label at k strengths, with q columns of coefficients each.

    A path keeps no rows, so unlike a `LassoPath` it cannot solve between its points.
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
            f"{type(self).__name__}({len(self.strengths)} strengths {self.strengths[0]:.3g} to "
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
        """Return the intercepts that go with `coefficients[index]`.

        Parameters
        ----------
        index : int
            Point of the path.

        Returns
        -------
        ndarray, shape (q,)
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
        csc_array, shape (p, q)
            In decision values per standard deviation.
        """
        return _rescaled(self.coefficients[index], self.scale_x)

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
        ndarray, shape (m, q)
            For a binary label the log odds of 1, one column. For more classes a column each: the
            largest is the likeliest, and their softmax are probabilities.

        Raises
        ------
        MismatchError
            If the number of columns differs.
        """
        return self._decision(self._matrix(X), index)

    def held_out_accuracy(self, X: object, y: Any) -> np.ndarray:
        """Share of other rows on which the likeliest class is the right one, at every strength.

        Parameters
        ----------
        X : array, scipy.sparse matrix or Tensor, shape (m, p)
            Source activations.
        y : array or Tensor, shape (m,)
            Labels of the kind that was fitted; here one class alone is allowed.

        Returns
        -------
        ndarray, shape (k,)
            Between 0 and 1. The yardstick is the share of the largest class.

        Raises
        ------
        InputError
            If labels are missing, or are not 0 and 1 where these were fitted.
        MismatchError
            If X and y do not fit each other or the path.
        """
        matrix = self._matrix(X)
        numbers = self._numbers(y, matrix.shape[0])
        right = [
            chosen(self._decision(matrix, index)) == numbers for index in range(len(self.alphas))
        ]
        return np.mean(right, axis=1)

    def _matrix(self, X: object) -> Matrix:
        matrix = as_matrix("X", X)
        if matrix.shape[1] != len(self.scale_x):
            raise MismatchError(
                f"X has {matrix.shape[1]} columns, the path was fitted on {len(self.scale_x)}."
            )
        return matrix

    def _decision(self, matrix: Matrix, index: int) -> np.ndarray:
        return matrix @ self.coefficients[index].toarray() + self.constants[index]

    def _numbers(self, y: Any, rows: int) -> np.ndarray:
        """Return the numbers (rows,) of the classes that labels name."""
        raise NotImplementedError


def chosen(decision: np.ndarray) -> np.ndarray:
    """Return the number (m,) of the likeliest class."""
    return decision.argmax(axis=1) if decision.shape[1] > 1 else (decision[:, 0] > 0).astype(int)


def plain(y: Any) -> Any:
    """Labels off the device, if they are a tensor."""
    return y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else y


def check_settings(tol: float, max_iter: int, l1_ratio: float, both: bool) -> None:
    """Refuse settings out of range; `both` says whether strengths and alphas were given."""
    if tol <= 0 or max_iter < 1 or not 0 < l1_ratio <= 1:
        raise InputError(
            "tol and max_iter must be positive and l1_ratio in (0, 1], got "
            f"{tol}, {max_iter} and {l1_ratio}."
        )
    if both:
        raise InputError("Give strengths or alphas, not both.")


def row_shares(weights: object, n: int) -> np.ndarray:
    """Shares (n,) of the rows, from their weights; without any, all alike."""
    values = np.ones(n) if weights is None else np.asarray(plain(weights), dtype=float)
    if values.shape != (n,):
        raise MismatchError(f"sample_weights must have shape ({n},), got {values.shape}.")
    if not np.isfinite(values).all() or values.min() < 0 or values.sum() == 0:
        raise InputError(
            "sample_weights must be finite, none negative and not all zero, got "
            f"{values.min():.3g} to {values.max():.3g}."
        )
    return values / values.sum()


def fit(
    problem: Problem,
    solve: Solver,
    exact: float,
    strengths: np.ndarray | list[float] | None,
    alphas: np.ndarray | list[float] | None,
    tol: float,
    max_iter: int,
) -> dict[str, Any]:
    """Solve and certify every point: what a `LabelPath` is made of."""
    values = np.geomspace(1, 0.01, 30) if strengths is None else strengths
    values = check_strengths(values) if alphas is None else check_alphas(alphas, 1)[:, 0]
    Z, wanted, share = problem.Z, problem.wanted, problem.share

    B = np.zeros((len(Z.scale), wanted.shape[1]))
    b0 = problem.loss.intercepts(share @ wanted)
    empty = np.tile(b0, (len(wanted), 1))
    slope = problem.size(problem.pull(problem.residual(empty), B, 0))
    slope[slope <= ROUNDING] = 0
    steepest, alpha_max = float(slope.max(initial=0)), float((slope / problem.w).max(initial=0))
    null = problem.objective(empty, B, 0)
    if alphas is None:
        values, shares = values * alpha_max, values
    else:
        shares = values / (alpha_max or np.inf)
    previous, points, constants, certificates, accuracy = alpha_max, [], [], [], []
    for alpha in values:
        if alpha < alpha_max:
            stop = exact * steepest * alpha / alpha_max + ROUNDING
            B, b0 = solve(problem, alpha, previous, B, b0, stop, max_iter)
            previous = alpha
        decision = Z.times(B) + b0
        points.append(_rescaled(sp.csc_array(B), reciprocal(Z.scale)))
        constants.append(b0 - Z.columns.origin @ B)
        certificates.append(problem.certificate(decision, B, alpha))
        accuracy.append(1 - share @ (chosen(decision) != chosen(wanted)))
    gap, kkt = np.array(certificates).T
    gap = gap / null
    converged = np.abs(gap) <= tol  # below zero by more than rounding, it would prove nothing
    if not converged.all():
        warnings.warn(
            f"{np.count_nonzero(~converged)} of {len(values)} regressions of labels are not "
            f"certified (largest relative duality gap {np.abs(gap).max():.1e}, tolerance "
            f"{tol:.1e}). See path.converged; raise max_iter, or drop sources that are nearly "
            "copies.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return {
        "strengths": shares,
        "alphas": values,
        "coefficients": tuple(points),
        "constants": np.array(constants),
        "gap": gap,
        "kkt": kkt,
        "converged": converged,
        "train_accuracy": np.array(accuracy),
        "scale_x": Z.scale,
    }


def _rescaled(B: sp.csc_array, rows: np.ndarray) -> sp.csc_array:
    """Multiply rows with factors."""
    return sp.csc_array((B.data * rows[B.indices], B.indices, B.indptr), shape=B.shape)

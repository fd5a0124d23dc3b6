"""Matrices of observations: checked on entry, and read about their column means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from circuit_toolkit.errors import InputError

Matrix = Any  # ndarray or csc_array; scipy.sparse has no static types to tell them apart by
_DENSE_SHARE = 0.5  # of rows non-zero: beyond it a sparse column takes more memory than a dense one


def as_matrix(name: str, values: object) -> Matrix:
    """Bring numpy, scipy.sparse or torch values to float64, and refuse what cannot be fitted.

    Parameters
    ----------
    name : str
        What error messages call the matrix.
    values : array, sparse matrix or Tensor, shape (n, p)
        One row per observation. Sparse stays sparse.

    Returns
    -------
    ndarray or csc_array, shape (n, p)
        The same numbers in float64.

    Raises
    ------
    InputError
        If there are not two axes, no rows, other things than numbers, or NaN or infinity.
    """
    if isinstance(values, torch.Tensor):
        values = _from_torch(values)
    matrix: Matrix = sp.csc_array(values) if sp.issparse(values) else np.asarray(values)
    if matrix.ndim != 2 or matrix.shape[0] == 0:
        raise InputError(
            f"{name} must have shape (rows, columns) with at least one row, got {matrix.shape}. "
            "A single column is values[:, None]."
        )
    if matrix.dtype.kind not in "biuf":
        raise InputError(f"{name} must hold real numbers, got {matrix.dtype}. Convert it first.")
    matrix = matrix.astype(np.float64)
    _check_finite(name, matrix)
    return matrix


def _from_torch(values: torch.Tensor) -> Matrix:
    values = values.detach().to("cpu", torch.float64)
    if values.layout == torch.strided:
        return values.numpy()
    values = values.to_sparse_coo().coalesce()
    return sp.coo_array((values.values().numpy(), tuple(values.indices().numpy())), values.shape)


def _check_finite(name: str, matrix: Matrix) -> None:
    stored = matrix.data if sp.issparse(matrix) else matrix
    if np.isfinite(stored).all():
        return
    if sp.issparse(matrix):
        columns = np.repeat(np.arange(matrix.shape[1]), np.diff(matrix.indptr))
        bad = np.bincount(columns[~np.isfinite(stored)], minlength=matrix.shape[1])  # (p,)
    else:
        bad = (~np.isfinite(matrix)).sum(axis=0)  # (p,)
    worst = int(bad.argmax())
    raise InputError(
        f"{name} holds NaN or infinity in {np.count_nonzero(bad)} of {len(bad)} columns; "
        f"column {worst} has {bad[worst]} such rows of {matrix.shape[0]}. "
        "Drop those rows, or look at where the activations overflowed."
    )


@dataclass(frozen=True, eq=False)
class Centred:
    """A matrix seen about its column means, with sparse columns left sparse.

    Moments about the mean lose digits when the mean dwarfs the spread, so dense columns are
    centred before anything is multiplied. A column with at most half of its rows non-zero has
    mean^2 <= variance: for these the products are taken first and the means afterwards.
    """

    mean: np.ndarray  # (p,)
    is_sparse: np.ndarray  # (p,) bool: which columns sit in `sparse`
    sparse: Matrix  # csc (n, those columns) as given
    dense: np.ndarray  # (n, the other columns) minus their means

    @classmethod
    def of(cls, matrix: Matrix) -> Centred:
        """Split a checked matrix into its sparse and its dense columns."""
        n, p = matrix.shape
        if isinstance(matrix, np.ndarray):
            mean = matrix.mean(axis=0)  # (p,)
            return cls(mean, np.zeros(p, bool), sp.csc_array((n, 0)), matrix - mean)
        is_sparse = np.diff(matrix.indptr) <= _DENSE_SHARE * n  # (p,)
        mean = np.asarray(matrix.sum(axis=0)) / n  # (p,)
        dense = matrix[:, ~is_sparse].toarray()
        mean[~is_sparse] = dense.mean(axis=0)
        return cls(mean, is_sparse, matrix[:, is_sparse], dense - mean[~is_sparse])

    def covariance(self, other: Centred) -> np.ndarray:
        """Products of these columns (p) with those of `other` (q), averaged over rows: (p, q)."""
        n = len(self.dense)
        mean, other_mean = self.mean[self.is_sparse], other.mean[other.is_sparse]
        out = np.empty((len(self.mean), len(other.mean)))
        raw = (self.sparse.T @ other.sparse).toarray() / n
        out[np.ix_(self.is_sparse, other.is_sparse)] = raw - np.outer(mean, other_mean)
        # one side already sums to zero, so the mean of the other side drops out
        out[np.ix_(self.is_sparse, ~other.is_sparse)] = self.sparse.T @ other.dense / n
        out[np.ix_(~self.is_sparse, other.is_sparse)] = (other.sparse.T @ self.dense).T / n
        out[np.ix_(~self.is_sparse, ~other.is_sparse)] = self.dense.T @ other.dense / n
        return out

    def variance(self) -> np.ndarray:
        """Variance of each column over the rows, divided by n: (p,)."""
        n = len(self.dense)
        out = np.empty(len(self.mean))
        square = np.asarray(self.sparse.power(2).sum(axis=0)) / n
        out[self.is_sparse] = square - self.mean[self.is_sparse] ** 2
        out[~self.is_sparse] = np.einsum("ij,ij->j", self.dense, self.dense) / n
        return np.maximum(out, 0)


def standard_deviation(variance: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Square root, with exact zeros for columns whose spread is only rounding of their mean."""
    deviation = np.sqrt(np.maximum(variance, 0))
    return np.where(deviation > 1e-13 * np.abs(mean), deviation, 0.0)


def reciprocal(scale: np.ndarray) -> np.ndarray:
    """One over the scale, and zero where it is zero: a constant column drops out of products."""
    return np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)


def count_active(matrix: Matrix) -> np.ndarray:
    """Rows in which each column is not zero: (p,)."""
    if isinstance(matrix, np.ndarray):
        return np.count_nonzero(matrix, axis=0)
    return np.asarray((matrix != 0).sum(axis=0)).astype(int)

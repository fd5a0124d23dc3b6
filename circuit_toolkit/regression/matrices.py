"""Matrices of observations: checked on entry, and split into sparse and dense columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.errors import InputError

Matrix = Any  # ndarray or csc_array; scipy.sparse has no static types to tell them apart by
_NAMED = 5  # rows that an error message lists


def as_matrix(name: str, values: object) -> Matrix:
    """Bring numpy, scipy.sparse or torch values to float64, and refuse what cannot be fitted."""
    if hasattr(values, "detach"):
        values = _from_torch(name, values)
    matrix: Matrix = values if sp.issparse(values) else np.asarray(values)
    if matrix.ndim != 2 or matrix.shape[0] == 0:
        raise InputError(
            f"{name} must have shape (rows, columns) with at least one row, got {matrix.shape}. "
            "A single column is values[:, None]."
        )
    if sp.issparse(matrix):
        matrix = sp.csc_array(matrix)
    if matrix.dtype.kind not in "biuf":
        raise InputError(f"{name} must hold real numbers, got {matrix.dtype}. Convert it first.")
    matrix = matrix.astype(np.float64, copy=False)
    if sp.issparse(matrix) and not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    _check_finite(name, matrix)
    return matrix


def as_array(values: Any) -> np.ndarray:
    """Bring numpy values, lists or a tensor on any device to an array."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _from_torch(name: str, values: Any) -> Matrix:
    import torch

    if values.is_complex():
        raise InputError(f"{name} must hold real numbers, got {values.dtype}. Convert it first.")
    values = values.detach().to("cpu", torch.float64)
    if values.layout == torch.strided:
        return values.numpy()
    values = values.to_sparse_coo().coalesce()
    return sp.coo_array((values.values().numpy(), tuple(values.indices().numpy())), values.shape)


def _check_finite(name: str, matrix: Matrix) -> None:
    stored = matrix.data if sp.issparse(matrix) else matrix
    # The sum is finite unless something in it is not, or it overflows: one fast pass.
    if np.isfinite(stored.sum()) or np.isfinite(stored).all():
        return
    if sp.issparse(matrix):
        columns = np.repeat(np.arange(matrix.shape[1]), np.diff(matrix.indptr))
        wrong = ~np.isfinite(stored)
        rows, columns = matrix.indices[wrong], columns[wrong]
    else:
        rows, columns = np.nonzero(~np.isfinite(matrix))
    bad = np.bincount(columns, minlength=matrix.shape[1])  # (p,)
    worst = int(bad.argmax())
    found = np.sort(rows[columns == worst])[:_NAMED]
    more = ", ..." if bad[worst] > _NAMED else ""
    raise InputError(
        f"{name} holds NaN or infinity in {np.count_nonzero(bad)} of {len(bad)} columns; "
        f"column {worst} has {bad[worst]} such rows of {matrix.shape[0]} "
        f"({', '.join(map(str, found))}{more}). "
        "Drop those rows, or look at where the activations overflowed."
    )


def sums(matrix: Matrix) -> np.ndarray:
    """Sum each column (p,)."""
    return np.asarray(matrix.sum(axis=0)).ravel()


def weighted(matrix: Matrix, weights: np.ndarray) -> Matrix:
    """Multiply the rows with weights (n,)."""
    if isinstance(matrix, np.ndarray):
        return matrix * weights[:, None]
    return sp.csc_array(sp.diags_array(weights) @ matrix)


def standard_deviation(variance: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Square root, with exact zeros for columns whose spread is only rounding of their mean."""
    deviation = np.sqrt(np.maximum(variance, 0))
    return np.where(deviation > 1e-13 * np.abs(mean), deviation, 0.0)


def reciprocal(scale: np.ndarray) -> np.ndarray:
    """One over the scale, and zero where it is zero: a constant column drops out of products."""
    return np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)


def rescaled(b: sp.csc_array, rows: np.ndarray, columns: np.ndarray) -> sp.csc_array:
    """Multiply rows and columns with factors."""
    factors = rows[b.indices] * np.repeat(columns, np.diff(b.indptr))
    return sp.csc_array((b.data * factors, b.indices, b.indptr), shape=b.shape)


def count_active(matrix: Matrix) -> np.ndarray:
    """Rows in which each column is not zero: (p,)."""
    if isinstance(matrix, np.ndarray):
        return np.count_nonzero(matrix, axis=0)
    return matrix.count_nonzero(axis=0)

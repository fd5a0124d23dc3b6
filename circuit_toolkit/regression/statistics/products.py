"""Products X'Y over rows, of sparse and dense columns, without making anything dense."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.regression.compiled import kernels
from circuit_toolkit.regression.matrices import Matrix

_ROWS = 1024  # of a sparse product at a time, so that it takes little memory beside the result
_TILE = 256


def add_product(X: Matrix, Y: Matrix, out: np.ndarray, upper: bool = False) -> None:
    """Add X'Y to `out` (p, q), or with `upper` at least what is on and above the diagonal."""
    if not (X.shape[1] and Y.shape[1]):
        return
    if not sp.issparse(X):
        if sp.issparse(Y):
            add_product(Y, X, out.T)
        else:
            out += X.T @ Y
    elif not sp.issparse(Y):
        out += sp.csr_array(X).T @ Y  # each row of Y is read once, and in order
    else:
        _add_sparse(sp.csc_array(X), sp.csr_array(Y), out, upper)


def _add_sparse(X: sp.csc_array, Y: sp.csr_array, out: np.ndarray, upper: bool) -> None:
    compiled = kernels(wait=True)
    if compiled is None or max(X.nnz, Y.nnz) >= 2**31:
        for start in range(0, len(out), _ROWS):
            some = slice(start, start + _ROWS)
            out[some] += (X[:, some].T @ Y).toarray()
        return
    Y.sort_indices()
    compiled.add_products(*by_parts(X), *by_parts(Y), out, upper)


def by_parts(matrix: sp.csc_array | sp.csr_array) -> list[np.ndarray]:
    """Return starts, indices and values of a compressed matrix, as the compiled loops take them."""
    return [matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32), matrix.data]


def mirror(G: np.ndarray) -> None:
    """Copy what is above the diagonal of G (p, p) below it, in place."""
    for start in range(0, len(G), _TILE):
        some = slice(start, start + _TILE)
        G[some, :start] = G[:start, some].T
        G[some, some] = np.triu(G[some, some]) + np.triu(G[some, some], 1).T

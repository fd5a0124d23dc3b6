"""Sums over rows that grow block by block, without a second copy of the matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.regression.compiled import kernels
from circuit_toolkit.regression.matrices import Matrix, count_active, sums, weighted
from circuit_toolkit.regression.statistics.products import add_product, by_parts, mirror

_DENSE_SHARE = 0.5  # of rows non-zero: beyond it a column is shifted to its mean, which fills it
_BLOCK = 128  # dense targets at a time: they and their products then stay in the cache
_CLOSE = 100.0  # mean^2 over variance up to which at most two digits are lost without a shift


@dataclass(eq=False)
class Columns:
    """Columns about an origin: the sparse ones about 0, so that zeros stay zeros."""

    origin: np.ndarray  # (p,)
    is_sparse: np.ndarray  # (p,) bool
    sparse: Matrix  # csc (n, those columns)
    dense: np.ndarray  # (n, the others) minus their origin

    @classmethod
    def of(cls, matrix: Matrix, origin: np.ndarray | None = None) -> Columns:
        """Split a checked matrix; without an origin dense columns are shifted to their means."""
        n, p = matrix.shape
        if isinstance(matrix, np.ndarray):
            about = matrix.mean(axis=0) if origin is None else origin
            return cls(about, np.zeros(p, bool), sp.csc_array((n, 0)), matrix - about)
        if origin is None:
            is_sparse = np.diff(matrix.indptr) <= _DENSE_SHARE * n  # (p,)
            about = np.zeros(p)
            about[~is_sparse] = sums(matrix[:, ~is_sparse]) / n
        else:
            about, is_sparse = origin, origin == 0
        if is_sparse.all():
            return cls(about, is_sparse, matrix, np.zeros((n, 0)))
        dense = matrix[:, ~is_sparse].toarray() - about[~is_sparse]
        return cls(about, is_sparse, matrix[:, is_sparse], dense)

    def weighted(self, weights: np.ndarray) -> Columns:
        """Multiply the rows with weights (n,)."""
        parts = weighted(self.sparse, weights), weighted(self.dense, weights)
        return Columns(self.origin, self.is_sparse, *parts)

    def sums(self) -> np.ndarray:
        """Sum each column about its origin (p,)."""
        out = np.empty(len(self.origin))
        out[self.is_sparse], out[~self.is_sparse] = sums(self.sparse), sums(self.dense)
        return out

    def square_sums(self) -> np.ndarray:
        """Sum the squares of each column about its origin (p,)."""
        out = np.empty(len(self.origin))
        out[self.is_sparse] = sums(self.sparse * self.sparse)
        out[~self.is_sparse] = np.einsum("ij,ij->j", self.dense, self.dense)
        return out

    def add_product(self, other: Columns, out: np.ndarray, upper: bool = False) -> None:
        """Add the products of these columns (p) with those of `other` (q) to `out` (p, q)."""
        if self.is_sparse.all() and other.is_sparse.all():
            return add_product(self.sparse, other.sparse, out, upper)
        for mine, rows in ((self.sparse, self.is_sparse), (self.dense, ~self.is_sparse)):
            for its, columns in ((other.sparse, other.is_sparse), (other.dense, ~other.is_sparse)):
                if rows.all() and columns.all():
                    add_product(mine, its, out)
                elif rows.any() and columns.any():
                    part = np.zeros((rows.sum(), columns.sum()))
                    add_product(mine, its, part)
                    out[np.ix_(rows, columns)] += part
        return None


class Sums:
    """Sums about fixed origins, to which blocks of rows are added in place."""

    def __init__(self, p: int, q: int):
        self.rows = 0
        self.x, self.y = np.zeros(p), np.zeros(q)  # about the origins
        self.xx, self.xy, self.yy = np.zeros((p, p)), np.zeros((p, q)), np.zeros(q)
        self.active_x = np.zeros(p, int)
        self.origin_x: np.ndarray | None = None
        self.origin_y: np.ndarray | None = None

    def fits(self, X: Matrix, Y: Matrix) -> bool:
        """Return whether these columns are not too far from the origins for their spread."""
        return _near(X, self.origin_x) and _near(Y, self.origin_y)

    def add(self, X: Matrix, Y: Matrix) -> None:
        """Add a block of checked rows."""
        x = Columns.of(X, self.origin_x)
        self.rows += X.shape[0]
        self.x += x.sums()
        self.active_x += count_active(X)
        x.add_product(x, self.xx, upper=True)
        self.origin_x = x.origin
        if x.is_sparse.all() and isinstance(Y, np.ndarray):
            self._add_dense_targets(x.sparse, Y)
            return
        y = Columns.of(Y, self.origin_y)
        self.origin_y = y.origin
        self.y += y.sums()
        self.yy += y.square_sums()
        x.add_product(y, self.xy)

    def _add_dense_targets(self, X: Matrix, Y: np.ndarray) -> None:
        """Add products of sparse sources with targets that are shifted a few at a time."""
        origin = Y.mean(axis=0) if self.origin_y is None else self.origin_y
        self.origin_y = origin
        by_rows, compiled = sp.csr_array(X), kernels(wait=True)
        width = min(_BLOCK, len(self.y))
        near = np.empty((len(self.x), width))
        for start in range(0, len(self.y), _BLOCK):
            some = slice(start, start + _BLOCK)
            y = np.subtract(Y[:, some], origin[some], order="C")
            self.y[some] += y.sum(axis=0)
            self.yy[some] += np.einsum("ij,ij->j", y, y)
            if compiled is None:
                self.xy[:, some] += by_rows.T @ y  # each row of y is read once, and in order
            else:
                out = near if y.shape[1] == width else np.empty((len(self.x), y.shape[1]))
                out[:] = 0
                compiled.add_dense_products(*by_parts(by_rows), y, out)
                self.xy[:, some] += out

    def centre(self) -> None:
        """Divide by the number of rows and move the origins to the means, in place."""
        assert self.origin_x is not None and self.origin_y is not None
        mirror(self.xx)
        for each in (self.x, self.y, self.xx, self.xy, self.yy):
            each /= self.rows
        if self.x.any():
            for start in range(0, len(self.x), 256):  # without another matrix of this size
                some = slice(start, start + 256)
                self.xx[some] -= np.outer(self.x[some], self.x)
                self.xy[some] -= np.outer(self.x[some], self.y)
        self.yy = np.maximum(self.yy - self.y**2, 0)
        self.x, self.y = self.x + self.origin_x, self.y + self.origin_y


def _near(matrix: Matrix, origin: np.ndarray | None) -> bool:
    if origin is None:
        return True
    n = matrix.shape[0]
    if isinstance(matrix, np.ndarray):
        mean, square = matrix.mean(axis=0) - origin, np.einsum("ij,ij->j", matrix, matrix) / n
        variance = square - (mean + origin) ** 2
    else:
        live = np.diff(matrix.indptr) > _DENSE_SHARE * n
        if not live.any():
            return True
        origin, matrix = origin[live], matrix[:, live].toarray()
        mean, variance = matrix.mean(axis=0) - origin, matrix.var(axis=0)
    return bool((mean**2 <= _CLOSE * np.maximum(variance, 1e-26 * origin**2)).all())

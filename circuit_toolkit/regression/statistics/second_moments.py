"""The Gram matrix of the sources in the form that a regression sees, without a copy of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import get_lapack_funcs

from circuit_toolkit.regression.compiled import kernels
from circuit_toolkit.regression.matrices import reciprocal
from circuit_toolkit.regression.statistics.gram import GramStatistics

_spotrf, _spotrs = get_lapack_funcs(("potrf", "potrs"), dtype=np.float32)
_dpotrf, _dpotrs = get_lapack_funcs(("potrf", "potrs"), dtype=np.float64)
_MANY = 512  # sources from which on a factor in float32 saves time
_PIVOT = 1e-8  # of a Cholesky factor, squared and relative: below it, sources depend on each other
_ROUGH_PIVOT = 1e-3  # the same for a factor in float32
_NOISE = 1e-13  # cosine between columns that sums in float64 cannot tell from 0

Solver = Callable[[np.ndarray], np.ndarray]  # right-hand sides (s, k) to solutions


@dataclass(frozen=True, eq=False)
class SecondMoments:
    """The matrix D (G + m m') D, with D diagonal."""

    G: np.ndarray
    shift: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, stats: GramStatistics) -> SecondMoments:
        """See statistics in their form; constant sources enter only where there is no intercept."""
        shift, live = np.zeros(len(stats.mean_x)), stats.scale_x
        if stats.form == "raw":
            shift, scale = stats.mean_x, np.ones(len(shift))
        else:
            scale = (live > 0) * 1.0 if stats.form == "centred" else reciprocal(live)
        return cls(stats.xx, shift, scale)

    def block(self, rows: np.ndarray) -> np.ndarray:
        """Take the part (s, s) between some sources."""
        m, d = self.shift[rows], self.scale[rows]
        out = self.G[rows[:, None], rows]
        if m.any():
            out += np.outer(m, m)
        out *= d
        out *= d[:, None]
        return out

    def solver(self, rows: np.ndarray, ridge: float) -> Solver | None:
        """Prepare to solve systems between some sources; None where they are collinear."""
        rough = (self._rough_block, _spotrf, _spotrs, _ROUGH_PIVOT)
        fine = (self.block, _dpotrf, _dpotrs, _PIVOT)
        for block, potrf, potrs, pivot in (rough, fine) if len(rows) > _MANY else (fine,):
            A = block(rows)
            A.flat[:: len(A) + 1] += ridge
            whole = A.diagonal().copy()
            # the transpose is the same matrix in the order of LAPACK: no copy
            factor, failed = potrf(A.T, lower=1, overwrite_a=True, clean=False)
            if not failed and (factor.diagonal() ** 2 > pivot * whole).all():
                return lambda right, f=factor, s=potrs: s(f, right.astype(f.dtype), lower=1)[0]
        return None

    def _rough_block(self, rows: np.ndarray) -> np.ndarray:
        """Take the part between some sources in float32, on and above the diagonal."""
        compiled = kernels()
        if compiled is None:
            return self.block(rows).astype(np.float32)
        out = np.empty((len(rows), len(rows)), np.float32)
        compiled.gather(self.G, self.shift, self.scale, rows, out)
        return out

    def residual(self, c: np.ndarray, rows: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return c minus the product with b (p,), which is zero off some rows: (p,)."""
        compiled = kernels()
        if compiled is None:
            db = self.scale[rows] * b[rows]
            return c - self.scale * (db @ self.G[rows] + (db @ self.shift[rows]) * self.shift)
        out = np.empty_like(c)
        compiled.slope_of_error(self.G, self.shift, self.scale, c, rows, len(rows), b, out)
        return out

    def diagonal(self) -> np.ndarray:
        """Second moment of each source (p,)."""
        return self.scale**2 * (self.G.diagonal() + self.shift**2)


def targets(stats: GramStatistics, some: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Products with some targets, in the form of the statistics, and their second moments."""
    products, yy = stats.xy[:, some].T, stats.yy[some]
    own = stats.xx.diagonal()
    if stats.form == "raw":
        mean = stats.mean_y[some]
        own, yy = own + stats.mean_x**2, yy + mean**2
        shift = np.outer(mean, stats.mean_x)
        products = np.add(products, shift, out=shift)
    else:
        standard = stats.form == "standardised"
        unit_x = reciprocal(stats.scale_x) if standard else stats.scale_x > 0
        unit_y = reciprocal(stats.scale_y[some])
        live = (unit_y > 0).astype(float)
        by = unit_y if standard else live
        own = own * unit_x**2
        products = np.ascontiguousarray(products * unit_x * by[:, None])
        yy = live if standard else yy * live
    bound = _NOISE * np.sqrt(yy)
    largest = np.maximum(products.max(axis=1, initial=0), -products.min(axis=1, initial=0))
    for j in np.flatnonzero(largest <= bound * np.sqrt(own.max(initial=0))):
        if (np.abs(products[j]) <= bound[j] * np.sqrt(own)).all():
            products[j] = 0
    return products, yy

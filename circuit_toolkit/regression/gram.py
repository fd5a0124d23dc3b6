"""Second moments of sources and targets: all that a lasso needs to know about the data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression.centred import (
    Centred,
    as_matrix,
    count_active,
    reciprocal,
    standard_deviation,
)


@dataclass(frozen=True, eq=False)
class GramStatistics:
    """Means and centred second moments of p sources and q targets over n rows, in float64.

    Statistics of disjoint sets of rows add up with `+`, so data can be streamed and dropped.

    Parameters
    ----------
    n : int
        Number of rows seen.
    mean_x, mean_y : ndarray, shapes (p,) and (q,)
        Column means.
    xx, xy, yy : ndarray, shapes (p, p), (p, q) and (q,)
        Centred second moments divided by n. For the targets only the variances.
    active_x : ndarray of int, shape (p,)
        Rows in which each source is not zero.
    """

    n: int
    mean_x: np.ndarray
    mean_y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray
    yy: np.ndarray
    active_x: np.ndarray

    @classmethod
    def from_arrays(cls, X: object, Y: object) -> GramStatistics:
        """Statistics of one set of rows.

        Parameters
        ----------
        X, Y : array, scipy.sparse matrix or Tensor, shapes (n, p) and (n, q)
            Source and target activations, one row per observation. Sparse input is never
            made dense, except for single columns that are non-zero in over half of the rows.

        Returns
        -------
        GramStatistics
            In float64, whatever the input was.

        Raises
        ------
        InputError
            If values are not finite real numbers in two axes.
        MismatchError
            If X and Y have different numbers of rows.
        """
        x, y = as_matrix("X", X), as_matrix("Y", Y)
        if x.shape[0] != y.shape[0]:
            raise MismatchError(
                f"X has {x.shape[0]} rows and Y has {y.shape[0]}. "
                "Row i of both must be the same observation."
            )
        cx, cy = Centred.of(x), Centred.of(y)
        return cls(
            n=x.shape[0],
            mean_x=cx.mean,
            mean_y=cy.mean,
            xx=cx.covariance(cx),
            xy=cx.covariance(cy),
            yy=cy.variance(),
            active_x=count_active(x),
        )

    def __add__(self, other: GramStatistics) -> GramStatistics:
        """Statistics of both sets of rows together (Chan, Golub and LeVeque, 1983)."""
        if not isinstance(other, GramStatistics):
            return NotImplemented
        if self.xy.shape != other.xy.shape:
            raise MismatchError(
                f"Statistics of {self.xy.shape} and {other.xy.shape} (sources, targets) "
                "do not add up. Select the same columns in both first."
            )
        n = self.n + other.n
        ours, theirs = self.n / n, other.n / n
        dx, dy = other.mean_x - self.mean_x, other.mean_y - self.mean_y  # (p,), (q,)
        between = ours * theirs
        return GramStatistics(
            n=n,
            mean_x=self.mean_x + theirs * dx,
            mean_y=self.mean_y + theirs * dy,
            xx=ours * self.xx + theirs * other.xx + between * np.outer(dx, dx),
            xy=ours * self.xy + theirs * other.xy + between * np.outer(dx, dy),
            yy=ours * self.yy + theirs * other.yy + between * dy**2,
            active_x=self.active_x + other.active_x,
        )

    def __repr__(self) -> str:
        """Sizes only: the arrays are too large to print."""
        p, q = self.xy.shape
        return f"GramStatistics(n={self.n}, sources={p}, targets={q})"

    @cached_property
    def scale_x(self) -> np.ndarray:
        """Standard deviations of the sources (p,), exactly zero for constant columns."""
        return standard_deviation(self.xx.diagonal(), self.mean_x)

    @cached_property
    def scale_y(self) -> np.ndarray:
        """Standard deviations of the targets (q,), exactly zero for constant columns."""
        return standard_deviation(self.yy, self.mean_y)

    @property
    def correlation_xx(self) -> np.ndarray:
        """Correlations between sources (p, p); rows and columns of constant ones are zero."""
        inverse = reciprocal(self.scale_x)
        out = self.xx * inverse[:, None] * inverse
        np.fill_diagonal(out, self.scale_x > 0)
        return out

    @property
    def correlation_xy(self) -> np.ndarray:
        """Correlations of sources with targets (p, q); zero where either is constant."""
        return self.xy * reciprocal(self.scale_x)[:, None] * reciprocal(self.scale_y)

    def select(
        self, x: np.ndarray | list | None = None, y: np.ndarray | list | None = None
    ) -> GramStatistics:
        """Statistics of some of the columns.

        Parameters
        ----------
        x, y : array of int or of bool, optional
            Sources and targets to keep, in that order, or masks over them. All by default.

        Returns
        -------
        GramStatistics
            Equal to the statistics of the selected columns of the data.

        Raises
        ------
        InputError
            If an index or the length of a mask does not fit.
        """
        kept_x, kept_y = _columns("x", x, self.xy.shape[0]), _columns("y", y, self.xy.shape[1])
        return GramStatistics(
            n=self.n,
            mean_x=self.mean_x[kept_x],
            mean_y=self.mean_y[kept_y],
            xx=self.xx[np.ix_(kept_x, kept_x)],
            xy=self.xy[np.ix_(kept_x, kept_y)],
            yy=self.yy[kept_y],
            active_x=self.active_x[kept_x],
        )


def _columns(name: str, wanted: np.ndarray | list | None, count: int) -> np.ndarray:
    """Row numbers that an index list or a mask stands for."""
    if wanted is None:
        return np.arange(count)
    wanted = np.asarray(wanted)
    if wanted.dtype == bool and wanted.shape == (count,):
        return np.flatnonzero(wanted)
    if wanted.size == 0 and wanted.dtype != bool:
        return np.zeros(0, int)
    if (
        wanted.ndim != 1
        or wanted.dtype.kind not in "iu"
        or wanted.min() < 0
        or wanted.max() >= count
    ):
        raise InputError(
            f"{name} must hold column numbers from 0 to {count - 1}, or be a mask of length "
            f"{count}; got {wanted.dtype} values of shape {wanted.shape}."
        )
    return wanted

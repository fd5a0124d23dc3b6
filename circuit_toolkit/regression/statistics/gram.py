"""Second moments of sources and targets: all that a lasso needs to know about the data."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression.matrices import Matrix, as_matrix, reciprocal, standard_deviation
from circuit_toolkit.regression.statistics.sums import Sums

Form = Literal["raw", "centred", "standardised"]


@dataclass(frozen=True, eq=False)
class GramStatistics:
    """Means and centred second moments of p sources and q targets over n rows, in float64.

    Plain arrays, so they travel between processes. Statistics of disjoint sets of rows add up with
    `+`, in any grouping up to rounding, so data can be streamed and dropped.

    Parameters
    ----------
    n : int
        Number of rows seen.
    mean_x, mean_y : ndarray, shapes (p,) and (q,)
        Column means.
    xx, xy, yy : ndarray, shapes (p, p), (p, q) and (q,)
        Second moments about the means, over n. For the targets only the variances.
    active_x : ndarray of int, shape (p,)
        Rows in which each source is not zero.
    form : {"raw", "centred", "standardised"}
        What a regression on these statistics sees: columns as they are, without an intercept; with
        their means subtracted, which is a free intercept; or also divided by their standard
        deviations. See `centred` and `standardised`.
    """

    n: int
    mean_x: np.ndarray
    mean_y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray
    yy: np.ndarray
    active_x: np.ndarray
    form: Form = "raw"

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
        return cls.from_blocks([(X, Y)])

    @classmethod
    def from_blocks(cls, blocks: Iterable[tuple[Any, ...]]) -> GramStatistics:
        """Statistics of many blocks of rows, such as shards, in the memory of one set of sums.

        Parameters
        ----------
        blocks : iterable of (X, Y)
            As in `from_arrays`; read once, one at a time.

        Returns
        -------
        GramStatistics
            Of all rows.

        Raises
        ------
        InputError
            If there are no blocks, or one is not fit.
        MismatchError
            If blocks differ in their columns.
        """
        sums, done = None, None
        for X, Y in blocks:
            x, y = _checked(X, Y)
            shape = x.shape[1], y.shape[1]
            sums = Sums(*shape) if sums is None else sums
            if sums.xy.shape != shape:
                raise _other_columns(sums.xy.shape, shape)
            if not sums.fits(x, y):  # these rows are somewhere else
                done, sums = _finished(sums, done), Sums(*shape)
            sums.add(x, y)
            del x, y  # before the next block is read
        if sums is None:
            raise InputError("There are no blocks of rows to take statistics of.")
        return _finished(sums, done)

    def __add__(self, other: GramStatistics) -> GramStatistics:
        """Statistics of both sets of rows together (Chan, Golub and LeVeque, 1983)."""
        if not isinstance(other, GramStatistics):
            return NotImplemented
        if self.xy.shape != other.xy.shape:
            raise _other_columns(self.xy.shape, other.xy.shape)
        if self.form != other.form:
            raise MismatchError(
                f"Statistics that are {self.form} and {other.form} do not add up. Add first, then "
                "centre or standardise."
            )
        n = self.n + other.n
        ours, theirs = self.n / n, other.n / n
        dx, dy = other.mean_x - self.mean_x, other.mean_y - self.mean_y  # (p,), (q,)
        between = ours * theirs
        return GramStatistics(
            n=n,
            mean_x=self.mean_x + theirs * dx,
            mean_y=self.mean_y + theirs * dy,
            xx=_combined(self.xx, other.xx, ours, theirs, dx, dx),
            xy=_combined(self.xy, other.xy, ours, theirs, dx, dy),
            yy=ours * self.yy + theirs * other.yy + between * dy**2,
            active_x=self.active_x + other.active_x,
            form=self.form,
        )

    def __repr__(self) -> str:
        """Sizes only: the arrays are too large to print."""
        p, q = self.xy.shape
        return f"GramStatistics(n={self.n}, sources={p}, targets={q}, {self.form})"

    def centred(self) -> GramStatistics:
        """Let regressions see columns minus their means: the intercept is free.

        Returns
        -------
        GramStatistics
            The same numbers in this form.
        """
        return replace(self, form="centred")

    def standardised(self) -> GramStatistics:
        """Let regressions see columns of mean 0 and standard deviation 1.

        Returns
        -------
        GramStatistics
            The same numbers in this form.
        """
        return replace(self, form="standardised")

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
        out = self.xx * inverse
        out *= inverse[:, None]
        np.fill_diagonal(out, self.scale_x > 0)
        return out

    @property
    def correlation_xy(self) -> np.ndarray:
        """Correlations of sources with targets (p, q); zero where either is constant."""
        return self.xy * reciprocal(self.scale_x)[:, None] * reciprocal(self.scale_y)

    def intercepts(self, b: sp.csc_array) -> np.ndarray:
        """Return the intercepts that go with coefficients.

        Parameters
        ----------
        b : csc_array, shape (p, q)
            In the unit of the data.

        Returns
        -------
        ndarray, shape (q,)
            Zeros on raw statistics.
        """
        if self.form == "raw":
            return np.zeros(len(self.mean_y))
        return self.mean_y - b.T @ self.mean_x

    def select(
        self, x: np.ndarray | list | None = None, y: np.ndarray | list | None = None
    ) -> GramStatistics:
        """Statistics of some of the columns. For some of the rows see `Folds`.

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
        return replace(
            self,
            mean_x=self.mean_x[kept_x],
            mean_y=self.mean_y[kept_y],
            xx=self.xx if x is None else self.xx[np.ix_(kept_x, kept_x)],
            xy=self.xy[:, kept_y] if x is None else self.xy[np.ix_(kept_x, kept_y)],
            yy=self.yy[kept_y],
            active_x=self.active_x[kept_x],
        )


def _checked(X: object, Y: object) -> tuple[Matrix, Matrix]:
    """Check a block of rows."""
    x, y = as_matrix("X", X), as_matrix("Y", Y)
    if x.shape[0] != y.shape[0]:
        raise MismatchError(
            f"X has {x.shape[0]} rows and Y has {y.shape[0]}. "
            "Row i of both must be the same observation."
        )
    return x, y


def _finished(sums: Sums, done: GramStatistics | None) -> GramStatistics:
    """Take the statistics of sums, which are used up, and add them to what is done."""
    sums.centre()
    _check_finite("X", sums.xx.diagonal() + sums.x**2)
    _check_finite("Y", sums.yy + sums.y**2)
    last = GramStatistics(sums.rows, sums.x, sums.y, sums.xx, sums.xy, sums.yy, sums.active_x)
    return last if done is None else done + last


def _combined(
    A: np.ndarray, B: np.ndarray, ours: float, theirs: float, dx: np.ndarray, dy: np.ndarray
) -> np.ndarray:
    """Second moments of two sets of rows, whose means differ by dx and dy."""
    out = ours * A
    for start in range(0, len(out), 256):  # without further matrices of this size
        some = slice(start, start + 256)
        out[some] += theirs * B[some]
        if dx[some].any():
            out[some] += np.outer(ours * theirs * dx[some], dy)
    return out


def _check_finite(name: str, squares: np.ndarray) -> None:
    wrong = np.flatnonzero(~np.isfinite(squares))
    if len(wrong):
        raise InputError(
            f"Squares of {name} overflow in {len(wrong)} of {len(squares)} columns, such as "
            f"{wrong[0]}. Divide these columns by a constant first."
        )


def _other_columns(ours: tuple, theirs: tuple) -> MismatchError:
    return MismatchError(
        f"Statistics of {ours} and {theirs} (sources, targets) "
        "do not add up. Select the same columns in both first."
    )


def _columns(name: str, wanted: np.ndarray | list | None, count: int) -> np.ndarray:
    """Row numbers that an index list or a mask stands for."""
    if wanted is None:
        return np.arange(count)
    wanted = np.asarray(wanted)
    if wanted.size == 0 and wanted.dtype != bool:
        return np.zeros(0, int)
    if wanted.ndim == 1 and wanted.dtype.kind in "biu" and wanted.min(initial=0) >= 0:
        with suppress(IndexError):
            return np.arange(count)[wanted]
    raise InputError(
        f"{name} must hold column numbers from 0 to {count - 1}, or be a mask of length "
        f"{count}; got {wanted.dtype} values of shape {wanted.shape}."
    )

"""What paths of linear models have in common: coefficients of many targets, in several units."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.errors import MismatchError
from circuit_toolkit.regression.matrices import reciprocal
from circuit_toolkit.regression.settings import nearest
from circuit_toolkit.regression.statistics.gram import GramStatistics


class LinearPath:
    """Linear models of q targets at k strengths, with the statistics that they were fitted on."""

    strengths: np.ndarray  # (k,)
    coefficients: tuple[sp.csc_array, ...]  # k of shape (p, q), in the unit of the data
    stats: GramStatistics

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
            Zeros on raw statistics.
        """
        stats = self.stats
        if stats.form == "raw":
            return np.zeros(len(stats.mean_y))
        return stats.mean_y - self.coefficients[index].T @ stats.mean_x

    def standardised(self, index: int) -> sp.csc_array:
        """Coefficients in standard deviations.

        Parameters
        ----------
        index : int
            Point of the path.

        Returns
        -------
        csc_array, shape (p, q)
            Standard deviations of a target per standard deviation of a source.
        """
        return rescaled(
            self.coefficients[index], self.stats.scale_x, reciprocal(self.stats.scale_y)
        )

    def held_out_r2(self, other: GramStatistics) -> np.ndarray:
        """Share of variance explained on rows that were not fitted.

        Equals `1 - sum((y - prediction)^2) / sum((y - mean(y))^2)` on those rows, without them.

        Parameters
        ----------
        other : GramStatistics
            Of the other rows, with the same columns.

        Returns
        -------
        ndarray, shape (k, q)
            At most 1; negative where the mean of those rows predicts better; NaN for targets
            that are constant there.

        Raises
        ------
        MismatchError
            If the columns differ in number.
        """
        if other.xy.shape != self.stats.xy.shape:
            raise MismatchError(
                f"The path has {self.stats.xy.shape} (sources, targets), the other statistics "
                f"{other.xy.shape}. Select the same columns in both."
            )
        scores = []
        for index, b in enumerate(self.coefficients):  # (p, q)
            explained = b.multiply(2 * other.xy - other.xx @ b).sum(axis=0)  # (q,)
            bias = other.mean_y - other.mean_x @ b - self.intercepts(index)  # (q,)
            scores.append(share(explained - bias**2, np.where(other.scale_y > 0, other.yy, 0)))
        return np.array(scores)


def units(stats: GramStatistics) -> tuple[np.ndarray, np.ndarray]:
    """Factors from coefficients in the form of the statistics to those of the data: (p,), (q,)."""
    if stats.form == "standardised":
        return reciprocal(stats.scale_x), stats.scale_y
    return np.ones(len(stats.mean_x)), np.ones(len(stats.mean_y))


def rescaled(b: sp.csc_array, rows: np.ndarray, columns: np.ndarray) -> sp.csc_array:
    """Multiply rows and columns with factors."""
    factors = rows[b.indices] * np.repeat(columns, np.diff(b.indptr))
    return sp.csc_array((b.data * factors, b.indices, b.indptr), shape=b.shape)


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide, with NaN where the whole is zero."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)

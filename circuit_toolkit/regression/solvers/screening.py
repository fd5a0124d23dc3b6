"""Which sources a lasso should see: active often enough, and not copies of one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circuit_toolkit.errors import InputError
from circuit_toolkit.regression.statistics.gram import GramStatistics

DROPPED = -1  # in Screening.representative: no kept column stands for this one


@dataclass(frozen=True, eq=False)
class Screening:
    """Which sources were kept, and which kept source stands for each dropped copy.

    Parameters
    ----------
    kept : ndarray of int, shape (m,)
        Columns to fit on, ascending: `stats.select(x=screening.kept)`.
    representative : ndarray of int, shape (p,)
        For each column the kept column that stands for it: itself when kept, `DROPPED` (-1) when
        it was constant or too rarely active.
    """

    kept: np.ndarray
    representative: np.ndarray

    def substitutes(self, column: int) -> np.ndarray:
        """List the dropped columns that carry the same information as a kept one.

        Parameters
        ----------
        column : int
            A kept column, numbered as before screening.

        Returns
        -------
        ndarray of int
            Numbered as before screening; empty when nothing else is like it.
        """
        same = np.flatnonzero(self.representative == column)
        return same[same != column]


def screen_features(
    stats: GramStatistics, min_active: int = 10, max_correlation: float = 1 - 1e-8
) -> Screening:
    """Drop rare or constant sources, and exact substitutes of an earlier source.

    Where two sources are copies, up to scale, shift and sign, the lasso solution is not unique:
    any split of the weight is as good. Keeping the first makes the answer one answer, and
    `Screening.substitutes` lets a reader see what it also stands for.

    Parameters
    ----------
    stats : GramStatistics
        Of the training rows.
    min_active : int, default 10
        Keep sources that are non-zero in at least this many rows. Unit variance inflates rare
        features, and a handful of rows says little about them.
    max_correlation : float, default 1 - 1e-8
        Absolute correlation with an earlier kept source above which a source is a copy of it.

    Returns
    -------
    Screening
        Columns kept, and which stand for which.

    Raises
    ------
    InputError
        If `min_active` is negative or `max_correlation` is not in (0, 1].
    """
    if min_active < 0 or not 0 < max_correlation <= 1:
        raise InputError(
            "min_active must be at least 0 and max_correlation in (0, 1], got "
            f"{min_active} and {max_correlation}."
        )
    usable = (stats.active_x >= min_active) & (stats.scale_x > 0)  # (p,)
    same = np.abs(stats.correlation_xx) > max_correlation  # (p, p)
    same &= usable[:, None] & usable
    representative = np.where(usable, np.arange(len(usable)), DROPPED)  # (p,)
    for column in np.flatnonzero(np.triu(same, 1).any(axis=0)):  # those with an earlier copy
        earlier = np.flatnonzero(same[:column, column])
        kept = earlier[representative[earlier] == earlier]  # copies of copies do not count
        if len(kept):
            representative[column] = kept[0]
    return Screening(np.flatnonzero(representative == np.arange(len(usable))), representative)

"""Statistics of folds of the rows, kept apart: what fits on some rows and tests on others need."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression.matrices import as_matrix
from circuit_toolkit.regression.statistics.gram import GramStatistics, Growing


def fold_labels(groups: np.ndarray | list, k: int, seed: int = 0) -> np.ndarray:
    """Deal groups of rows out to folds, so that no group is in two of them.

    Parameters
    ----------
    groups : array, shape (n,)
        What each row belongs to, such as its prompt.
    k : int
        Number of folds, from 2 to the number of groups.
    seed : int
        Decides which group goes where.

    Returns
    -------
    ndarray of int, shape (n,)
        From 0 to k - 1; folds differ by one group at most.

    Raises
    ------
    InputError
        If there are fewer groups than folds.
    """
    names, rows = np.unique(np.asarray(groups), return_inverse=True)
    if not 2 <= k <= len(names):
        raise InputError(f"k must be from 2 to {len(names)}, the number of groups; got {k}.")
    fold = np.empty(len(names), int)
    fold[np.random.default_rng(seed).permutation(len(names))] = np.arange(len(names)) % k
    return fold[rows]


@dataclass(frozen=True, eq=False)
class Folds:
    """Statistics of disjoint sets of rows with the same columns.

    From these come the statistics of any union of them, so cross-validation and stability selection
    never look at the rows again. They take as many times the memory of `GramStatistics` as there
    are folds, p^2 + p q numbers each: select columns first (`select`, `screen_features`).

    Parameters
    ----------
    parts : tuple of GramStatistics
        One a fold.
    """

    parts: tuple[GramStatistics, ...]

    @classmethod
    def from_arrays(
        cls, X: object, Y: object, labels: np.ndarray | list, weights: object | None = None
    ) -> Folds:
        """Take statistics of each fold of one set of rows.

        Parameters
        ----------
        X, Y, weights
            As in `GramStatistics.from_arrays`.
        labels : array of int, shape (n,)
            Fold of each row, from 0; see `fold_labels`.

        Returns
        -------
        Folds

        Raises
        ------
        InputError
            If a fold has no rows, or values are not fit.
        MismatchError
            If the numbers of rows differ.
        """
        return cls.from_blocks([(X, Y, labels, weights)])

    @classmethod
    def from_blocks(cls, blocks: Iterable[tuple[Any, ...]]) -> Folds:
        """Take statistics of each fold from many blocks of rows, such as shards, in one pass.

        Parameters
        ----------
        blocks : iterable of (X, Y, labels) or (X, Y, labels, weights)
            As in `from_arrays`; read once, one at a time.

        Returns
        -------
        Folds

        Raises
        ------
        InputError
            If a fold has no rows, or values are not fit.
        MismatchError
            If numbers of rows or columns differ.
        """
        growing: dict[int, Growing] = {}
        for X, Y, labels, *weights in blocks:
            x, y, fold = as_matrix("X", X), as_matrix("Y", Y), np.asarray(labels)
            w = None if not weights or weights[0] is None else np.asarray(weights[0], float)
            n = x.shape[0]
            if fold.shape != (n,) or y.shape[0] != n or (w is not None and w.shape != (n,)):
                raise MismatchError(
                    f"X has {n} rows; Y has {y.shape[0]}, and labels and weights must have one "
                    f"number for each, got shape {fold.shape}."
                )
            if fold.dtype.kind not in "iu" or fold.min() < 0:
                raise InputError(f"labels must be folds, counted from 0; got {fold.dtype} values.")
            for each in np.unique(fold).tolist():
                rows = np.flatnonzero(fold == each)
                part = None if w is None else w[rows]
                if part is not None and not part.any():
                    raise InputError(f"All weights of fold {each} are 0. Leave its rows out.")
                growing.setdefault(each, Growing()).add(x[rows], y[rows], part)
        if not growing:
            raise InputError("There are no blocks of rows to take statistics of.")
        if sorted(growing) != list(range(len(growing))):
            raise InputError(
                f"Folds are counted from 0 without gaps; got rows of {sorted(growing)}."
            )
        return cls(tuple(growing[each].finish() for each in range(len(growing))))

    def __len__(self) -> int:
        """Return the number of folds."""
        return len(self.parts)

    def __repr__(self) -> str:
        """Sizes, and what they take."""
        p, q = self.parts[0].xy.shape
        size = len(self) * 8 * p * (p + q) / 2**30
        return f"Folds({len(self)}, sources={p}, targets={q}, {size:.2g} GiB)"

    def __add__(self, other: Folds) -> Folds:
        """Add fold by fold, for rows that were seen elsewhere."""
        if not isinstance(other, Folds):
            return NotImplemented
        if len(self) != len(other):
            raise MismatchError(f"{len(self)} and {len(other)} folds do not add up.")
        return Folds(tuple(a + b for a, b in zip(self.parts, other.parts, strict=True)))

    def of(self, some: Collection[int]) -> GramStatistics:
        """Return the statistics of the rows of some folds together.

        Parameters
        ----------
        some : collection of int
            Their numbers.

        Returns
        -------
        GramStatistics

        Raises
        ------
        InputError
            If there is no such fold, none is named, or one twice.
        """
        numbers = [int(each) for each in some]
        here = range(len(self))
        if not numbers or len(set(numbers)) < len(numbers) or not set(numbers) <= set(here):
            raise InputError(
                f"Folds are numbers from 0 to {len(self) - 1}, each once and at least one; got "
                f"{numbers}."
            )
        return reduce(add, (self.parts[each] for each in numbers))

    def total(self) -> GramStatistics:
        """Return the statistics of all rows.

        Returns
        -------
        GramStatistics
        """
        return self.of(range(len(self)))

    def without(self, fold: int) -> GramStatistics:
        """Return the statistics of all rows but those of one fold.

        Parameters
        ----------
        fold : int
            Its number.

        Returns
        -------
        GramStatistics

        Raises
        ------
        InputError
            If there is no such fold, or no other.
        """
        if fold not in range(len(self)):
            raise InputError(f"Folds are numbers from 0 to {len(self) - 1}; got {fold}.")
        return self.of([each for each in range(len(self)) if each != fold])

    def select(
        self, x: np.ndarray | list | None = None, y: np.ndarray | list | None = None
    ) -> Folds:
        """Keep some of the columns.

        Parameters
        ----------
        x, y : array of int or of bool, optional
            See `GramStatistics.select`.

        Returns
        -------
        Folds
        """
        return Folds(tuple(part.select(x, y) for part in self.parts))

    def centred(self) -> Folds:
        """Let regressions see columns minus their means; see `GramStatistics.centred`.

        Returns
        -------
        Folds
        """
        return Folds(tuple(part.centred() for part in self.parts))

    def standardised(self) -> Folds:
        """Let regressions see standardised columns; see `GramStatistics.standardised`.

        Returns
        -------
        Folds
        """
        return Folds(tuple(part.standardised() for part in self.parts))

"""Stability selection: which edges come back on random halves of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.errors import InputError
from circuit_toolkit.regression.paths.lasso import lasso_path
from circuit_toolkit.regression.statistics.folds import Folds


@dataclass(frozen=True, eq=False)
class Stability:
    """How often each edge was selected on halves of the rows.

    Parameters
    ----------
    frequencies : csc_array, shape (p, q)
        Share of the halves on which the edge was there, at any of the strengths.
    selected : ndarray, shape (q,)
        Mean number of sources of each target on a half.
    draws : int
        Number of halves.
    sources : int
        Number p of sources to choose from.
    """

    frequencies: sp.csc_array
    selected: np.ndarray
    draws: int
    sources: int

    def edges(self, threshold: float = 0.7) -> sp.csc_array:
        """Return the edges that came back often enough.

        Parameters
        ----------
        threshold : float
            Least share of the halves, in (0.5, 1].

        Returns
        -------
        csc_array of bool, shape (p, q)

        Raises
        ------
        InputError
            If the threshold is not in (0.5, 1].
        """
        _check(threshold)
        return sp.csc_array(self.frequencies >= threshold - 1e-12)

    def false_edges(self, threshold: float = 0.7) -> np.ndarray:
        """Bound how many false edges are to be expected (Meinshausen and Bühlmann, 2010).

        `selected^2 / ((2 threshold - 1) p)`. It holds if sources that have nothing to do with the
        target are exchangeable and are selected no more often than at random. Where they are not,
        as with ancestors of the true sources, it bounds only those that a fit on half of the rows
        selects with a probability of at most `selected / p` (Shah and Samworth, 2013, theorem 1).

        Parameters
        ----------
        threshold : float
            As in `edges`.

        Returns
        -------
        ndarray, shape (q,)
            For each target; their sum is the bound for the circuit.

        Raises
        ------
        InputError
            If the threshold is not in (0.5, 1].
        """
        _check(threshold)
        return self.selected**2 / ((2 * threshold - 1) * max(self.sources, 1))


def stability_selection(
    folds: Folds,
    strengths: np.ndarray | list[float],
    *,
    draws: int = 50,
    seed: int = 0,
    **settings: Any,
) -> Stability:
    """Fit on random halves of the folds and count which edges come back; rows are not needed.

    Halves are drawn in pairs that share no fold (Shah and Samworth, 2013).

    Parameters
    ----------
    folds : Folds
        An even number, at least four, in the form to fit; 20 are enough. Rows that depend on each
        other, as those of a prompt, belong into one fold.
    strengths : array of shape (k,)
        An edge counts if it is there at any of these; the fewer, the tighter the bound.
    draws : int
        Number of halves, even.
    seed : int
        Decides which.
    **settings
        Further settings of `lasso_path`.

    Returns
    -------
    Stability

    Raises
    ------
    InputError
        If folds or draws are too few, or odd.
    """
    if len(folds) < 4 or len(folds) % 2 or draws < 2 or draws % 2:
        raise InputError(
            "Stability selection needs an even number of folds, 4 or more, and of draws; got "
            f"{len(folds)} and {draws}."
        )
    rng = np.random.default_rng(seed)
    count = sp.csc_array(folds.parts[0].xy.shape)
    for _ in range(draws // 2):
        order = rng.permutation(len(folds))
        for half in (order[: len(folds) // 2], order[len(folds) // 2 :]):
            path = lasso_path(folds.of(half.tolist()), strengths, **settings)
            found = reduce(add, (_present(b) for b in path.coefficients))
            count = count + _present(found)
    count = sp.csc_array(count)
    selected = np.asarray(count.sum(axis=0)).ravel() / draws
    return Stability(count / draws, selected, draws, len(folds.parts[0].mean_x))


def _present(b: sp.csc_array) -> sp.csc_array:
    """Ones where b is not zero."""
    return sp.csc_array((np.ones(len(b.data)), b.indices, b.indptr), shape=b.shape)


def _check(threshold: float) -> None:
    if not 0.5 < threshold <= 1:
        raise InputError(f"threshold must be in (0.5, 1], got {threshold}.")

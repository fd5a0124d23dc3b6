"""Which strength to look at: by the fit on folds left out, or by an information criterion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

import numpy as np

from circuit_toolkit.errors import InputError
from circuit_toolkit.regression.paths.lasso import LassoPath, lasso_path
from circuit_toolkit.regression.statistics.gram import GramStatistics


def fold_labels(
    groups: np.ndarray | list, k: int, seed: int = 0, label: np.ndarray | None = None
) -> np.ndarray:
    """Divide rows into folds; rows of one group stay together.

    Parameters
    ----------
    groups : array, shape (n,)
        What each row belongs to, such as its prompt.
    k : int
        Number of folds, from 2 to the number of groups.
    seed : int
        Decides which group goes where.
    label : array of bool, shape (n,), optional
        Two classes of rows, of which folds get equal shares (stratified folds).

    Returns
    -------
    ndarray of int, shape (n,)
        From 0 to k - 1; folds differ by one group at most, with a label also in how many have the
        rarer class.

    Raises
    ------
    InputError
        If there are fewer groups than folds.
    """
    names, rows = np.unique(np.asarray(groups), return_inverse=True)
    if not 2 <= k <= len(names):
        raise InputError(f"k must be from 2 to {len(names)}, the number of groups; got {k}.")
    order = np.random.default_rng(seed).permutation(len(names))
    if label is not None:
        order = order[np.argsort(_has_rarer_class(rows, label)[order], kind="stable")]
    fold = np.empty(len(names), int)
    fold[order] = np.arange(len(names)) % k
    return fold[rows]


def held_out_rows(
    groups: np.ndarray | list, share: float, seed: int = 0, label: np.ndarray | None = None
) -> np.ndarray:
    """Choose rows to hold out; rows of one group stay together.

    Parameters
    ----------
    groups, seed, label
        As in `fold_labels`; of a label the same share of either class is held out, and at least
        one group of it.
    share : float
        Of the groups, between 0 and 1.

    Returns
    -------
    ndarray of bool, shape (n,)

    Raises
    ------
    InputError
        If no group is left to train on, or both classes cannot be on both sides.
    """
    names, rows = np.unique(np.asarray(groups), return_inverse=True)
    rare = np.zeros(len(names), bool) if label is None else _has_rarer_class(rows, label)
    order = np.random.default_rng(seed).permutation(len(names))
    held_out = np.zeros(len(names), bool)
    for some in (order[rare[order]], order[~rare[order]]):
        n = max(1, round(share * len(some)))
        held_out[some[: n if label is None else min(n, len(some) - 1)]] = True
    if label is not None and not all(
        0 < np.asarray(label)[some].sum() < some.sum() for some in (held_out[rows], ~held_out[rows])
    ):
        raise InputError(
            f"Two classes are needed, to train on and in what is held out; one of them is in "
            f"{rare.sum()} of {len(names)} prompts. Capture more prompts of it: no other seed and "
            "no other held_out helps."
        )
    if held_out.all():
        raise InputError(
            f"All {len(names)} groups of prompts would be held out. Capture more prompts, or "
            f"lower held_out={share}."
        )
    return held_out[rows]


def _has_rarer_class(rows: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Whether each group has rows of the class that fewer groups have; `rows` are their numbers."""
    has = np.zeros((2, rows.max() + 1), bool)
    has[np.asarray(label).astype(int), rows] = True
    return has[has.sum(axis=1).argmin()]


def cross_validate(
    folds: Sequence[GramStatistics], fit: Callable[[GramStatistics], LassoPath] = lasso_path
) -> np.ndarray:
    """Fit on all folds but one and test on that one, for every fold; rows are not needed.

    Parameters
    ----------
    folds : sequence of GramStatistics
        Of disjoint sets of rows, in the form to fit; at least two.
    fit : callable
        From statistics to a path: `functools.partial(lasso_path, strengths=...)`.

    Returns
    -------
    ndarray, shape (folds, k, q)
        Share of variance explained on each fold; NaN for targets that are constant there.

    Raises
    ------
    InputError
        If there is one fold only.
    """
    if len(folds) < 2:
        raise InputError("Cross-validation needs at least two folds.")
    rest = ([part for part in folds if part is not fold] for fold in folds)
    pairs = zip(folds, rest, strict=True)
    return np.array([fit(reduce(add, others)).held_out_r2(fold) for fold, others in pairs])


def one_standard_error(scores: np.ndarray) -> int:
    """Index of the greatest strength whose score is within a standard error of the best.

    Parameters
    ----------
    scores : ndarray, shape (folds, k)
        Fit on each fold at each strength, from strong to weak: `cross_validate(...).mean(2)`.

    Returns
    -------
    int

    Raises
    ------
    InputError
        If a score is not finite.
    """
    if not np.isfinite(scores).all():
        raise InputError("A target is constant on some fold: use fewer folds.")
    mean, error = scores.mean(axis=0), scores.std(axis=0, ddof=1) / np.sqrt(len(scores))
    best = mean.argmax()
    return int(np.flatnonzero(mean >= mean[best] - error[best])[0])


def smallest_bic(deviance: np.ndarray, sources: np.ndarray, n: int) -> np.ndarray:
    """Index of the strength with the smallest Bayesian information criterion (Schwarz, 1978).

    Parameters
    ----------
    deviance : ndarray, shape (k, q)
        Minus twice the log likelihood, up to a constant: n log(1 - R²) for a linear model.
    sources : ndarray of int, shape (k, q)
        Coefficients that are not zero; points with more than n / 2 do not count.
    n : int
        Number of rows.

    Returns
    -------
    ndarray of int, shape (q,)
        Of each target.
    """
    return np.where(sources > n / 2, np.inf, deviance + sources * np.log(n)).argmin(axis=0)

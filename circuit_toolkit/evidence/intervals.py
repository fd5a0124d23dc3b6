"""How sure a number is: bootstrap intervals over prompts or cases, and two methods on the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from circuit_toolkit.errors import InputError


class Interval(NamedTuple):
    """A number and the ends of its interval."""

    value: float
    low: float
    high: float


class Paired(NamedTuple):
    """Two methods on the same prompts or cases."""

    difference: Interval
    p_value: float


def bootstrap(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], float] = np.mean,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return a number with its bootstrap interval over rows (percentiles; Efron, 1979)."""
    import scipy.stats

    values = np.asarray(values)
    if not values.ndim or not len(values) or draws < 1 or not 0 < level < 1:
        raise InputError(
            "bootstrap needs at least one row and one draw and a level between 0 and 1, got shape "
            f"{values.shape}, {draws} draws and level {level}."
        )
    value = float(statistic(values))
    if len(values) == 1:  # nothing else can be drawn
        return Interval(value, value, value)
    fast = statistic is np.mean and values.ndim == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)  # NaN says it
        found = scipy.stats.bootstrap(
            (values if fast else np.arange(len(values)),),
            np.mean if fast else lambda rows: statistic(values[rows]),
            n_resamples=draws,
            vectorized=fast,
            confidence_level=level,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Interval(value, float(found.low), float(found.high))


def paired(
    first: np.ndarray, second: np.ndarray, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Paired:
    """Compare two methods on the same prompts or cases: mean difference and its sign-flip test."""
    import scipy.stats

    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.ndim != 1 or first.shape != second.shape:
        raise InputError(
            f"Both must be of one shape (n,), got {first.shape} and {second.shape}: a number for "
            "each prompt or case."
        )
    differences = first - second
    interval = bootstrap(differences, level=level, draws=draws, seed=seed)
    if len(first) == 1:
        return Paired(interval, 1.0)
    test = scipy.stats.permutation_test(
        (first, second),
        lambda x, y, axis: np.abs((x - y).mean(axis)),
        permutation_type="samples",
        alternative="greater",
        n_resamples=draws if 2 ** len(first) <= draws else draws - 1,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return Paired(interval, float(test.pvalue))

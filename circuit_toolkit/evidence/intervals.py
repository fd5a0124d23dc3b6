"""How sure a number is: bootstrap intervals over prompts or cases, and two methods on the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from circuit_toolkit.errors import InputError


class Interval(NamedTuple):
    """A number and what it might as well have been."""

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
    """Return a number with its bootstrap interval (percentiles; Efron, 1979)."""
    values = np.asarray(values)
    if not values.ndim or not len(values) or draws < 1 or not 0 < level < 1:
        raise InputError(
            "bootstrap needs at least one row and one draw and a level between 0 and 1, got shape "
            f"{values.shape}, {draws} draws and level {level}."
        )
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(values), size=(draws, len(values)))
    if statistic is np.mean and values.ndim == 1:
        found = values[rows].mean(1)
    else:
        found = np.array([statistic(values[row]) for row in rows])
    tail = (1 - level) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return Interval(float(statistic(values)), float(low), float(high))


def paired(
    first: np.ndarray,
    second: np.ndarray,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Paired:
    """Compare two methods on the same prompts or cases."""
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.ndim != 1 or first.shape != second.shape:
        raise InputError(
            f"Both must be of one shape (n,), got {first.shape} and {second.shape}: a number for "
            "each prompt or case."
        )
    differences = first - second
    interval = bootstrap(differences, level=level, draws=draws, seed=seed)
    n = len(differences)
    if 2**n <= draws:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        drawn = np.random.default_rng(seed).choice([-1, 1], size=(draws - 1, n))
        signs = np.vstack([np.ones(n), drawn])  # what was seen is one of the ways
    means = np.abs((signs * differences).mean(1))
    reached = means >= np.abs(differences.mean()) - 1e-12
    return Paired(interval, float(reached.mean()))

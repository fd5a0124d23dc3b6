"""Which firings of a feature are looked at: rare strengths as well as common ones."""

from __future__ import annotations

import numpy as np

from circuit_toolkit.errors import InputError


def sampling_weights(
    values: np.ndarray, *, bins: int = 20, alpha: float = 0.9, quantile: bool = False
) -> np.ndarray:
    """Weigh firings by how rare their strength is."""
    if quantile:
        order = values.argsort(kind="stable").argsort(kind="stable")  # ranks
        which = order * bins // len(values)
    else:
        which = np.ceil(values / values.max() * bins).astype(int).clip(1, bins) - 1
    counts = np.bincount(which, minlength=bins)
    weights = counts[which].astype(float) ** -alpha
    return weights / weights.sum()


def sample_firings(
    values: np.ndarray,
    n: int,
    *,
    bins: int = 20,
    alpha: float = 0.9,
    quantile: bool = False,
    seed: int = 0,
) -> np.ndarray:
    """Draw firings without replacement, by `sampling_weights`."""
    if not len(values) or values.min() <= 0:
        raise InputError("Firings are activations above 0, and at least one of them.")
    if len(values) <= n:
        return np.arange(len(values))
    weights = sampling_weights(values, bins=bins, alpha=alpha, quantile=quantile)
    return np.sort(np.random.default_rng(seed).choice(len(values), n, replace=False, p=weights))

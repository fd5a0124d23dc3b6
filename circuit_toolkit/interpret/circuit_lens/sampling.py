"""Which firings of a feature are looked at: rare strengths as well as common ones."""

from __future__ import annotations

import numpy as np

from circuit_toolkit.errors import InputError


def sampling_weights(
    values: np.ndarray, *, bins: int = 20, alpha: float = 0.9, quantile: bool = False
) -> np.ndarray:
    """Weigh firings by how rare their strength is.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Activations, above 0.
    bins : int
        Bins over (0, maximum].
    alpha : float
        A firing in a bin of k weighs k ** -alpha: 0 takes all alike, 1 takes all bins alike.
    quantile : bool
        Make bins of equal counts. Distinct values then all weigh the same.

    Returns
    -------
    ndarray, shape (n,)
        Above 0, with a sum of 1.
    """
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
    """Draw firings without replacement, by `sampling_weights`.

    Parameters
    ----------
    values : ndarray, shape (m,)
        Activations of the firings, above 0.
    n : int
        At most so many.
    bins, alpha, quantile
        See `sampling_weights`.
    seed : int
        The same seed draws the same.

    Returns
    -------
    ndarray of int
        Indices into `values`, rising; all of them where there are no more than `n`.

    Raises
    ------
    InputError
        If a value is not above 0, or there is none.
    """
    if not len(values) or values.min() <= 0:
        raise InputError("Firings are activations above 0, and at least one of them.")
    if len(values) <= n:
        return np.arange(len(values))
    weights = sampling_weights(values, bins=bins, alpha=alpha, quantile=quantile)
    return np.sort(np.random.default_rng(seed).choice(len(values), n, replace=False, p=weights))

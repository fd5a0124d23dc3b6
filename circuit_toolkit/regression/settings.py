"""Settings of a path, checked where a user gives them."""

from __future__ import annotations

import numpy as np

from circuit_toolkit.errors import InputError, MismatchError


def check_strengths(strengths: np.ndarray | list[float]) -> np.ndarray:
    """Strengths as a decreasing float array."""
    values = np.unique(_floats("strengths", strengths))[::-1]
    if values.size == 0 or not (values[-1] > 0 and values[0] <= 1):
        raise InputError(
            f"Strengths are shares of alpha_max, in (0, 1]; got {np.asarray(strengths)}."
        )
    return values


def check_alphas(alphas: np.ndarray | list[float], q: int) -> np.ndarray:
    """Alphas (k, q), falling."""
    values = _floats("alphas", alphas)
    if values.ndim == 1:
        values = np.repeat(values[:, None], q, axis=1)
    if values.ndim != 2 or values.shape[1] != q:
        raise MismatchError(
            f"alphas must have shape (k,) or (k, {q}), a column a target; got {np.shape(alphas)}."
        )
    if not (len(values) and np.isfinite(values).all() and (values > 0).all()):
        raise InputError(f"alphas must be positive and finite, got {np.asarray(alphas)}.")
    return -np.sort(-values, axis=0)


def check_weights(weights: np.ndarray | None, p: int, q: int) -> np.ndarray:
    """Weights (p, 1) or (p, q)."""
    if weights is None:
        return np.ones((p, 1))
    values = _floats("weights", weights)
    if values.shape not in ((p,), (p, q)):
        raise MismatchError(
            f"weights must have shape ({p},) or ({p}, {q}), a row a source; got {values.shape}."
        )
    if not (values > 0).all():  # False for NaN
        raise InputError(
            "weights must be positive: small for sources that should enter first, infinite for "
            "those that must not."
        )
    return np.asfortranarray(values.reshape(p, -1))


def check_solver(tol: float, max_iter: int) -> None:
    """Refuse settings out of range."""
    if not tol > 0 or max_iter < 1:
        raise InputError(f"tol and max_iter must be positive, got {tol} and {max_iter}.")


def _floats(name: str, values: object) -> np.ndarray:
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be numbers, got {values!r:.80}.") from None

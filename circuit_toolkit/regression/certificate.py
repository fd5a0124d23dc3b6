"""How far coefficients are from optimal: the one certificate of solver, user and test."""

from __future__ import annotations

import numpy as np


class ConvergenceWarning(UserWarning):
    """Some points of a path are not certified; `path.converged` says which."""


def violation(
    pull: np.ndarray, B: np.ndarray, alphas: np.ndarray | float, positive: bool = False
) -> np.ndarray:
    """Largest violation of the optimality conditions (Tibshirani, 2013, section 2.1)."""
    on_support = np.abs(pull * np.sign(B) - alphas)  # also where alphas are infinite
    if positive:
        on_support = np.where(B < 0, np.inf, on_support)
    off_support = (pull if positive else np.abs(pull)) - alphas
    return np.where(B != 0, on_support, off_support).max(axis=0, initial=0)


def summarise(
    c: np.ndarray,
    pull: np.ndarray,
    b: np.ndarray,
    penalties: np.ndarray,
    w: np.ndarray,
    positive: bool,
) -> np.ndarray:
    """Take the sums that a certificate is made from."""
    largest = ((pull if positive else np.abs(pull)) / w).max(initial=0)
    worst = violation(pull, b, penalties, positive)
    return np.array([worst, largest, b @ c, b @ pull, w[b != 0] @ np.abs(b[b != 0]), b @ b])


def certificate(
    summary: np.ndarray, yy: np.ndarray, alphas: np.ndarray, ridge: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How far coefficients are from optimal, from second moments alone."""
    worst, largest, fitted, unfitted, absolute, squares = np.moveaxis(summary, -1, 0)
    ry = yy - fitted  # residual . y
    rr = np.maximum(ry - unfitted, 0)  # residual . residual, with the ridge as further rows
    bound = np.divide(alphas, largest, out=np.ones_like(largest), where=largest > 0)
    scale = np.clip(np.divide(ry, rr, out=bound.copy(), where=rr > 0), 0, bound)
    primal = rr / 2 + alphas * absolute
    dual = scale * ry - scale**2 * rr / 2
    gap = np.divide(primal - dual, yy / 2, out=np.zeros_like(primal), where=yy > 0)
    return gap, worst, rr - ridge * squares

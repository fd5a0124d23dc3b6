"""How far coefficients are from optimal: the one certificate of solver, user and test."""

from __future__ import annotations

import numpy as np


class ConvergenceWarning(UserWarning):
    """Some points of a path are not certified; `path.converged` says which."""


def violation(pull: np.ndarray, B: np.ndarray, alphas: np.ndarray | float) -> np.ndarray:
    """Largest violation of the optimality conditions (Tibshirani, 2013, section 2.1).

    Parameters
    ----------
    pull, B : ndarray, shapes (p, q)
        Slope of the likelihood or of the squared error, downhill, and the coefficients.
    alphas : ndarray, shape (q,)
        Penalties.

    Returns
    -------
    ndarray, shape (q,)
        Zero at a solution; in the unit of alpha.
    """
    on_support, off_support = np.abs(pull - alphas * np.sign(B)), np.abs(pull) - alphas
    return np.where(B != 0, on_support, off_support).max(axis=0, initial=0)


def certificate(
    G: np.ndarray, C: np.ndarray, yy: np.ndarray, B: np.ndarray, alphas: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How far coefficients are from optimal, from second moments alone.

    The dual point is the residual, scaled until no source correlates with it by more than
    alpha (Massias, Gramfort and Salmon, 2018); the gap bounds the distance to the optimum.

    Parameters
    ----------
    G, C, yy : ndarray, shapes (p, p), (p, q) and (q,)
        Second moments of sources, of sources with targets, and of targets.
    B : ndarray, shape (p, q)
        Coefficients.
    alphas : ndarray, shape (q,)
        Penalties.

    Returns
    -------
    tuple of three ndarray, shape (q,)
        Duality gap over yy / 2, largest violation of the optimality conditions, and the
        variance explained.
    """
    pull = C - G @ B  # (p, q)
    fitted, unfitted = (B * C).sum(axis=0), (B * pull).sum(axis=0)  # b.c and b.(c - G b)
    ry = yy - fitted  # residual . y
    rr = np.maximum(ry - unfitted, 0)  # residual . residual
    largest = np.abs(pull).max(axis=0, initial=0)
    bound = np.divide(alphas, largest, out=np.ones_like(largest), where=largest > 0)
    scale = np.clip(np.divide(ry, rr, out=bound.copy(), where=rr > 0), -bound, bound)
    primal = rr / 2 + alphas * np.abs(B).sum(axis=0)
    dual = scale * ry - scale**2 * rr / 2
    gap = np.divide(primal - dual, yy / 2, out=np.zeros_like(primal), where=yy > 0)
    return gap, violation(pull, B, alphas), fitted + unfitted

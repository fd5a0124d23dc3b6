"""Exact lasso solution of one target from a Gram matrix: slow from afar, but sure to descend.

The problem of one target, with G (p, p) the Gram matrix of the sources, c (p,) their products
with the target and `pull = c - G b` the slope of the squared error, is

    minimise  b.G b / 2 - c.b + alpha . |b| .

Feature-sign search (Lee et al., 2006) solves for the support exactly, drops coefficients that
would change sign, takes in the worst violator, and ends at an exact solution because the objective
falls with every step.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import get_lapack_funcs

(posv,) = get_lapack_funcs(("posv",), dtype=np.float64)
RIDGE = 1e-13  # times trace(G): keeps copies solvable; the steps are refined, so it leaves no bias


def active_set(
    G: np.ndarray,
    c: np.ndarray,
    alpha: np.ndarray | float,
    b: np.ndarray,
    tol: float,
    max_iter: int,
    positive: bool = False,
) -> np.ndarray:
    """Solve for one target, starting from a guess."""
    b, signs, ridge = b.copy(), np.sign(b), RIDGE * np.trace(G)
    alpha = np.broadcast_to(alpha, c.shape)
    for _ in range(max_iter):
        support = np.flatnonzero(signs)
        rows = G[support]  # (s, p)
        if len(support):
            b[support], crossed = _step(
                rows[:, support], c[support], alpha[support], b[support], signs[support], ridge,
                positive,
            )  # fmt: skip
            if crossed:
                signs = np.sign(b)
                continue
        pull = c - b[support] @ rows  # (p,)
        off = signs == 0
        wrong = np.abs(pull - alpha * signs)
        wrong[off] = (pull if positive else np.abs(pull))[off] - alpha[off]
        worst = wrong.argmax()
        if wrong[worst] <= tol:
            break
        if signs[worst] == 0:
            signs[worst] = np.sign(pull[worst])
    return b


def _step(
    G: np.ndarray,
    c: np.ndarray,
    alpha: np.ndarray,
    b: np.ndarray,
    signs: np.ndarray,
    ridge: float,
    positive: bool,
) -> tuple[np.ndarray, bool]:
    """Go to the minimum on the support, or to the best point on the way if signs change."""
    uphill = G @ b - c + alpha * signs  # (s,)
    move = -_solve(G, uphill, ridge)
    crossing = np.flatnonzero(((b + move) * signs <= 0) & (move != 0))
    if len(crossing) == 0:
        return b + move, False
    times = -b[crossing] / move[crossing]  # in [0, 1]
    order = times.argsort()
    crossing, times = crossing[order], times[order]
    slope = uphill @ move  # negative; between kinks it rises linearly, at kinks it jumps
    jumps = np.cumsum(2 * (np.inf if positive else alpha[crossing]) * np.abs(move[crossing]))
    kink = int(np.searchsorted(slope * (1 - times) + jumps, 0))  # first that ends the descent
    time = 1 + (jumps[kink - 1] if kink else 0) / slope  # minimum of the piece before that kink
    if kink == len(times) or time < times[kink]:
        return b + time * move, True
    b = b + times[kink] * move
    b[crossing[kink]] = 0
    return b, True


def _solve(G: np.ndarray, right: np.ndarray, ridge: float) -> np.ndarray:
    """Cholesky solve, with more ridge while rounding makes G indefinite."""
    for growth in (1, 1e3, 1e6):
        lifted = G.copy()
        lifted.flat[:: len(G) + 1] += growth * ridge
        _, solution, failed = posv(lifted, right, lower=1)
        if not failed:
            return solution
    return np.zeros_like(right)  # no step: the certificate will say so

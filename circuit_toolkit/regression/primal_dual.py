"""Lasso solutions of all targets at once: a few Newton steps on the optimality conditions.

The conditions of b, with `pull = c - G b` (see `active_set`), say for every source: b is zero and
|pull| <= alpha, or it is not and pull = alpha * sign(b). A primal-dual active set reads support and
signs off b and pull, solves for that support exactly, and repeats until they stay as they are.
This is a semismooth Newton method (Griesse and Lorenz, 2008): any number of sources enter and leave
in a step, and from a point nearby, as on a path of penalties (Fan, Jiao and Lu, 2014), one to
three steps end at the solution. They need not, so the caller has something slower in reserve.
"""

from __future__ import annotations

import numpy as np

from circuit_toolkit.regression.active_set import RIDGE, posv
from circuit_toolkit.regression.certificate import violation

_PIVOT = 1e-4  # of a Cholesky factor: below it, sources are too nearly dependent to step


def primal_dual(
    G: np.ndarray,
    C: np.ndarray,
    alphas: np.ndarray,
    B: np.ndarray,
    slopes: np.ndarray,
    tol: np.ndarray,
    max_iter: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve for all targets, as far as that goes.

    Parameters
    ----------
    G, C : ndarray, shapes (p, p) and (p, q)
        Gram matrix of the sources, and their products with the targets.
    alphas : ndarray, shape (q,)
        Penalties, in the unit of C.
    B, slopes : ndarray, shape (p, q)
        Where to start, and how coefficients grow there as alpha falls.
    tol : ndarray, shape (q,)
        Largest violation of the optimality conditions that is left, in the unit of C.
    max_iter : int
        Most steps; each solves a linear system for every target that is not finished.

    Returns
    -------
    tuple of ndarray (p, q), ndarray (p, q) and ndarray of int
        Coefficients, their slopes, and the targets that were not finished: theirs mean nothing.
    """
    B, slopes, finished = B.copy(), slopes.copy(), np.zeros(len(alphas), bool)
    todo, ridge = np.arange(len(alphas)), RIDGE * np.trace(G)
    for step in range(max_iter + 1):
        b = B[:, todo]  # (p, t)
        pull = C[:, todo] - G @ b
        wrong = violation(pull, b, alphas[todo]) > tol[todo]
        finished[todo[~wrong]] = True
        todo, b, pull = todo[wrong], b[:, wrong], pull[:, wrong]
        if len(todo) == 0 or step == max_iter:
            break
        present = np.where(b != 0, b * pull > 0, np.abs(pull) > alphas[todo])
        b[~present] = 0
        grows, solved = np.zeros_like(b), np.ones(len(todo), bool)
        for i, j in enumerate(todo):
            support = np.flatnonzero(present[:, i])
            if len(support) == 0:
                continue
            g, signs = G.take(support, 0).take(support, 1), np.sign(pull[support, i])
            uphill = g @ b[support, i] - C[support, j] + alphas[j] * signs
            g.flat[:: len(g) + 1] += ridge
            factor, move, failed = posv(g, np.column_stack([-uphill, signs]), lower=1)
            if failed or factor.diagonal().min() < _PIVOT:
                solved[i] = False
                continue
            b[support, i] += move[:, 0]
            grows[support, i] = move[:, 1]
        B[:, todo], slopes[:, todo] = b, grows
        todo = todo[solved]
    return B, slopes, np.flatnonzero(~finished)

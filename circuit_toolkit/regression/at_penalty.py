"""Lasso and group lasso at given penalties, from second moments in whatever units they are.

`lasso_path` standardises columns and walks a path; here penalties and units are the caller's. With
G (p, p) the second moments of the sources and C (p, q) those with the targets, both minimise
`tr(B' G B) / 2 - tr(C' B)` plus a penalty.
"""

from __future__ import annotations

import warnings

import numpy as np

from circuit_toolkit.regression.active_set import active_set
from circuit_toolkit.regression.certificate import ConvergenceWarning, violation
from circuit_toolkit.regression.primal_dual import primal_dual

_NEWTON_STEPS = 8  # for all targets at once, before they are searched one by one
_SECULAR_STEPS = 50
_TINY = np.finfo(float).tiny


def lasso_at(
    G: np.ndarray, C: np.ndarray, alphas: np.ndarray, *, tol: float = 1e-6, max_iter: int = 2000
) -> np.ndarray:
    """Solve the lasso of every target at its own penalty `alpha_j |b_j|_1`.

    Parameters
    ----------
    G, C : ndarray, shapes (p, p) and (p, q)
        Second moments of the sources, and of these with the targets.
    alphas : ndarray, shape (q,)
        Penalties, in the unit of C.
    tol : float
        Largest violation of the optimality conditions, as a share of alpha.
    max_iter : int
        Most steps for a target.

    Returns
    -------
    ndarray, shape (p, q)
        Zeros are exact.

    Warns
    -----
    ConvergenceWarning
        If some targets are not solved to the tolerance.
    """
    none, bound = np.zeros(C.shape), tol * alphas + 1e-15
    B, _, left = primal_dual(G, C, alphas, none, none, bound, _NEWTON_STEPS)
    for j in left:
        B[:, j] = active_set(G, C[:, j], float(alphas[j]), none[:, j], float(bound[j]), max_iter)
    _warn(int(np.sum(violation(C - G @ B, B, alphas) > 10 * bound)), len(alphas))
    return B


def group_lasso_at(
    G: np.ndarray,
    C: np.ndarray,
    alphas: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    *,
    tol: float = 1e-3,
    max_iter: int = 2000,
) -> np.ndarray:
    """Solve the group lasso: whole blocks of coefficients are zero or not.

    The penalty is `alpha_b sqrt(p_a) |B_ab|_F`, summed over groups a of p_a sources and groups b
    of targets (Yuan and Lin, 2006). By block coordinate descent.

    Parameters
    ----------
    G, C : ndarray, shapes (p, p) and (p, q)
        Second moments of the sources, and of these with the targets.
    alphas : ndarray, shape (groups of targets,)
        Penalties, in the unit of C.
    rows, columns : ndarray of int, shapes (p,) and (q,)
        Group of each source and of each target, from 0.
    tol : float
        Largest change of the slope by the last step of a block, in units of the penalty.
    max_iter : int
        Most rounds through all groups of sources.

    Returns
    -------
    ndarray, shape (p, q)
        Zero blocks are exact.

    Warns
    -----
    ConvergenceWarning
        If some groups of targets are not solved to the tolerance.
    """
    groups = [np.flatnonzero(rows == a) for a in range(rows.max() + 1)]
    member = (columns[:, None] == np.arange(len(alphas))).astype(float)  # (q, groups)
    turns = [np.linalg.eigh(G[np.ix_(a, a)]) for a in groups]
    sources = [np.ascontiguousarray(G[:, a]) for a in groups]
    B, pull, moved = np.zeros(C.shape), C.copy(), np.zeros(len(alphas))
    for _ in range(max_iter):
        moved = np.zeros(len(alphas))
        for a, (curvature, turn), from_a in zip(groups, turns, sources, strict=True):
            if curvature[-1] <= 0:
                continue
            bound = alphas * np.sqrt(len(a))
            old = turn.T @ B[a]  # (p_a, q), in directions that do not depend on each other
            want = turn.T @ pull[a] + curvature[:, None].clip(0) * old
            new = _block(curvature.clip(0), want, bound, member)
            step = turn @ (new - old)
            live = np.flatnonzero(step.any(0))
            if len(live):
                B[a] = turn @ new
                change = from_a @ step[:, live]
                pull[:, live] -= change
                far = np.sqrt(np.square(change[a]).sum(0) @ member[live])
                moved = np.maximum(moved, far / np.maximum(bound, _TINY))
        if (moved <= tol).all():
            break
    _warn(int(np.sum(moved > tol)), len(alphas))
    return B


def _block(
    curvature: np.ndarray, want: np.ndarray, bound: np.ndarray, member: np.ndarray
) -> np.ndarray:
    """Minimise over one block, for each group of targets (Qin, Scheinberg and Goldfarb, 2013).

    With t the norm of the block it is `want / (curvature + bound / t)`; Newton steps on the
    secular equation find t from below.
    """
    squares = np.square(want) @ member  # (p_a, groups)
    size = np.sqrt(squares.sum(0))
    live = size > bound
    t = np.where(live, (size - bound) / curvature[-1], 0.0)
    if not live.any():
        return np.zeros_like(want)
    for _ in range(_SECULAR_STEPS):
        lifted = curvature[:, None] * t + bound
        norm = np.sqrt((squares / np.square(lifted)).sum(0))
        slope = (squares * curvature[:, None] / lifted**3).sum(0)
        ahead = (norm - 1) * np.square(norm) / np.maximum(slope, _TINY)
        t = np.where(live, t + np.maximum(ahead, 0), 0.0)
        if (ahead <= 1e-12 * t)[live].all():
            break
    lifted = curvature[:, None] * t + bound
    return want * ((t / np.where(live, lifted, 1.0)) @ member.T)


def group_penalties(C: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Give the smallest penalties at which the group lasso of each group of targets is empty.

    Parameters
    ----------
    C : ndarray, shape (p, q)
        Second moments of sources with targets.
    rows, columns : ndarray of int, shapes (p,) and (q,)
        Group of each source and of each target, from 0.

    Returns
    -------
    ndarray, shape (groups of targets,)
    """
    sources = rows[:, None] == np.arange(rows.max() + 1)  # (p, groups)
    targets = columns[:, None] == np.arange(columns.max() + 1)  # (q, groups)
    squares = sources.T.astype(float) @ np.square(C) @ targets
    return np.sqrt((squares / sources.sum(0)[:, None]).max(0))


def _warn(left: int, count: int) -> None:
    if left:
        warnings.warn(
            f"{left} of {count} solutions are not within the tolerance. Raise the strength of the "
            "penalty, or drop sources that are nearly copies.",
            ConvergenceWarning,
            stacklevel=3,
        )

"""Lassos from rows, where sources are many: each target is solved on the few that matter to it.

A solution has no more sources than there are rows. So a target is solved on a working set of
sources, from their own Gram matrix; those that violate the optimality conditions most join the set,
and where none does, the solution is that of all sources (Tibshirani et al., 2012, section 7).
"""

from __future__ import annotations

import numpy as np

from circuit_toolkit.regression.certificate import violation
from circuit_toolkit.regression.compiled import kernels
from circuit_toolkit.regression.solvers.one_target import OneTarget
from circuit_toolkit.regression.statistics.second_moments import SecondMoments

_JOIN = 16  # sources at most that join a set, or as many as it has: few rounds, small sets


def on_working_sets(
    X: np.ndarray, Y: np.ndarray, alphas: np.ndarray, tol: float, max_iter: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve for all targets: coefficients (p, q), violations (q,), and alpha_max (q,)."""
    kernels(wait=True)
    X, n = np.asfortranarray(X), len(X)
    B, left = np.zeros((X.shape[1], Y.shape[1])), Y.copy()  # what is not yet explained
    top = np.abs(X.T @ Y / n).max(axis=0, initial=0)
    sets, worst = [np.zeros(0, int) for _ in top], np.zeros(len(top))
    unsolved = np.flatnonzero(top > alphas)
    while len(unsolved):
        pull = X.T @ left[:, unsolved] / n
        worst[unsolved] = violation(pull, B[:, unsolved], alphas[unsolved])
        again = []
        for j, slope in zip(unsolved, pull.T, strict=True):
            joins = _violators(slope, alphas[j], sets[j])
            bound = tol * top[j]
            if worst[j] <= bound or not len(joins):
                continue
            S = sets[j] = np.concatenate([sets[j], joins])
            B[S, j] = _solved(X[:, S], Y[:, j], alphas[j], B[S, j], bound / 2, max_iter)
            left[:, j] = Y[:, j] - X[:, S] @ B[S, j]
            again.append(j)
        unsolved = np.array(again, int)
    return B, worst, top


def _violators(pull: np.ndarray, alpha: float, known: np.ndarray) -> np.ndarray:
    """Return the sources outside of a set whose pull exceeds the penalty most."""
    excess = np.abs(pull) - alpha
    excess[known] = 0
    found = np.flatnonzero(excess > 0)
    return found[np.argsort(-excess[found], kind="stable")[: max(_JOIN, len(known))]]


def _solved(
    X: np.ndarray, y: np.ndarray, alpha: float, b: np.ndarray, bound: float, max_iter: int
) -> np.ndarray:
    """Solve on some sources (n, s), from the solution b of some of them."""
    gram = SecondMoments(X.T @ X / len(X), np.zeros(len(b)), np.ones(len(b)))
    target = OneTarget(gram, X.T @ y / len(X), np.ones(len(b)), 0.0, False, max_iter)
    ((rows, values),), _ = target.path(np.array([alpha]), np.array([bound]), b, alpha)
    solution = np.zeros(len(b))
    solution[rows] = values
    return solution

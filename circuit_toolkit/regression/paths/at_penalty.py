"""The lasso at given penalties, from second moments in whatever units they are.

With G (p, p) the second moments of the sources and C (p, q) those with the targets, it minimises
`tr(B' G B) / 2 - tr(C' B)` plus the penalty: for where many Gram matrices are parts of one.
"""

from __future__ import annotations

import warnings

import numpy as np

from circuit_toolkit.regression.certificate import ConvergenceWarning
from circuit_toolkit.regression.solvers.all_targets import Penalty, solve
from circuit_toolkit.regression.statistics.second_moments import SecondMoments


def lasso_at(
    G: np.ndarray, C: np.ndarray, alphas: np.ndarray, *, tol: float = 1e-8, max_iter: int = 2000
) -> np.ndarray:
    """Solve the lasso of every target at its own penalty `alpha_j |b_j|_1`."""
    path = solve(
        SecondMoments.plain(G),
        lambda some: (np.ascontiguousarray(C[:, some].T), np.zeros(C[:, some].shape[1])),
        np.asarray(alphas, float)[None],
        Penalty(np.ones((len(G), 1))),
        relative=False,
        tol=tol,
        max_iter=max_iter,
    )
    warn_uncertified(int(np.sum(path.summary[0, :, 0] > tol * path.alpha_max)), len(alphas))
    return path.coefficients[0].toarray()


def warn_uncertified(left: int, count: int) -> None:
    """Warn that some solutions are not within the tolerance, if there are any."""
    if left:
        warnings.warn(
            f"{left} of {count} solutions are not within the tolerance. Raise the strength of the "
            "penalty, or drop sources that are nearly copies.",
            ConvergenceWarning,
            stacklevel=3,
        )

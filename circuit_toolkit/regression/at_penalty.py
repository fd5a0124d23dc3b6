"""The lasso at given penalties, from second moments in whatever units they are.

With G (p, p) the second moments of the sources and C (p, q) those with the targets, it minimises
`tr(B' G B) / 2 - tr(C' B)` plus the penalty: for where many Gram matrices are parts of one.
"""

from __future__ import annotations

import warnings

import numpy as np

from circuit_toolkit.regression.all_targets import Penalty, solve
from circuit_toolkit.regression.certificate import ConvergenceWarning
from circuit_toolkit.regression.second_moments import SecondMoments


def lasso_at(
    G: np.ndarray, C: np.ndarray, alphas: np.ndarray, *, tol: float = 1e-8, max_iter: int = 2000
) -> np.ndarray:
    """Solve the lasso of every target at its own penalty `alpha_j |b_j|_1`.

    Parameters
    ----------
    G, C : ndarray, shapes (p, p) and (p, q)
        Second moments of the sources, and of these with the targets.
    alphas : ndarray, shape (q,)
        Penalties, in the unit of C.
    tol : float
        Largest violation of the optimality conditions, as a share of the smallest penalty at which
        a target has no sources.
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
    """Say that some solutions are not within the tolerance, if there are any."""
    if left:
        warnings.warn(
            f"{left} of {count} solutions are not within the tolerance. Raise the strength of the "
            "penalty, or drop sources that are nearly copies.",
            ConvergenceWarning,
            stacklevel=3,
        )

"""Group lasso: all coefficients from one component to another are zero, or none need be."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression.at_penalty import warn_uncertified
from circuit_toolkit.regression.certificate import ConvergenceWarning, certificate
from circuit_toolkit.regression.gram import GramStatistics
from circuit_toolkit.regression.linear_path import LinearPath, rescaled, units
from circuit_toolkit.regression.second_moments import SecondMoments, targets
from circuit_toolkit.regression.settings import check_strengths

_SECULAR_STEPS = 50
_TINY = np.finfo(float).tiny


@dataclass(frozen=True, eq=False)
class GroupPath(LinearPath):
    """Group lasso solutions for g groups of targets at k strengths, each with its certificate.

    The objective is `mean(|Y - X B|^2) / 2`, summed over targets, plus `alpha_b sqrt(p_a) |B_ab|_F`
    summed over groups a of p_a sources and b of targets, on columns in the form of the statistics.

    Parameters
    ----------
    strengths : ndarray, shape (k,)
        Decreasing; alpha as a share of the smallest at which a group of targets has no sources.
    alphas : ndarray, shape (k, g)
        Penalties.
    coefficients : tuple of k csc_array, shape (p, q)
        In the unit of the data; zero blocks are exact.
    gap : ndarray, shape (k, g)
        Duality gap over the objective of the empty model.
    kkt : ndarray, shape (k, g)
        Largest violation of the optimality conditions by a block, over its penalty.
    converged : ndarray of bool, shape (k, g)
        Whether that is within the tolerance. Never read coefficients where it is false.
    stats : GramStatistics
        What was fitted.
    """

    strengths: np.ndarray
    alphas: np.ndarray
    coefficients: tuple[sp.csc_array, ...]
    gap: np.ndarray
    kkt: np.ndarray
    converged: np.ndarray
    stats: GramStatistics

    def __repr__(self) -> str:
        """Sizes and the certificate: the arrays are too large to print."""
        return (
            f"GroupPath({len(self.strengths)} strengths {self.strengths[0]:.3g} to "
            f"{self.strengths[-1]:.3g}, certified={self.converged.mean():.0%})"
        )


def group_lasso_path(
    stats: GramStatistics,
    rows: np.ndarray | list[int],
    columns: np.ndarray | list[int],
    strengths: np.ndarray | list[float] | None = None,
    tol: float = 1e-4,
    *,
    max_iter: int = 2000,
) -> GroupPath:
    """Fit a group lasso path: whether a component reads another, and not which feature does.

    Parameters
    ----------
    stats : GramStatistics
        Of the training rows, in the form to fit.
    rows, columns : array of int, shapes (p,) and (q,)
        Group of each source and of each target, from 0.
    strengths : array of shape (k,), optional
        Shares of alpha_max of each group of targets; by default 20 from 1 to 0.03.
    tol : float, default 1e-4
        Largest violation of the optimality conditions of a block, as a share of its penalty, up to
        which a solution counts as converged.
    max_iter : int, default 2000
        Most rounds through the groups of sources per strength.

    Returns
    -------
    GroupPath
        With a certificate for every group of targets and strength.

    Raises
    ------
    InputError
        If groups are not counted from 0, or a setting is not positive.
    MismatchError
        If groups do not fit the statistics.

    Warns
    -----
    ConvergenceWarning
        Once, if some solutions are not certified.
    """
    rows, columns = np.asarray(rows), np.asarray(columns)
    if (rows.shape, columns.shape) != (stats.mean_x.shape, stats.mean_y.shape):
        raise MismatchError(
            f"Groups must be given for {len(stats.mean_x)} sources and {len(stats.mean_y)} "
            f"targets, got {rows.shape} and {columns.shape}."
        )
    for groups in (rows, columns):
        if groups.dtype.kind not in "iu" or set(groups) != set(range(len(set(groups)))):
            raise InputError("Groups must be counted from 0 without gaps.")
    if not tol > 0 or max_iter < 1:
        raise InputError(f"tol and max_iter must be positive, got {tol} and {max_iter}.")
    if not len(rows) or not len(columns):
        raise InputError("A group lasso needs a source and a target at least, got none.")
    values = check_strengths(np.geomspace(1, 0.03, 20) if strengths is None else strengths)
    G = SecondMoments.of(stats).block(np.arange(len(rows)))
    products, yy = targets(stats, slice(None))
    C = products.T
    alphas = values[:, None] * group_penalties(C, rows, columns)
    unit_x, unit_y = units(stats)
    B, found, wrong, sums = np.zeros(C.shape), [], [], []
    for alpha in alphas:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # what is left is measured below
            settings = {"tol": tol / 10, "max_iter": max_iter}
            B = group_lasso_at(G, C, alpha, rows, columns, start=B, **settings)
        found.append(rescaled(sp.csc_array(B), unit_x, unit_y))
        pull = C - G @ B
        wrong.append(group_violation(pull, B, alpha, rows, columns))
        sums.append(_summary(C, pull, B, rows, columns))
    kkt = np.array(wrong)
    gap = certificate(np.array(sums), np.bincount(columns, yy), alphas)[0]
    converged = kkt <= tol
    if not converged.all():
        warn_uncertified(int((~converged).sum()), converged.size)
    return GroupPath(values, alphas, tuple(found), gap, kkt, converged, stats)


def _summary(
    C: np.ndarray, pull: np.ndarray, B: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Take the sums (groups of targets, 6) that `certificate` is made from: norms are of blocks."""
    root = np.sqrt(np.bincount(rows))[:, None]
    out = np.zeros((columns.max() + 1, 6))
    out[:, 1] = (np.sqrt(_block_sums(pull**2, rows, columns)) / root).max(axis=0)
    out[:, 2] = _block_sums(B * C, rows, columns).sum(axis=0)
    out[:, 3] = _block_sums(B * pull, rows, columns).sum(axis=0)
    out[:, 4] = (np.sqrt(_block_sums(B**2, rows, columns)) * root).sum(axis=0)
    return out


def _block_sums(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Add values (p, q) up by block: (groups of sources, groups of targets)."""
    sources = rows[:, None] == np.arange(rows.max() + 1)  # (p, groups)
    targets = columns[:, None] == np.arange(columns.max() + 1)  # (q, groups)
    return sources.T.astype(float) @ values @ targets


def group_violation(
    pull: np.ndarray, B: np.ndarray, alphas: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Largest violation of the optimality conditions by a block, over its penalty.

    Parameters
    ----------
    pull, B : ndarray, shapes (p, q)
        Slope of the squared error, downhill, and the coefficients.
    alphas : ndarray, shape (g,)
        Penalties of the groups of targets.
    rows, columns : ndarray of int, shapes (p,) and (q,)
        Group of each source and of each target, from 0.

    Returns
    -------
    ndarray, shape (g,)
        Zero at a solution.
    """
    worst = np.zeros(len(alphas))
    for a in range(rows.max(initial=-1) + 1):
        for b, alpha in enumerate(alphas):
            block = np.ix_(rows == a, columns == b)
            bound = alpha * np.sqrt((rows == a).sum())
            size = np.linalg.norm(B[block])
            if size:
                off = np.linalg.norm(pull[block] - bound * B[block] / size)
            else:
                off = max(np.linalg.norm(pull[block]) - bound, 0.0)
            worst[b] = max(worst[b], off / max(bound, _TINY) if off > 0 else 0.0)
    return worst


def group_lasso_at(
    G: np.ndarray,
    C: np.ndarray,
    alphas: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    *,
    start: np.ndarray | None = None,
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
    start : ndarray, shape (p, q), optional
        Where to begin.
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
    B = np.zeros(C.shape) if start is None else start.copy()
    pull, moved = C - G @ B, np.zeros(len(alphas))
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
    warn_uncertified(int(np.sum(moved > tol)), len(alphas))
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
    live = size > bound * (1 + 1e-12)  # not by rounding alone
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
    squares = _block_sums(C**2, rows, columns)
    return np.sqrt((squares / np.bincount(rows)[:, None]).max(axis=0))

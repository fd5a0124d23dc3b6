"""Lasso paths of many targets: each on its own, a few at a time, on all threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from circuit_toolkit.regression.compiled import kernels
from circuit_toolkit.regression.solvers.one_target import OneTarget
from circuit_toolkit.regression.statistics.gram import GramStatistics
from circuit_toolkit.regression.statistics.second_moments import SecondMoments, targets

_CHUNK = 64  # targets whose products with the sources are put in order at once
# Between penalties that are solved one after the other, above _NEAR and below: steps are added.
_RATIOS = (0.3, 0.5)
_NEAR = 0.1  # of alpha_max: below it, sources are many
_ROUGH = 0.01  # violation, over alpha, that is left at those

_EMPTY = np.zeros(0, int), np.zeros(0)
# Solutions (p, q) to start from, at penalties (q,), each on its target's path.
Start = tuple[sp.csc_array, np.ndarray]


@dataclass(frozen=True, eq=False)
class Penalty:
    """What is added to the squared error: alpha (l1_ratio w.|b| + (1 - l1_ratio) b.b / 2)."""

    weights: np.ndarray
    l1_ratio: float = 1.0
    positive: bool = False

    def largest(self, C: np.ndarray, some: slice) -> np.ndarray:
        """Smallest alpha (t,) at which targets, rows of C (t, p), have no sources."""
        pull = C if self.positive else np.abs(C)
        w = self.weights if self.weights.shape[1] == 1 else self.weights[:, some]
        return (pull / w.T).max(axis=1, initial=0) / self.l1_ratio


def solve(
    stats: GramStatistics,
    alphas: np.ndarray,
    penalty: Penalty,
    relative: bool,
    tol: float,
    max_iter: int,
    start: Start | None,
) -> tuple[tuple[sp.csc_array, ...], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Solve for all targets: coefficients, alpha_max, alphas, second moments (q,), and sums."""
    gram, (k, q), p = SecondMoments.of(stats), alphas.shape, len(stats.mean_x)
    alpha_max, yy, summary = np.zeros(q), np.zeros(q), np.zeros((k, q, 6))
    shares, alphas = alphas, alphas.copy()
    alike = relative and q and (shares == shares[:, :1]).all()
    same = _with_steps(shares[:, 0], 1.0, tol) if alike else None
    found: list = [None] * q
    kernels(wait=True)
    import torch  # for its setting of threads, which the rest of the toolkit obeys

    threads = max(1, min(torch.get_num_threads(), q))
    chunk = min(_CHUNK, -(-q // threads)) if q else 1

    def work(first: int) -> None:
        some = slice(first, min(first + chunk, q))
        C, yy[some] = targets(stats, some)
        alpha_max[some] = penalty.largest(C, some)
        if relative:
            alphas[:, some] *= alpha_max[some]
        for j, c in enumerate(C, first):
            if alpha_max[j] == 0:
                found[j] = [_EMPTY] * k
                continue
            w = penalty.weights[:, j if penalty.weights.shape[1] > 1 else 0] * penalty.l1_ratio
            l2 = 1 - penalty.l1_ratio
            target = OneTarget(gram, c, w, l2, penalty.positive, max_iter)
            b, last = np.zeros(p), alpha_max[j]
            if start is not None and start[1][j] < last:
                b, last = start[0][:, [j]].toarray()[:, 0], start[1][j]
            if same is None or last < alpha_max[j]:
                steps = _with_steps(alphas[:, j] / alpha_max[j], last / alpha_max[j], tol)
            else:
                steps = same
            here, bounds, wanted = steps[0] * alpha_max[j], steps[1] * alpha_max[j], steps[2]
            here[wanted] = alphas[:, j]
            path, sums = target.path(here, bounds, b, last)
            found[j] = [path[m] for m in wanted]
            summary[:, j] = sums[wanted]

    firsts = range(0, q, chunk)
    if threads > 1:  # over targets, instead of inside of each small product
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, firsts))
    else:
        for first in firsts:
            work(first)
    coefficients = tuple(_columns([path[m] for path in found], (p, q)) for m in range(k))
    return coefficients, alpha_max, alphas, yy, summary


def _with_steps(
    alphas: np.ndarray, last: float, bound: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add penalties in between where they fall fast; give all, their bounds, and the asked ones."""
    here, bounds, wanted = [], [], []
    for alpha in alphas:
        between = []
        if 0 < alpha < max(_RATIOS) * last:
            border = np.clip(_NEAR, alpha, last)
            between = [*_between(last, border, _RATIOS[0]), border]
            between += [*_between(border, alpha, _RATIOS[1])]
            between = [each for each in between if alpha < each < last]
        here += [*between, alpha]
        bounds += [*(max(bound, _ROUGH * each) for each in between), bound]
        wanted.append(len(here) - 1)
        last = alpha
    return np.array(here), np.array(bounds), np.array(wanted)


def _between(high: float, low: float, ratio: float) -> np.ndarray:
    """Return the fewest values between two, on a logarithmic scale, that fall by no more."""
    n = max(1, int(np.ceil(np.log(low / high) / np.log(ratio) - 1e-9)))
    return high * (low / high) ** (np.arange(1, n) / n)


def _columns(found: list[tuple[np.ndarray, np.ndarray]], shape: tuple[int, int]) -> sp.csc_array:
    """Put sparse columns next to one another, with rows in order."""
    ends = np.cumsum([0, *(len(rows) for rows, _ in found)])
    rows = np.concatenate([np.zeros(0, int), *(rows for rows, _ in found)])
    values = np.concatenate([np.zeros(0), *(values for _, values in found)])
    out = sp.csc_array((values, rows, ends), shape=shape)
    out.sort_indices()
    return out

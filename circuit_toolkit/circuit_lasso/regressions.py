"""The regressions of CircuitLasso: pure pieces, and the plan that puts them together.

Rows -> columns that are alive -> statistics -> blocks of targets -> paths -> one fit. The plan does
not know where a piece runs: at once in this process (`Here`), or on the workers of a cluster
(`cluster.OnWorkers`). Pieces take and return arrays, and need no model.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from math import ceil
from typing import Any, NamedTuple, Self

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations.activations import Activations, Positions
from circuit_toolkit.errors import InputError
from circuit_toolkit.progress import Bar
from circuit_toolkit.regression import (
    ConvergenceWarning,
    GramStatistics,
    LassoPath,
    LogisticPath,
    Screening,
    adaptive_lasso,
    adaptive_logistic,
    cross_validate,
    lasso_path,
    logistic_path,
    screen_features,
)
from circuit_toolkit.regression.solvers.screening import DROPPED
from circuit_toolkit.sites import Site

TOL = 1e-11  # tight, so that sums in another order, as over shards, do not show in the results
Y = "target"  # beside the sites, in a table of columns
LEFT_OUT = -2  # the fold of rows that are neither fitted nor held out
EVERY = "every site"  # the columns of all sites, side by side
_TASKS = 2  # of a kind for each thread, over all sites: more would send more matrices about
_TARGETS = 64  # in a block, at least

Columns = dict[Any, Any]  # by site; of the target; and of no columns
FoldScores = np.ndarray | None  # (folds, k)


@dataclass(frozen=True)
class Regression:
    """How every path is fitted."""

    strengths: tuple[float, ...]
    adaptive: bool
    min_active: int
    light: bool  # whether second moments stay where they are
    order: np.ndarray  # (P, P), whether a source position is never after a target position
    randomised: bool = False  # whether the rows are `Imposed`, and the target reads all sites

    def of_features(self, stats: GramStatistics, weights: np.ndarray | None = None) -> LassoPath:
        """Fit standardised statistics."""
        fit = adaptive_lasso if self.adaptive else lasso_path
        weighted = partial(fit, weights=weights)
        return _quietly(weighted, stats.standardised(), list(self.strengths), TOL)

    def of_label(self, X: sp.csr_array, y: np.ndarray) -> LogisticPath:
        """Fit a class."""
        fit = adaptive_logistic if self.adaptive else logistic_path
        return _quietly(fit, X, y, list(self.strengths))


def _quietly(fit: Any, *args: Any) -> Any:
    """Fit without a warning: the plan warns, once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit(*args)


class Readout(NamedTuple):
    """The path of a target, and how well it does on other rows."""

    path: LassoPath | LogisticPath
    held_out: np.ndarray  # (k,)
    folds: FoldScores


class Fitted(NamedTuple):
    """All regressions of a fit."""

    screening: dict[Site, Screening]
    chain: dict[Site, LassoPath]
    readout: dict[Site, LassoPath | LogisticPath]
    held_out: np.ndarray
    folds: FoldScores


@dataclass(frozen=True)
class Imposed:
    """Rows of randomised runs: what was changed at each site, and what followed there."""

    features: Mapping[Site, sp.csr_array]
    responses: Mapping[Site, sp.csr_array]


class Parts:
    """Rows that are fitted, in parts, each of rows `ends[i]` to `ends[i + 1]`."""

    def __init__(self) -> None:
        self.parts: list[Any] = []
        self.ends = np.zeros(1, int)

    def take(self, parts: list[Any], sizes: list[int]) -> None:
        """Fit rows in parts of these sizes."""
        self.parts, self.ends = parts, np.cumsum([0, *sizes])


class Here(Parts):
    """Activations of this process, where pieces run at once; `OnWorkers` answers to the same."""

    threads, light = 1, False

    def __init__(self, acts: Any, progress: bool) -> None:
        super().__init__()
        self.acts, self.progress = acts, progress

    def __enter__(self) -> Self:
        """Return itself: nothing is held that has to be let go of."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def pooled(self, positions: Positions) -> Activations:
        """Reduce to one row a prompt; of a store one shard at a time is in memory."""
        rows = self.acts.pooled(positions)
        self.take([rows], [rows.n_prompts])
        return rows

    def with_model(self, piece: Any, holder: Any, each: list[tuple], label: str) -> list[Any]:
        """Run a piece on what holds a model, once for each set of further arguments."""
        return [piece(holder, *args) for args in Bar(each, label, shown=self.progress)]

    def shards(self) -> Iterator[Activations]:
        """Return the activations, a shard at a time."""
        return self.acts.shards()

    def call(self, piece: Any, *args: Any) -> Any:
        """Run a piece."""
        return piece(*args)

    def send(self, value: Any) -> Any:
        """Return what is here already."""
        return value

    def collect(self, wanted: list[Any]) -> list[Any]:
        """Return what is here already."""
        return wanted

    def watched(self, sites: list[Site]) -> Iterable[Site]:
        """Return the sites, with a bar."""
        return Bar(sites, "fitting", shown=self.progress)


def fit_all(
    run: Any,
    rows: Activations | Imposed,
    y: np.ndarray,
    is_label: bool,
    fold: np.ndarray,
    how: Regression,
    reads: str,
) -> Fitted:
    """Screen the features and fit all regressions of y (rows, q).

    `fold` (rows,) is -1 for held-out rows, -2 for rows that are left out. At several positions the
    columns of a site are the features at the first, then those at the second, and so on.
    """
    each_site: Any = rows.features.items()  # scipy's stub says that a shape may be None
    sizes: dict[Site, int] = {site: X.shape[1] for site, X in each_site}
    at = {site: n // len(how.order) for site, n in sizes.items()}  # features at one position
    live = {site: _live(X[fold >= 0], how.min_active) for site, X in rows.features.items()}
    *tables, held_out = _tables(run, live, y, fold)
    training = [each for table in tables for each in table]
    sites = list(live)
    each = ceil(_TASKS * run.threads / len(sites))
    screening, chain, readout = {}, {}, {}
    before: Any = None  # statistics of the site before on those of this one
    for previous, site in zip([None, *sites], run.watched(sites), strict=False):
        later: Any = sites[len(screening) + 1] if site != sites[-1] else None
        if how.randomised and later:
            later = Y, later
        moments = _sum(run, training, site, later, each)
        screening[site] = run.call(screened, site, moments, how.min_active)
        if previous is not None:
            stats = run.call(selected, before, screening[previous], screening[site])
            n = max(1, min(each, len(live[site]) // _TARGETS))
            places = [live[end] // at[end] for end in (previous, site)]
            chosen = [screening[end] for end in (previous, site)]
            allowed = run.call(allowed_sources, how.order, *places, *chosen)
            blocks = [run.call(block_path, how, stats, allowed, block, n) for block in range(n)]
            chain[site] = run.call(side_by_side, blocks)
        before = moments
        if reads == "jointly":
            if site == sites[-1]:
                together = run.call(beside, list(screening.values()))
                data = [_sum(run, table, EVERY, Y, each) for table in (*tables, held_out)]
                readout[site] = run.call(metric_readout, how, together, data[:-1], data[-1])
        elif site == sites[-1] or reads == "all":
            folds = tables if site == sites[-1] else [training]
            if is_label:
                data = [[(part[site], part[Y]) for part in table] for table in (*folds, held_out)]
                piece = label_readout
            else:
                data = [_sum(run, table, site, Y, each) for table in (*folds, held_out)]
                piece = metric_readout
            readout[site] = run.call(piece, how, screening[site], data[:-1], data[-1])
    every = (screening, chain, readout)
    found = iter(run.collect([wanted for table in every for wanted in table.values()]))
    screening, chain, readout = ({site: next(found) for site in table} for table in every)
    paths = {site: each.path for site, each in readout.items()}
    _warn([*chain.values(), *paths.values()])
    screened_all = {site: _in_all(screening[site], live[site], n) for site, n in sizes.items()}
    last = readout[sites[-1]]
    return Fitted(screened_all, chain, paths, last.held_out, last.folds)


def _tables(run: Any, live: Any, y: np.ndarray, fold: np.ndarray) -> list[list[Any]]:
    """Rows of each fold, then the held-out ones, as tables of columns in as many parts as fit."""
    alive = run.send(live)
    n = len(run.parts)
    found: list[list[Any]] = [[] for _ in range(fold.max() + 2)]
    for some in np.array_split(np.arange(n), min(n, run.threads)):
        here = slice(run.ends[some[0]], run.ends[some[-1] + 1])
        parts = [run.parts[i] for i in some]
        for number in sorted(set(fold[here].tolist()) - {LEFT_OUT}):
            table = run.call(columns, parts, alive, y[here], fold[here] == number)
            found[number].append(table)  # -1 is the last
    return found


def _sum(run: Any, tables: list[Any], source: Any, target: Any, n: int) -> Any:
    """Statistics of all rows of some tables: of n sets of these, added in pairs."""
    pairs = [(table[source], table[target]) for table in tables]
    ends = np.linspace(0, len(pairs), min(n, len(pairs)) + 1).astype(int).tolist()
    parts = [
        run.call(GramStatistics.from_blocks, pairs[a:b])
        for a, b in zip(ends[:-1], ends[1:], strict=True)
    ]
    while len(parts) > 1:
        odd = parts[-1:] if len(parts) % 2 else []
        two = zip(parts[::2], parts[1::2], strict=False)
        parts = [*(run.call(operator.add, a, b) for a, b in two), *odd]
    return parts[0]


def _live(X: sp.csr_array, min_active: int) -> np.ndarray:
    """Columns that are not zero in so many rows; the others need no second moments."""
    counts = np.bincount(X.indices[X.data != 0], minlength=X.shape[1])  # type: ignore[misc]
    return np.flatnonzero(counts >= min_active)


def _in_all(screening: Screening, live: np.ndarray, width: int) -> Screening:
    """Screening of all features, from that of the live ones."""
    representative = np.full(width, DROPPED)
    kept = screening.representative != DROPPED
    representative[live[kept]] = live[screening.representative[kept]]
    return Screening(live[screening.kept], representative)


def _warn(paths: list[LassoPath | LogisticPath]) -> None:
    converged = np.concatenate([path.converged.ravel() for path in paths])
    if not converged.all():
        warnings.warn(
            f"{np.count_nonzero(~converged)} of {converged.size} solutions are not certified. See "
            "path.converged; drop sources that are nearly copies.",
            ConvergenceWarning,
            stacklevel=5,
        )


# The pieces: what a worker does. They take what the plan calls them with.


def columns(
    parts: list[Any], live: Mapping[Site, np.ndarray], y: np.ndarray, chosen: np.ndarray
) -> Columns:
    """Chosen rows of the features that are alive, by site; of the target; and of no columns."""
    found: Columns = {Y: y[chosen], None: np.zeros((np.count_nonzero(chosen), 0))}
    for site, features in live.items():
        rows = sp.csr_array(sp.vstack([part.features[site] for part in parts]))
        found[site] = rows[chosen][:, features]
    if isinstance(parts[0], Imposed):
        found[EVERY] = sp.csr_array(sp.hstack([found[site] for site in live]))
        for site in list(live)[1:]:
            rows = sp.csr_array(sp.vstack([part.responses[site] for part in parts]))
            found[Y, site] = rows[chosen][:, live[site]]
    return found


def beside(screenings: list[Screening]) -> Screening:
    """Put the screenings of sites side by side, as their columns are."""
    ends = np.cumsum([0, *(len(each.representative) for each in screenings)]).tolist()
    pairs = list(zip(screenings, ends, strict=False))
    stands = [
        np.where(each.representative == DROPPED, DROPPED, each.representative + end)
        for each, end in pairs
    ]
    kept = np.concatenate([each.kept + end for each, end in pairs])
    return Screening(kept, np.concatenate(stands))


def allowed_sources(
    order: np.ndarray, x: np.ndarray, y: np.ndarray, of_x: Screening, of_y: Screening
) -> np.ndarray | None:
    """Return which sources a target may have, (p, q), by their positions; None for all."""
    return None if order.all() else order[np.ix_(x[of_x.kept], y[of_y.kept])]


def screened(site: Site, stats: GramStatistics, min_active: int) -> Screening:
    """Choose the features of a site that are fitted."""
    screening = screen_features(stats, min_active)
    if not len(screening.kept):
        raise InputError(
            f"No feature of {site} is active on {min_active} of {stats.n} training rows. Capture "
            "more prompts, or lower min_active."
        )
    return screening


def selected(moments: GramStatistics, x: Screening, y: Screening) -> GramStatistics:
    """Statistics of the features that were kept at two sites."""
    return moments.select(x=x.kept, y=y.kept)


def block_path(
    how: Regression, stats: GramStatistics, allowed: np.ndarray | None, block: int, n: int
) -> LassoPath:
    """Fit the targets of one block of n."""
    targets = np.array_split(np.arange(stats.xy.shape[1]), n)[block]
    weights = None if allowed is None else np.where(allowed[:, targets], 1.0, np.inf)
    path = how.of_features(stats if n == 1 else stats.select(y=targets), weights)
    return light(path) if how.light else path


def metric_readout(
    how: Regression, screening: Screening, folds: list[GramStatistics], held_out: GramStatistics
) -> Readout:
    """Fit the target; with its R² on the held-out rows, and on each fold by the others.

    Of several logits it is the share of their common variance.
    """
    *folds, held_out = (each.select(x=screening.kept) for each in (*folds, held_out))
    stats = reduce(operator.add, folds)
    path = how.of_features(stats)
    spread = np.where(stats.scale_y > 0, stats.yy, 0)
    share = spread / spread.sum()

    def common(r2: np.ndarray) -> np.ndarray:  # (..., k, q)
        return r2[..., share > 0] @ share[share > 0]

    scores = common(cross_validate(folds, how.of_features)) if len(folds) > 1 else None
    if scores is not None and not np.isfinite(scores).all():
        scores = None
    return Readout(light(path) if how.light else path, common(path.held_out_r2(held_out)), scores)


def label_readout(
    how: Regression, screening: Screening, folds: Sequence[list], held_out: list
) -> Readout:
    """Fit a class; with its AUROC on the held-out rows, and on each fold by the others."""
    parts = [_stacked(fold, screening) for fold in folds]

    def fit(some: list[tuple[sp.csr_array, np.ndarray]]) -> LogisticPath:
        X = sp.csr_array(sp.vstack([x for x, _ in some]))
        return how.of_label(X, np.concatenate([y for _, y in some]))

    path, scores = fit(parts), None
    if len(parts) > 1 and all(len(np.unique(y)) > 1 for _, y in parts):
        rest = ([part for part in parts if part is not fold] for fold in parts)
        pairs = zip(parts, rest, strict=True)
        scores = np.array([fit(others).held_out_auroc(*fold) for fold, others in pairs])
    return Readout(path, path.held_out_auroc(*_stacked(held_out, screening)), scores)


def _stacked(tables: list, screening: Screening) -> tuple[sp.csr_array, np.ndarray]:
    X = sp.csr_array(sp.vstack([x for x, _ in tables]))
    return X[:, screening.kept], np.concatenate([y[:, 0] for _, y in tables])


@dataclass(frozen=True, eq=False)
class Absent:
    """A matrix that is not kept: of 16,384 features each takes 2 GiB."""

    shape: tuple[int, ...]
    own: np.ndarray | None = None

    def diagonal(self) -> np.ndarray | None:
        """Return the diagonal: scales of features are made from it."""
        return self.own

    def __getitem__(self, _: Any) -> Any:
        """Refuse to return a part."""
        raise InputError(
            "The second moments of this path were not kept: it was fitted on a cluster, or read "
            "from a file. Put the strength among CircuitLasso(strengths=...), or fit it here."
        )


def light(path: LassoPath) -> LassoPath:
    """Leave the second moments where they are."""
    stats = path.stats
    xx: Any = Absent(stats.xx.shape, stats.xx.diagonal().copy())
    xy: Any = Absent(stats.xy.shape)
    penalty = replace(path.penalty, weights=xy)  # as large, where they are adaptive
    return replace(path, stats=replace(stats, xx=xx, xy=xy), penalty=penalty)


def side_by_side(blocks: list[LassoPath]) -> LassoPath:
    """Put light paths of blocks of targets together."""
    if len(blocks) == 1:
        return blocks[0]
    stats = [block.stats for block in blocks]
    yy = np.concatenate([each.yy for each in stats])
    xy: Any = Absent((len(stats[0].mean_x), len(yy)))
    tables = ("alphas", "gap", "kkt", "converged", "r2")
    return replace(
        blocks[0],
        **{name: np.hstack([getattr(block, name) for block in blocks]) for name in tables},
        coefficients=tuple(
            sp.csc_array(sp.hstack(each))
            for each in zip(*(block.coefficients for block in blocks), strict=True)
        ),
        penalty=replace(blocks[0].penalty, weights=xy),
        stats=replace(
            stats[0], mean_y=np.concatenate([each.mean_y for each in stats]), yy=yy, xy=xy
        ),
    )

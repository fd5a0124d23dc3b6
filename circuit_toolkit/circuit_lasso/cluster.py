"""CircuitLasso on a Dask cluster: workers read shards, add up statistics and fit blocks of targets.

Shards -> pooled rows -> statistics of some rows -> their sum, as a tree -> blocks of targets ->
paths -> one fit. Who does what and when, and again after a worker died, is left to Dask's
scheduler: here is only what depends on what. Arrays and paths of files travel; no worker needs the
model.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations.activations import Activations, joined
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.activations.store.manifest import KIND
from circuit_toolkit.activations.store.shards import shard_name, widths
from circuit_toolkit.circuit_lasso import cluster_tasks as tasks
from circuit_toolkit.circuit_lasso.cluster_tasks import Y
from circuit_toolkit.circuit_lasso.estimator import CircuitLasso
from circuit_toolkit.errors import InputError
from circuit_toolkit.regression import (
    ConvergenceWarning,
    GramStatistics,
    LassoPath,
    LogisticPath,
    Screening,
)
from circuit_toolkit.regression.solvers.screening import DROPPED
from circuit_toolkit.sites import Site

_RETRIES = 2  # of a task that fails, as where a shared disk stalls; deaths are Dask's own matter
_PIECE = 4 * 2**20  # bytes in one message through the scheduler, which likes them small
_TASKS = 2  # of a kind for each thread, over all sites: more would send more matrices about
_TARGETS = 64  # in a block, at least


class OnWorkers:
    """Activations as the workers of a cluster read them."""

    def __init__(self, client: Any, acts: Activations | ActivationStore, progress: bool) -> None:
        self.threads = _threads(client)
        if isinstance(acts, ActivationStore):
            _check_folder(client, acts.folder)
        self.client, self.acts, self.progress = client, acts, progress
        self.parts: list[Any] = []  # futures of rows, in the order of the prompts
        self.ends = np.zeros(1, int)  # where they begin and end

    def pooled(self, positions: str) -> Activations:
        """Reduce to one row a prompt, as `Activations.pooled`; workers keep the rows, too."""
        if isinstance(self.acts, ActivationStore):
            shards = self.acts.manifest.shards
            self.ends = np.cumsum([0, *(shards[name].prompts for name in self._names())])
            self.parts = self._of_shards(tasks.pooled, positions=positions)
            self._show(self.parts)
            return joined(self.client.gather(self.parts))
        rows = self.acts.pooled(positions)
        n = min(rows.n_prompts, max(self.threads, ceil(rows.nbytes / _PIECE)))
        self.ends = np.linspace(0, rows.n_prompts, n + 1).astype(int)
        # Not scattered: what the scheduler has sent, it can send again when a worker dies.
        self.parts = [
            self.client.submit(tasks.same, rows.part(a, b), pure=False)
            for a, b in zip(self.ends[:-1].tolist(), self.ends[1:].tolist(), strict=True)
        ]
        return rows

    def shards(self) -> Iterator[Activations]:
        """Return all that names of features are made from, a shard at a time."""
        if not isinstance(self.acts, ActivationStore):
            yield self.acts
            return
        futures = self._of_shards(tasks.by_word)
        self._show(futures)
        while futures:
            yield futures.pop(0).result()

    def regressions(
        self,
        estimator: CircuitLasso,
        rows: Activations,
        y: np.ndarray,
        is_label: bool,
        train: np.ndarray,
    ) -> tuple[dict[Site, Screening], dict[Site, LassoPath], dict[Site, Any], np.ndarray]:
        """Screen the features and fit all regressions."""
        from dask.delayed import delayed

        live = {site: _live(X[train], estimator.min_active) for site, X in rows.features.items()}
        fitted, held_out = self._folds(live, y, train)
        sites = list(live)
        each = ceil(_TASKS * self.threads / len(sites))
        moments, screening, chain, readout = {}, {}, {}, {}
        for site, later in zip(sites, [*sites[1:], None], strict=True):
            moments[site] = _sum(fitted, site, later, each)
            screening[site] = delayed(estimator._screen)(site, moments[site])
        for site, later in zip(sites, sites[1:], strict=False):
            stats = delayed(tasks.selected)(moments[site], screening[site], screening[later])
            n = max(1, min(each, len(live[later]) // _TARGETS))
            blocks = [delayed(tasks.path)(estimator, stats, block, n) for block in range(n)]
            chain[later] = delayed(tasks.side_by_side)(blocks)
        for site in sites if estimator.reads == "all" else sites[-1:]:
            if is_label:
                data = [[(fold[site], fold[Y]) for fold in folds] for folds in (fitted, held_out)]
                readout[site] = delayed(tasks.classified)(estimator, screening[site], *data)
            else:
                both = _sum(fitted, site, Y, each), _sum(held_out, site, Y, each)
                readout[site] = delayed(tasks.explained)(estimator, screening[site], *both)
        tables = (screening, chain, readout)
        futures = self.client.compute(
            [wanted for table in tables for wanted in table.values()], retries=_RETRIES
        )
        self._show(futures)
        found = iter(self.client.gather(futures))
        screening, chain, readout = ({site: next(found) for site in table} for table in tables)
        paths = {site: path for site, (path, _) in readout.items()}
        _warn([*chain.values(), *paths.values()])
        width = widths(rows)
        screened = {site: _in_all(screening[site], live[site], width[str(site)]) for site in sites}
        return screened, chain, paths, readout[sites[-1]][1]

    def _folds(self, live: dict, y: np.ndarray, train: np.ndarray) -> tuple[list, list]:
        """Training rows and held-out rows, as tables of columns: as many parts as threads."""
        from dask.delayed import delayed

        columns = delayed(live)  # sent once
        folds: tuple[list, list] = ([], [])
        n = len(self.parts)
        for some in np.array_split(np.arange(n), min(n, self.threads)):
            here = slice(self.ends[some[0]], self.ends[some[-1] + 1])
            parts = [self.parts[i] for i in some]
            for fold, chosen in zip(folds, (train, ~train), strict=True):
                if chosen[here].any():
                    fold.append(delayed(tasks.columns)(parts, columns, y[here], chosen[here]))
        return folds

    def _names(self) -> list[str]:
        assert isinstance(self.acts, ActivationStore)
        return [shard_name(index) for index in range(len(self.acts))]

    def _of_shards(self, function: Any, **kwargs: Any) -> list[Any]:
        assert isinstance(self.acts, ActivationStore)
        names, folder = self._names(), self.acts.folder.resolve()
        return self.client.map(
            function,
            [folder / name for name in names],
            [self.acts.manifest.shards[name] for name in names],
            settings=self.acts.settings,
            pure=False,  # the same name may be another file tomorrow
            retries=_RETRIES,
            **kwargs,
        )

    def _show(self, futures: list) -> None:
        if not self.progress:
            return
        from dask.distributed import progress

        bar = progress(futures)  # a widget in a notebook; in a terminal it draws, and waits
        if bar is not None:
            from IPython.display import display

            display(bar)


def _threads(client: Any) -> int:
    """Count the threads of the workers."""
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise InputError(
            "client= needs Dask, which is not installed: pip install 'circuit_toolkit[scale]'."
        ) from error
    if not isinstance(client, Client) or client.asynchronous:
        raise InputError(
            "client must be a dask.distributed.Client that is not asynchronous, got "
            f"{type(client).__name__}. On one machine: Client(n_workers=2, threads_per_worker=1)."
        )
    workers: Any = client.nthreads()
    threads = sum(workers.values())
    if not threads:
        raise InputError(
            "The cluster of this client has no workers. Start some, cluster.scale(2), and wait for "
            "them, client.wait_for_workers(1)."
        )
    return threads


def _check_folder(client: Any, folder: Path) -> None:
    folder = folder.resolve()
    sees = client.run(tasks.is_file, folder / KIND.manifest)
    if blind := [worker for worker, there in sees.items() if not there]:
        raise InputError(
            f"{len(blind)} of {len(sees)} workers do not see the store {folder}, such as "
            f"{blind[0]}. Put it where all machines mount it, or pass store.load()."
        )


def _sum(folds: list, source: Site, target: Site | str | None, n: int) -> Any:
    """Statistics of all rows: of n sets of folds, added in pairs."""
    from dask.delayed import delayed

    pairs = [(fold[source], fold[target]) for fold in folds]
    ends = np.linspace(0, len(pairs), min(n, len(pairs)) + 1).astype(int).tolist()
    parts = [
        delayed(GramStatistics.from_blocks)(pairs[a:b])
        for a, b in zip(ends[:-1], ends[1:], strict=True)
    ]
    while len(parts) > 1:
        odd = parts[-1:] if len(parts) % 2 else []
        two = zip(parts[::2], parts[1::2], strict=False)
        parts = [*(delayed(operator.add)(a, b) for a, b in two), *odd]
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
            stacklevel=4,
        )

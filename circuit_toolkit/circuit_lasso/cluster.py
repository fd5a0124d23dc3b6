"""CircuitLasso on a Dask cluster: workers read shards, and run the pieces of `regressions`.

Who does what and when, and again after a worker died, is left to Dask's scheduler. Arrays and paths
of files travel; workers need the model for randomised runs alone, and keep what these give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from math import ceil
from pathlib import Path
from typing import Any, Self

import numpy as np

from circuit_toolkit.activations.activations import MEAN, Activations, Positions, joined
from circuit_toolkit.activations.store.shards import read_shard, shard_name
from circuit_toolkit.activations.store.store import ActivationStore
from circuit_toolkit.activations.store.writer import KIND
from circuit_toolkit.circuit_lasso.regressions import Parts
from circuit_toolkit.cluster import RETRIES, check_seen, same, threads_of
from circuit_toolkit.features.word_shares import sums_by_word
from circuit_toolkit.models.on_workers import Sent, on_workers, whole_worker
from circuit_toolkit.sites import Site

Listed = Mapping[str, Any]  # of a manifest
_PIECE = 4 * 2**20  # bytes in one message through the scheduler, which likes them small


class OnWorkers(Parts):
    """Activations as the workers of a cluster read them, and pieces as they run them."""

    light = True

    def __init__(self, client: Any, acts: Activations | ActivationStore, progress: bool) -> None:
        super().__init__()  # parts are futures of rows
        self.threads = threads_of(client)
        if isinstance(acts, ActivationStore):
            check_seen(client, acts.folder / KIND.manifest, ", or pass store.load()")
        self.client, self.acts, self.progress = client, acts, progress
        self._held = ExitStack()

    def __enter__(self) -> Self:
        """Return itself, which may come to hold a model on the workers."""
        return self

    def __exit__(self, *_: object) -> None:
        """Have the workers let go of it."""
        self._held.close()

    def with_model(self, piece: Any, holder: Any, each: list[tuple], label: str) -> list[Any]:
        """Have a piece run on what holds a model, which workers load once, until the fit ends."""
        assert isinstance(self.acts, ActivationStore)
        folder = self.acts.folder.resolve()
        held = self._held.enter_context(on_workers(self.client, holder, holder.model, folder))
        futures = self.client.map(
            on_what_is_held, each, piece=piece, sent=held, pure=False, retries=RETRIES
        )
        self._show(futures)
        return futures

    def pooled(self, positions: Positions) -> Activations:
        """Reduce to one row a prompt, as `Activations.pooled`; workers keep the rows, too."""
        if isinstance(self.acts, ActivationStore):
            shards = self.acts.manifest["shards"]
            sizes = [shards[name]["prompts"] for name in self._names()]
            self.take(self._of_shards(pooled, positions=positions), sizes)
            self._show(self.parts)
            return joined(self.client.gather(self.parts))
        rows = self.acts.pooled(positions)
        n = min(rows.n_prompts, max(self.threads, ceil(rows.nbytes / _PIECE)))
        self.ends = np.linspace(0, rows.n_prompts, n + 1).astype(int)
        # Not scattered: what the scheduler has sent, it can send again when a worker dies.
        self.parts = [
            self.client.submit(same, rows.part(a, b), pure=False)
            for a, b in zip(self.ends[:-1].tolist(), self.ends[1:].tolist(), strict=True)
        ]
        return rows

    def shards(self) -> Iterator[Activations]:
        """Return all that names of features are made from, a shard at a time."""
        if not isinstance(self.acts, ActivationStore):
            yield self.acts
            return
        futures = self._of_shards(by_word)
        self._show(futures)
        while futures:
            yield futures.pop(0).result()

    def call(self, piece: Any, *args: Any) -> Any:
        """Have a piece run by a worker, later."""
        from dask.delayed import delayed

        return delayed(piece)(*args)

    def send(self, value: Any) -> Any:
        """Send a value to a worker once, whatever takes it."""
        from dask.delayed import delayed

        return delayed(value)

    def collect(self, wanted: list[Any]) -> list[Any]:
        """Run all that is wanted, and wait for it."""
        futures = self.client.compute(wanted, retries=RETRIES)
        self._show(futures)
        return self.client.gather(futures)

    def watched(self, sites: list[Site]) -> list[Site]:
        """Return the sites: Dask has a bar of its own."""
        return sites

    def _names(self) -> list[str]:
        assert isinstance(self.acts, ActivationStore)
        return [shard_name(index) for index in range(len(self.acts))]

    def _of_shards(self, function: Any, **kwargs: Any) -> list[Any]:
        assert isinstance(self.acts, ActivationStore)
        names, folder = self._names(), self.acts.folder.resolve()
        return self.client.map(
            function,
            [folder / name for name in names],
            [self.acts.manifest["shards"][name] for name in names],
            settings=self.acts.settings,
            pure=False,  # the same name may be another file tomorrow
            retries=RETRIES,
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


def on_what_is_held(args: tuple, piece: Any, sent: Sent) -> Any:
    """Run a piece on a model that this worker loads once."""
    with whole_worker():
        return piece(sent.value, *args)


def pooled(path: Path, shard: Listed, settings: Listed, positions: Positions) -> Activations:
    """Read a shard and reduce it to one row a prompt."""
    return read_shard(path, shard, settings).pooled(positions)


def by_word(path: Path, shard: Listed, settings: Listed) -> Activations:
    """Sum a shard over equal tokens, as if these were one prompt: no label needs to know more."""
    part = read_shard(path, shard, settings)
    if (part.position == MEAN).any():
        return part  # which `feature_labels` refuses
    vocabulary: dict[str, int] = {}
    return Activations(
        features=sums_by_word(part, vocabulary),
        prompt=np.zeros(len(vocabulary), int),
        position=np.arange(len(vocabulary)),
        tokens=[list(vocabulary)],
        groups=np.zeros(1, int),
        settings={"positions": "words"},
    )

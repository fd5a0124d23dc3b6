"""Write a store, shard by shard, by one process at a time; and go on where another stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.store.manifest import KIND, Header, Manifest
from circuit_toolkit.activations.store.shards import shard_name, widths, write_shard
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.files.folder import ResumableFolder, replacing

SAVED_PROMPTS = 1024  # in a shard of activations that were in memory


class StoreWriter:
    """Shards of a store that are still to be written; `store_writer` opens one."""

    def __init__(self, folder: ResumableFolder, n_shards: int):
        self.folder, self.n_shards = folder, n_shards

    def missing(self) -> list[int]:
        """Numbers of the shards that are not there yet."""
        return [i for i in range(self.n_shards) if shard_name(i) not in self.folder.files]

    def write(self, index: int, acts: Activations) -> None:
        """Write one shard, and list it."""
        counts = {"nbytes": acts.nbytes, "prompts": acts.n_prompts, "rows": len(acts.prompt)}
        self.folder.write(shard_name(index), lambda part: write_shard(part, acts), **counts)


@contextmanager
def store_writer(path: str | os.PathLike, header: Header) -> Iterator[StoreWriter]:
    """Begin a store, or go on with one, while no other process does."""
    n = header.n_shards
    with ResumableFolder.opened(path, KIND, asdict(header), n_files=n) as folder:
        Manifest.of(folder)
        yield StoreWriter(folder, n)


def save_activations(acts: Activations, path: str | os.PathLike) -> Path:
    """Write activations to a folder, whole or not at all, see `Activations.save`."""
    step = SAVED_PROMPTS
    if (np.diff(acts.prompt) < 0).any():  # prompts are mixed: cutting would change their order
        step = max(1, acts.n_prompts)
    starts = range(0, max(1, acts.n_prompts), step)
    settings, made_with = dict(acts.settings), versions()
    header = Header({}, made_with, settings, widths(acts), acts.n_prompts, len(starts))
    with replacing(path) as new, store_writer(new, header) as writer:
        for index, start in enumerate(starts):
            writer.write(index, acts.part(start, start + step))
    return resolved(path)


def versions() -> dict[str, str]:
    """Versions of what makes activations."""
    from importlib.metadata import version

    from circuit_toolkit import __version__

    names = ("torch", "transformers", "nnsight", "sae_lens")
    return {"circuit_toolkit": __version__, **{name: version(name) for name in names}}

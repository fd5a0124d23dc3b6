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


@contextmanager
def store_folder(path: str | os.PathLike, header: Header) -> Iterator[ResumableFolder]:
    """Begin a store, or go on with one, while no other process does."""
    with ResumableFolder.opened(path, KIND, asdict(header), n_files=header.n_shards) as folder:
        Manifest.of(folder)
        yield folder


def add_shard(folder: ResumableFolder, index: int, acts: Activations) -> None:
    """Write one shard, and list it."""
    counts = {"nbytes": acts.nbytes, "prompts": acts.n_prompts, "rows": len(acts.prompt)}
    folder.write(shard_name(index), lambda part: write_shard(part, acts), **counts)


def save_activations(acts: Activations, path: str | os.PathLike) -> Path:
    """Write activations to a folder, whole or not at all, see `Activations.save`."""
    step = SAVED_PROMPTS
    if (np.diff(acts.prompt) < 0).any():  # prompts are mixed: cutting would change their order
        step = max(1, acts.n_prompts)
    starts = range(0, max(1, acts.n_prompts), step)
    settings, made_with = dict(acts.settings), versions()
    header = Header({}, made_with, settings, widths(acts), acts.n_prompts, len(starts))
    with replacing(path) as new, store_folder(new, header) as there:
        for index, start in enumerate(starts):
            add_shard(there, index, acts.part(start, start + step))
    return resolved(path)


def versions() -> dict[str, str]:
    """Versions of what makes activations."""
    from importlib.metadata import version

    from circuit_toolkit import __version__

    names = ("torch", "transformers", "nnsight", "sae_lens")
    return {"circuit_toolkit": __version__, **{name: version(name) for name in names}}

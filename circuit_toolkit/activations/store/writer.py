"""A store being written: its manifest, then shard by shard by one process at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.store.shards import AGAIN, Shard, shard_name, widths, write_shard
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.files.folder import FolderKind, ResumableFolder, replacing
from circuit_toolkit.sites import Site

KIND = FolderKind("activations", "circuit_toolkit.activations", 1, AGAIN, listing="shards")
SAVED_PROMPTS = 1024  # in a shard of activations that were in memory


@dataclass(frozen=True)
class Header:
    """What a store holds, which does not change while its shards are written."""

    inputs: dict[str, Any]
    made_with: dict[str, Any]
    settings: dict[str, Any]
    sites: dict[str, int]
    n_prompts: int
    n_shards: int


@dataclass(frozen=True)
class Manifest:
    """A header, and the shards that are there."""

    header: Header
    shards: Mapping[str, Shard]

    @classmethod
    def of(cls, folder: ResumableFolder) -> Manifest:
        """Take what the manifest of a folder says, after a look at each part."""
        content = dict(folder.content)
        try:
            shards = {name: Shard(**each) for name, each in content.pop(KIND.listing).items()}
            header = Header(**content)
            kinds = [type(getattr(header, each.name)) for each in fields(header)]
            counts = [*header.sites.values(), header.n_prompts, header.n_shards]
            for each in shards.values():
                counts += [each.bytes, each.nbytes, each.prompts, each.rows]
            if kinds != [dict] * 4 + [int] * 2 or any(type(n) is not int or n < 0 for n in counts):
                raise ValueError("a number or a table is missing")
            for name in header.sites:
                Site.parse(name)
        except (InputError, AttributeError, TypeError, ValueError) as error:
            raise FileFormatError(
                f"{folder.path / KIND.manifest} describes no activations ({error}). {AGAIN}"
            ) from error
        return cls(header, shards)


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

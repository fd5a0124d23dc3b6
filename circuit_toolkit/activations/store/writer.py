"""Write a store, shard by shard, by one process at a time; and go on where another stopped."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.store.manifest import (
    NAME,
    Header,
    Manifest,
    read_manifest,
    write_manifest,
)
from circuit_toolkit.activations.store.shards import (
    PART,
    check_shard,
    shard_name,
    widths,
    write_shard,
)
from circuit_toolkit.errors import InputError, MismatchError

LOCK = ".lock"
SAFETENSORS_PART = ".tmp??????"  # what safetensors writes to before it gives a file its name
NAMED = 5  # differences of two captures that an error names
SAVED_PROMPTS = 1024  # in a shard of activations that were in memory


class StoreWriter:
    """Shards of a store that are still to be written; made by `StoreWriter.opened`."""

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder = folder
        self.manifest = manifest

    @classmethod
    @contextmanager
    def opened(cls, folder: str | os.PathLike, header: Header) -> Iterator[StoreWriter]:
        """Begin a store, or go on with one, while no other process does."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            for part in folder.glob(f".*{PART}"):  # of a process that died
                part.unlink()
            if (folder / NAME).is_file():
                for part in folder.glob(SAFETENSORS_PART):
                    part.unlink()
                manifest = _resumed(folder, header)
            elif foreign := sorted({path.name for path in folder.iterdir()} - {LOCK}):
                raise InputError(
                    f"{folder} holds {foreign[0]!r} and is no store of activations. Pass a new "
                    "folder, or an empty one."
                )
            else:
                manifest = Manifest(header)
                write_manifest(folder, manifest)
            yield cls(folder, manifest)

    def missing(self) -> list[int]:
        """Numbers of the shards that are not there yet."""
        n = self.manifest.header.n_shards
        return [index for index in range(n) if shard_name(index) not in self.manifest.shards]

    def write(self, index: int, acts: Activations) -> None:
        """Write one shard, and list it."""
        name = shard_name(index)
        shard = write_shard(self.folder / name, acts)
        self.manifest = self.manifest.having({**self.manifest.shards, name: shard})
        write_manifest(self.folder, self.manifest)


def save(acts: Activations, folder: str | os.PathLike) -> Path:
    """Write activations to a folder, whole or not at all, see `Activations.save`."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} holds something already. Save to a new folder.")
    step = SAVED_PROMPTS
    if (np.diff(acts.prompt) < 0).any():  # prompts are mixed: cutting would change their order
        step = max(1, acts.n_prompts)
    starts = range(0, max(1, acts.n_prompts), step)
    header = Header(
        inputs={},
        made_with=versions(),
        settings=dict(acts.settings),
        sites=widths(acts),
        n_prompts=acts.n_prompts,
        n_shards=len(starts),
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        new = Path(scratch) / folder.name
        with StoreWriter.opened(new, header) as writer:
            for index, start in enumerate(starts):
                writer.write(index, acts.part(start, start + step))
        if folder.exists():
            folder.rmdir()  # empty; Windows would not replace it
        os.replace(new, folder)
    return folder


def versions() -> dict[str, str]:
    """Versions of what makes activations."""
    from importlib.metadata import version

    from circuit_toolkit import __version__

    names = ("torch", "transformers", "nnsight", "sae_lens")
    return {"circuit_toolkit": __version__, **{name: version(name) for name in names}}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder; the operating system lets go of it when the process ends in any way."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"Another process captures into {folder}. Wait for it, or pass another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _resumed(folder: Path, header: Header) -> Manifest:
    """Read what is there of the same store, or say why it is not the same."""
    manifest = read_manifest(folder)
    found = manifest.header
    if not found.inputs:
        raise MismatchError(f"{folder} holds activations that were saved. Pass another folder.")
    there = {name: s for name, s in manifest.shards.items() if (folder / name).is_file()}
    complete = len(there) == found.n_shards
    differ = _differences(found.inputs, header.inputs)
    if not differ and not complete:
        differ = _differences(found.made_with, header.made_with)
    if differ:
        more = f" and {len(differ) - NAMED} more" if len(differ) > NAMED else ""
        raise MismatchError(
            f"{folder} holds another capture: {'; '.join(differ[:NAMED])}{more}. Pass the same "
            "inputs to go on with it, or another folder."
        )
    for name, shard in there.items():
        check_shard(folder / name, shard)
    return manifest if len(there) == len(manifest.shards) else manifest.having(there)


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Return what is not the same."""
    found = []
    for name in dict.fromkeys([*there, *here]):
        a, b = there.get(name), here.get(name)
        if name not in there or name not in here:
            found.append(f"{name} only {'here' if name in here else 'there'}")
        elif isinstance(a, dict) and isinstance(b, dict):
            found += [f"{name} {inner}" for inner in _differences(a, b)]
        elif a != b and isinstance(a, str) and len(a) == 64:  # a checksum says nothing to a reader
            found.append(f"other {name.replace('_', ' ')}")
        elif a != b:
            found.append(f"{name} {a!r} there, {b!r} here")
    if not found and list(there) != list(here):
        found.append("in another order")
    return found

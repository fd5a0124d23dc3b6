"""ActivationStore: the activations in a folder, read one shard at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from circuit_toolkit.activations.activations import Activations, Positions, joined
from circuit_toolkit.activations.budget import available_memory, size
from circuit_toolkit.activations.store.shards import AGAIN, read_shard, shard_name, widths
from circuit_toolkit.activations.store.writer import KIND, check_manifest
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.folder import ResumableFolder
from circuit_toolkit.sites import Site


@dataclass(frozen=True, eq=False)
class ActivationStore:
    """Activations on disk, from `capture(..., store=folder)` or `Activations.save`.

    Parameters
    ----------
    folder : Path
        Where they are.
    manifest : dict
        What was captured, and the checksums of the shards, as its file has them.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import circuit_toolkit as ct
    >>> folder = TemporaryDirectory()
    >>> model = ct.load_model("demo")
    >>> saes = ct.load_dictionaries(model)
    >>> task = ct.tasks.ioi(model, n=8)
    >>> store = ct.capture(model, saes, task, store=folder.name, progress=False)
    >>> store
    ActivationStore(16 prompts in 1 shards, ... kB, at resid_pre 0, ...)
    >>> store.pooled("last")
    Activations(16 rows of 16 prompts at resid_pre 0, ...)
    >>> folder.cleanup()
    """

    folder: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, folder: str | os.PathLike) -> ActivationStore:
        """Open a folder.

        Parameters
        ----------
        folder : path
            That `capture` or `Activations.save` wrote; `~` is the home folder.

        Returns
        -------
        ActivationStore

        Raises
        ------
        FileFormatError
            If it holds no store, or one that is damaged or not complete, or a shard that does
            not belong to it.
        """
        there = ResumableFolder.read(folder, KIND)
        check_manifest(there)
        store = cls(there.path, there.content)
        n = len(store)
        if len(there.files) != n:
            raise FileFormatError(
                f"{there.path} holds {len(there.files)} of {n} shards. Call `capture` with the "
                "same inputs and store= to make the rest."
            )
        names = [shard_name(index) for index in range(n)]
        for name in sorted({path.name for path in there.path.glob("*.safetensors")} - {*names}):
            raise FileFormatError(f"{there.path / name} does not belong here. Move it away.")
        for name in names:
            if name not in there.files or not (there.path / name).is_file():
                raise FileFormatError(f"{there.path / name} is missing. {AGAIN}")
        return store

    @property
    def settings(self) -> dict[str, Any]:
        """Model, task, positions and dictionaries, as in `Activations`."""
        return dict(self.manifest["settings"])

    @property
    def sites(self) -> list[Site]:
        """Sites in order of computation."""
        return list(self._widths())

    @property
    def n_prompts(self) -> int:
        """Number of prompts, corrupted prompts included."""
        return self.manifest["n_prompts"]

    @property
    def nbytes(self) -> int:
        """Bytes that all take in memory, about."""
        return sum(shard["nbytes"] for shard in self.manifest["shards"].values())

    def __len__(self) -> int:
        """Return the number of shards."""
        return self.manifest["n_shards"]

    def __repr__(self) -> str:
        """Sizes; not the tables."""
        sites = ", ".join(site.short for site in self.sites)
        return (
            f"ActivationStore({self.n_prompts} prompts in {len(self)} shards, "
            f"{size(self.nbytes)}, at {sites})"
        )

    def shards(self) -> Iterator[Activations]:
        """Read one shard after the other, each checked against its checksum and in full.

        Yields
        ------
        Activations
            Some prompts, counted from 0 in each shard. One that the caller lets go of is no
            longer in memory when the next is read.

        Raises
        ------
        FileFormatError
            If a shard is missing, damaged or another one; it is named.
        """
        for index in range(len(self)):
            yield self._read(index)

    def _read(self, index: int) -> Activations:
        name = shard_name(index)
        part = read_shard(self.folder / name, self.manifest["shards"][name], self.settings)
        if widths(part) != self.manifest["sites"]:
            raise FileFormatError(f"{self.folder / name} has other sites than the store. {AGAIN}")
        return part

    def _widths(self) -> dict[Site, int]:
        return {Site.parse(name): width for name, width in self.manifest["sites"].items()}

    def load(self) -> Activations:
        """Read all into memory.

        Returns
        -------
        Activations
            What `capture` gives without `store`.

        Raises
        ------
        InputError
            If there is not enough memory.
        FileFormatError
            If a shard is missing, damaged or another one.
        """
        needed = round(self.nbytes * (1 + 1 / max(1, len(self.sites))))  # one site is twice
        available = available_memory()
        if needed > available:
            raise InputError(
                f"{self.folder} needs about {size(needed)} of memory, {size(available)} are "
                "available. Use pooled('last'), or go through shards()."
            )
        return joined(list(self.shards()))

    def pooled(self, positions: Positions) -> Activations:
        """Reduce to one row a prompt, shard by shard.

        Parameters
        ----------
        positions : str or sequence of str
            As in `Activations.pooled`.

        Returns
        -------
        Activations
            In memory; the same as those of `load().pooled(positions)`.

        Raises
        ------
        InputError
            If the rows are not tokens any more, or the task does not name the position; or all
            are asked for and there is not enough memory.
        FileFormatError
            If a shard is missing, damaged or another one.
        """
        if positions == self.settings.get("positions", "all"):
            return self.load()
        return joined([shard.pooled(positions) for shard in self.shards()])

    def means(self) -> dict[Site, np.ndarray]:
        """Average every feature over the rows, as `Activations.means`.

        Returns
        -------
        dict of Site to ndarray, shape (F,)
        """
        sums = {site: np.zeros(width) for site, width in self._widths().items()}
        for shard in self.shards():
            for site, matrix in shard.features.items():
                sums[site] += matrix.sum(axis=0, dtype=np.float64)
        rows = sum(shard["rows"] for shard in self.manifest["shards"].values())
        return {site: (total / rows).astype(np.float32) for site, total in sums.items()}

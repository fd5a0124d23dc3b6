"""A folder in which descriptions are made dictionary by dictionary, and gone on with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from circuit_toolkit.activations.store.fingerprints import dictionary_fingerprint, model_inputs
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import FileFormatError
from circuit_toolkit.features.descriptions.tables import SiteTables, check_tables
from circuit_toolkit.files.documents import plain
from circuit_toolkit.files.folder import FolderKind, ResumableFolder, differences
from circuit_toolkit.files.reading import read_npz
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site

KIND = FolderKind(
    holds="descriptions",
    form="circuit_toolkit.weight_lens_folder",
    version=1,
    again="`describe` with the same inputs and store= makes it anew.",
    manifest="weight_lens.json",
)
ANSWERS = "answers"  # folder in it, of an explainer
BY_SITE = ("dictionaries", "dictionary_weights")  # in order of computation


def inputs_of(
    model: Model, dictionaries: Mapping[Site, Dictionary], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what tables depend on: with the same inputs they have the same bits."""
    weights = {str(site): dictionary_fingerprint(each) for site, each in dictionaries.items()}
    aside = ("language", "largest_group")  # of words, and of warnings
    kept = {name: value for name, value in settings.items() if name not in aside}
    return plain({**kept, **model_inputs(model), "dictionary_weights": weights}, "inputs")


class Progress:
    """What is there of some tables; nothing is kept without a folder."""

    def __init__(self, folder: ResumableFolder | None = None):
        self.folder = folder

    def read(self, site: Site, widths: Mapping[Site, int], n_tokens: int) -> SiteTables | None:
        """Return the tables of a dictionary, or None where they are still to be made."""
        name = f"{site}.npz"
        if self.folder is None or name not in self.folder.files:
            return None
        path = self.folder.checked(name)
        found = read_npz(path, f"Delete it. {KIND.again}")
        try:
            arrays: Any = {each.name: found[each.name] for each in fields(SiteTables)}
            tables = SiteTables(**arrays | {name: str(arrays[name]) for name in ("kind", "name")})
            check_tables(tables, list(widths).index(site), list(widths.values()), n_tokens)
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError(
                f"{path} holds no tables ({error}). Delete it. {KIND.again}"
            ) from error
        return tables

    def write(self, site: Site, tables: SiteTables) -> None:
        """Keep the tables of a dictionary."""
        arrays: Any = {n.name: np.asarray(getattr(tables, n.name)) for n in fields(tables)}

        def save(part: Path) -> None:
            with part.open("wb") as file:
                np.savez(file, **arrays)

        if self.folder is not None:
            self.folder.write(f"{site}.npz", save)


@contextmanager
def progress_in(
    path: str | os.PathLike | None, inputs: Callable[[], dict[str, Any]]
) -> Iterator[Progress]:
    """Begin in a folder, or go on in one, while no other process does."""
    if path is None:
        yield Progress()
        return
    here = inputs()
    with ResumableFolder.opened(path, KIND, {"inputs": here}, differing=_differing) as folder:
        there = folder.content["inputs"]
        longer = max(there, here, key=lambda each: len(each["dictionaries"]))
        folder.content["inputs"] = longer
        yield Progress(folder)


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Name what differs; of dictionaries, those that both have from the first on must agree."""
    n = min(len(each.get(BY_SITE[0], {})) for each in (there, here))
    cut = [
        {**each, **{name: dict(list(each.get(name, {}).items())[:n]) for name in BY_SITE}}
        for each in (there, here)
    ]
    return differences(*cut)

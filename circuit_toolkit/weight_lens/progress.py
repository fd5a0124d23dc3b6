"""A folder in which descriptions are made dictionary by dictionary, and gone on with."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from circuit_toolkit.activations.store.fingerprints import dictionary_fingerprint, model_fingerprint
from circuit_toolkit.activations.store.shards import PART, sha256_of, write_whole
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import FileFormatError, InputError, MismatchError
from circuit_toolkit.features.descriptions.tables import TABLES, SiteTables
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site

NAME = "weight_lens.json"
FORMAT = "circuit_toolkit.weight_lens"
SCHEMA_VERSION = 1
BY_SITE = ("dictionaries", "dictionary_weights")  # in order of computation
_AGAIN = "Delete it, and `describe` with the same inputs and store= makes it anew."


def inputs_of(
    model: Model, dictionaries: Mapping[Site, Dictionary], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what tables depend on: with the same inputs they have the same bits."""
    weights = {str(site): dictionary_fingerprint(each) for site, each in dictionaries.items()}
    aside = ("language", "largest_group")  # of words, and of warnings
    kept = {name: value for name, value in settings.items() if name not in aside}
    inputs = {**kept, "model_weights": model_fingerprint(model), "dictionary_weights": weights}
    return json.loads(json.dumps(inputs))


@dataclass
class Progress:
    """What is there of some tables; nothing is kept without a folder."""

    folder: Path | None
    inputs: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def opened(cls, folder: str | os.PathLike | None, inputs: Callable[[], dict]) -> Progress:
        """Begin in a folder, or go on in one."""
        if folder is None:
            return cls(None, {})
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InputError(f"{folder} names a file. Pass a folder as store=.") from None
        if not (folder / NAME).is_file():
            names = {path.name for path in folder.iterdir() if not path.name.endswith(PART)}
            if foreign := sorted(names):
                raise InputError(
                    f"{folder} holds {foreign[0]!r} and no descriptions. Pass a new folder, or an "
                    "empty one."
                )
            new = cls(folder, inputs())
            new._list()
            return new
        listed, here = _read(folder / NAME), inputs()
        there = listed["inputs"]
        if differ := _differing(there, here):
            raise MismatchError(
                f"{folder} holds descriptions of other inputs: {', '.join(differ)} differ. Pass "
                "the same to go on with them, or another folder."
            )
        longer = max(there, here, key=lambda each: len(each["dictionaries"]))
        return cls(folder, longer, listed["files"])

    def read(self, site: Site) -> SiteTables | None:
        """Return the tables of a dictionary, or None where they are still to be made."""
        name = f"{site}.npz"
        if self.folder is None or name not in self.files or not (self.folder / name).exists():
            return None
        path = self.folder / name
        if sha256_of(path) != self.files[name]:
            raise FileFormatError(f"{path} is damaged, or of other descriptions. {_AGAIN}")
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays: Any = {each.name: file[each.name] for each in fields(SiteTables)}
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            raise FileFormatError(f"{path} holds no tables ({error}). {_AGAIN}") from error
        if any(arrays[table].dtype != dtype for table, dtype in TABLES.items()):
            raise FileFormatError(f"{path} is of another version. {_AGAIN}")
        return SiteTables(**arrays | {name: str(arrays[name]) for name in ("kind", "name")})

    def write(self, site: Site, tables: SiteTables) -> None:
        """Keep the tables of a dictionary."""
        if self.folder is None:
            return
        arrays: Any = {n.name: np.asarray(getattr(tables, n.name)) for n in fields(tables)}
        path = self.folder / f"{site}.npz"

        def save(part: Path) -> None:
            with part.open("wb") as file:
                np.savez(file, **arrays)

        write_whole(path, save)
        self.files[path.name] = sha256_of(path)
        self._list()

    def _list(self) -> None:
        assert self.folder is not None
        content = {"inputs": self.inputs, "files": self.files}
        document = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "sha256": digest(content)}
        text = json.dumps({**document, "content": content}, indent=1)
        write_whole(self.folder / NAME, partial(write_text, text))


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Name what differs; of dictionaries, those that both have from the first on must agree."""
    found = []
    for name in sorted({*there, *here}):
        a, b = there.get(name), here.get(name)
        if name in BY_SITE and isinstance(a, dict) and isinstance(b, dict):
            n = min(len(a), len(b))
            a, b = list(a.items())[:n], list(b.items())[:n]
        if a != b:
            found.append(name)
    return found


def write_text(text: str, path: Path) -> None:
    """Write a text as UTF-8."""
    path.write_text(text, "utf-8")


def digest(content: Any) -> str:
    """Checksum of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def checked(document: Any, name: str, path: Path, remedy: str) -> Any:
    """Return the content of a document of ours, after a look at format, version and checksum."""
    if not isinstance(document, dict) or document.get("format") != name:
        raise FileFormatError(f"{path} does not hold what it should: no {name!r}. {remedy}")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise FileFormatError(
            f"{path} has schema version {document.get('schema_version')!r}; this release reads "
            f"version {SCHEMA_VERSION}. Use the release of circuit_toolkit that wrote it."
        )
    content = document.get("content")
    if document.get("sha256") != digest(content):
        raise FileFormatError(f"{path} is damaged: its checksum differs. {remedy}")
    return content


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise FileFormatError(f"{path} is damaged: no JSON. Pass another folder.") from error
    return checked(document, FORMAT, path, "Pass another folder.")

"""The manifest of a store: what was captured, and which shards there are of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from circuit_toolkit.activations.store.shards import Shard, write_whole
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.sites import Site

NAME = "manifest.json"
FORMAT = "circuit_toolkit.activations"
SCHEMA_VERSION = 1


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
    shards: Mapping[str, Shard] = field(default_factory=dict)

    def having(self, shards: Mapping[str, Shard]) -> Manifest:
        """Replace the table of shards, in the order of their names."""
        ordered = sorted(shards, key=lambda name: (len(name), name))  # 100000 after 99999
        return replace(self, shards={name: shards[name] for name in ordered})

    @property
    def complete(self) -> bool:
        """Whether all shards are there."""
        return len(self.shards) == self.header.n_shards


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a manifest whole or not at all."""
    content = {
        **asdict(manifest.header),
        "shards": {name: shard.as_dict() for name, shard in manifest.shards.items()},
    }
    try:
        content = json.loads(json.dumps(content, default=_plain))
    except TypeError as error:
        raise InputError(
            f"The settings cannot be written as JSON: {error}. Replace them before saving."
        ) from error
    document = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "sha256": _digest(content),
        "content": content,
    }

    def write(part: Path) -> None:
        part.write_text(json.dumps(document, indent=1), encoding="utf-8")

    write_whole(folder / NAME, write)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a store."""
    path = folder / NAME
    if not path.is_file():
        raise FileFormatError(
            f"{folder} is no store of activations: it has no {NAME}. Pass a folder that "
            "capture(..., store=) or Activations.save wrote."
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileFormatError(f"{path} is damaged: it is not JSON ({error}). {_LOST}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FileFormatError(
            f"{path} is not of a store of activations: its `format` is not {FORMAT!r}. Pass a "
            "folder that capture(..., store=) or Activations.save wrote."
        )
    if document.get("schema_version") != SCHEMA_VERSION:
        raise FileFormatError(
            f"{path} has schema version {document.get('schema_version')!r}; this release reads "
            f"version {SCHEMA_VERSION}. Use the release of circuit_toolkit that wrote it."
        )
    content = document.get("content")
    if not isinstance(content, dict) or document.get("sha256") != _digest(content):
        raise FileFormatError(f"{path} is damaged: its checksum differs. {_LOST}")
    shards = {name: Shard(**shard) for name, shard in content.pop("shards").items()}
    return Manifest(Header(**content), shards)


def sites_of(header: Header) -> dict[Site, int]:
    """Sites of a store and their numbers of features."""
    return {Site.parse(name): width for name, width in header.sites.items()}


_LOST = "Without it the shards cannot be trusted: capture into another folder."


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} is a {type(value).__name__}")

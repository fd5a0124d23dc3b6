"""The manifest of a store: what was captured, and which shards there are of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from circuit_toolkit.activations.store.shards import AGAIN, Shard
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.folder import FolderKind, ResumableFolder
from circuit_toolkit.sites import Site

KIND = FolderKind("activations", "circuit_toolkit.activations", 1, AGAIN, listing="shards")


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

"""A store being written: its manifest, then shard by shard by one process at a time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.store.shards import AGAIN, shard_name, widths, write_shard
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.files.folder import FolderKind, ResumableFolder, replacing, written
from circuit_toolkit.models.versions import versions
from circuit_toolkit.sites import Site

KIND = FolderKind("activations", "circuit_toolkit.activations", 1, AGAIN, listing="shards")
SAVED_PROMPTS = 1024  # in a shard of activations that were in memory


def check_manifest(folder: ResumableFolder) -> None:
    """Refuse a folder whose manifest describes no activations."""
    from jsonschema import ValidationError, validate

    schema = Path(__file__).with_name("manifest_schema.json").read_text(encoding="utf-8")
    try:
        validate(folder.content, json.loads(schema))
        for name in folder.content["sites"]:
            Site.parse(name)
    except (InputError, ValidationError) as error:
        raise FileFormatError(
            f"{folder.path / KIND.manifest} describes no activations "
            f"({str(error).partition(chr(10))[0]}). {AGAIN}"
        ) from error


def add_shard(folder: ResumableFolder, index: int, acts: Activations) -> None:
    """Write one shard, and list it."""
    folder.enter(shard_name(index), write_part(folder.path, index, acts))


def write_part(folder: Path, index: int, acts: Activations) -> dict[str, Any]:
    """Write one shard, and return what the manifest says of it."""
    counts = {"nbytes": acts.nbytes, "prompts": acts.n_prompts, "rows": len(acts.prompt)}
    return {**written(folder / shard_name(index), lambda part: write_shard(part, acts)), **counts}


def save_activations(acts: Activations, path: str | os.PathLike) -> Path:
    """Write activations to a folder, whole or not at all, see `Activations.save`."""
    step = SAVED_PROMPTS
    if (np.diff(acts.prompt) < 0).any():  # prompts are mixed: cutting would change their order
        step = max(1, acts.n_prompts)
    starts = range(0, max(1, acts.n_prompts), step)
    content = {
        "inputs": {},
        "made_with": versions(),
        "settings": dict(acts.settings),
        "sites": widths(acts),
        "n_prompts": acts.n_prompts,
        "n_shards": len(starts),
    }
    with replacing(path) as new, ResumableFolder.opened(new, KIND, content) as there:
        for index, start in enumerate(starts):
            add_shard(there, index, acts.part(start, start + step))
    return resolved(path)

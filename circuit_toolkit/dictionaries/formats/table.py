"""The table of formats: by which file each is known, and what reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from circuit_toolkit.dictionaries.entry import Entry, Said
from circuit_toolkit.dictionaries.formats import (
    circuit_tracer,
    dictionary_learning,
    gemma_scope,
    sparsify,
)
from circuit_toolkit.errors import InputError

_DEEPEST = 3  # folders within each other: layer_20/width_16k/average_l0_71


@dataclass(frozen=True)
class Format:
    """A format of others, known by a file in its folder."""

    name: str
    file: str
    entries: Callable[[Path, str, Said], list[Entry]]  # of such a file, called by its folder


FORMATS = (
    Format("EleutherAI sparsify", "sae.safetensors", sparsify.entries),
    Format("dictionary_learning", "ae.pt", dictionary_learning.entries),
    Format("Gemma Scope", "params.npz", gemma_scope.entries),
    Format("Gemma Scope 2", "params.safetensors", gemma_scope.entries_2),
    Format("circuit-tracer", "config.yaml", circuit_tracer.entries),
)


def found_in(path: Path, said: Said) -> list[Entry]:
    """List the dictionaries of other formats in a folder, or the one that a file is."""
    if path.is_file():
        by_name = {each.file: each for each in FORMATS}
        known = by_name.get(path.name)
        return known.entries(path, path.parent.name, said) if known else []
    for depth in range(_DEEPEST + 1):
        found: list[Entry] = []
        for each in FORMATS:
            for file in sorted(path.glob("*/" * depth + each.file)):
                folder = file.parent
                name = folder.relative_to(path).as_posix() if depth else folder.absolute().name
                found += each.entries(file, name, said)
        if found:
            return found
    return []


def refuse_cross_layer(path: Path) -> None:
    """Name a folder of cross-layer transcoders of circuit-tracer without its settings."""
    if path.is_dir() and (path / "W_enc_0.safetensors").is_file():
        raise InputError(
            f"{str(path)!r} is a cross-layer transcoder: its features write to all layers above, "
            "and the toolkit's to one site. Load a set of transcoders of one layer each."
        )

"""The files of a known circuit: their contents, checked, with errors that say what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.benchmark.interpbench.case_prompts import CasePrompts
from circuit_toolkit.errors import FileFormatError
from circuit_toolkit.models.graph import Graph

Edge = tuple[str, str]
_SIZES = {  # entry of config.json -> weight, and which of its axes
    "n_heads": ("blocks.0.attn.W_Q", 0),
    "d_model": ("embed.W_E", 1),
    "d_head": ("blocks.0.attn.W_Q", 2),
    "d_mlp": ("blocks.0.mlp.W_in", 1),
    "n_ctx": ("pos_embed.W_pos", 0),
    "d_vocab": ("embed.W_E", 0),
    "d_vocab_out": ("unembed.W_U", 1),
}


def check_edges(
    graph: Graph, universe: Sequence, true: Sequence, source: str
) -> tuple[tuple[Edge, ...], tuple[Edge, ...]]:
    """Check edges against the components of a model."""
    possible = set(graph.edges)
    lists = [[tuple(edge) for edge in edges] for edges in (universe, true)]
    for what, edges in zip(("universe_edges", "edges"), lists, strict=True):
        wrong = [edge for edge in edges if edge not in possible]
        if wrong or len(set(edges)) < len(edges):
            fault = f"{wrong[0]} is no edge of this model" if wrong else "an edge is there twice"
            raise FileFormatError(f"{source!r}: in {what} {fault}.")
    outside = set(lists[1]) - set(lists[0])
    if outside or not lists[0]:
        fault = f"{min(outside)} is not among" if outside else "there are no"
        raise FileFormatError(f"{source!r}: {fault} universe_edges.")
    chosen = set(lists[1])
    return tuple(lists[0]), tuple(edge for edge in lists[0] if edge in chosen)


def read_config(path: Path) -> dict[str, Any]:
    """Read `config.json`: an object with the entries that are needed, of the right kinds."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError is one too
        raise FileFormatError(f"{str(path)!r} is no JSON file. Cause: {error}") from error
    wanted = {
        **dict.fromkeys(["n_layers", *_SIZES], int),
        "act_fn": str,
        "causal": bool,
        "input_vocab": list,
        "output_type": str,
        "scored_positions": list,
        "circuit": dict,
    }
    if not isinstance(config, dict):
        raise FileFormatError(f"{str(path)!r} holds no object.")
    for key, kind in wanted.items():
        if not isinstance(config.get(key), kind):
            given = repr(config[key])[:40] if key in config else "nothing"
            raise FileFormatError(f"{str(path)!r}: {key} must be {kind.__name__}, got {given}.")
    for key in ("universe_edges", "edges"):
        pairs = config["circuit"].get(key)
        if not isinstance(pairs, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, str) for x in pair)
            for pair in pairs
        ):
            raise FileFormatError(f"{str(path)!r}: circuit.{key} must be a list of pairs of names.")
    if config["output_type"] not in ("categorical", "numerical"):
        raise FileFormatError(
            f"{str(path)!r}: output_type must be categorical or numerical, "
            f"got {config['output_type']!r}."
        )
    if config.get("normalization") is not None or config.get("attn_scale", "1/sqrt(d_head)") != (
        "1/sqrt(d_head)"
    ):
        raise FileFormatError(
            f"{str(path)!r}: only models without norms, with scores divided by sqrt(d_head), are "
            f"read; got normalization {config.get('normalization')!r} and attn_scale "
            f"{config.get('attn_scale')!r}."
        )
    return config


def check_sizes(config: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Check the sizes that the configuration states against the weights."""
    found = {"n_layers": sum(key.endswith("attn.W_Q") for key in tensors)}
    for key, (weight, axis) in _SIZES.items():
        if weight in tensors and tensors[weight].ndim > axis:
            found[key] = tensors[weight].shape[axis]
    for key, size in found.items():
        if config[key] != size:
            raise FileFormatError(
                f"{str(folder)!r}: config.json says {key} = {config[key]}, the weights say {size}."
            )
    vocabulary = len(config["input_vocab"])
    if vocabulary > config["d_vocab"]:
        raise FileFormatError(
            f"{str(folder)!r}: input_vocab has {vocabulary} words, the model {config['d_vocab']}."
        )
    for key in ("bos_id", "pad_id"):
        if config.get(key) is not None and config[key] not in range(vocabulary):
            raise FileFormatError(f"{str(folder)!r}: {key} = {config[key]} is in no vocabulary.")


def read_data(path: Path, name: str, config: Mapping[str, Any]) -> CasePrompts:
    """Read `data.npz`: prompts, corrupted prompts and labels that fit the configuration."""
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {key: file[key] for key in file.files}
    except (ValueError, OSError, BadZipFile) as error:
        raise FileFormatError(f"{str(path)!r} is damaged or no npz file. Cause: {error}") from error
    wanted = ["clean", "corrupted", "clean_labels", "corrupted_labels"]
    shapes = {key: data[key].shape for key in wanted if key in data}
    shape = shapes.get("clean", ())
    if len(shapes) < 4 or len(set(shapes.values())) > 1 or len(shape) != 2 or not shape[0]:
        raise FileFormatError(
            f"{str(path)!r} must hold {', '.join(wanted)} of one shape (prompts, tokens), got "
            f"{shapes}."
        )
    first, last = _scored_positions(config["scored_positions"], shape[1], path)
    if shape[1] > config["n_ctx"]:
        raise FileFormatError(
            f"{str(path)!r}: prompts of {shape[1]} tokens, the model takes {config['n_ctx']}."
        )
    numerical = config["output_type"] == "numerical"
    limits = {"clean": config["d_vocab"], "corrupted": config["d_vocab"]}
    if not numerical:
        limits |= dict.fromkeys(wanted[2:], config["d_vocab_out"])
    for key, limit in limits.items():
        values = data[key][:, first : last + 1] if key.endswith("labels") else data[key]
        if values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= limit:
            raise FileFormatError(
                f"{str(path)!r}: {key} must hold integers from 0 to {limit - 1}, got "
                f"{values.dtype} from {values.min()} to {values.max()}."
            )
    kind = np.float32 if numerical else np.int64
    right, other = (torch.from_numpy(data[key].astype(kind)) for key in wanted[2:])
    if numerical and not all(x[:, first : last + 1].isfinite().all() for x in (right, other)):
        raise FileFormatError(f"{str(path)!r}: labels hold NaN or infinity.")
    clean, corrupted = (tuple(map(tuple, data[key].tolist())) for key in wanted[:2])
    return CasePrompts(name, clean, corrupted, right, other, first, last)


def _scored_positions(given: list, length: int, path: Path) -> tuple[int, int]:
    """First and last position that is scored."""
    if (
        len(given) == 2
        and all(isinstance(x, int) for x in given)
        and 0 <= given[0] <= given[1] < length
    ):
        return given[0], given[1]
    raise FileFormatError(
        f"{str(path.parent / 'config.json')!r}: scored_positions must be the first and the last, "
        f"from 0 to {length - 1}, got {given!r:.60}."
    )

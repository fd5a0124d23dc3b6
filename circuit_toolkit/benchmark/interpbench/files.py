"""The files of a known circuit: their contents, checked, with errors that say what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.benchmark.interpbench.case_prompts import CasePrompts
from circuit_toolkit.errors import FileFormatError
from circuit_toolkit.files.reading import read_json, read_npz
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
_KINDS = {
    **dict.fromkeys(["n_layers", *_SIZES], int),
    **{"act_fn": str, "causal": bool, "input_vocab": list, "output_type": str},
    **{"scored_positions": list, "circuit": dict},
}
AGAIN = "Get the case again from where it came from."
_SCALE = "1/sqrt(d_head)"


def need(fits: Any, path: Path, fault: str) -> None:
    """Refuse a file that does not fit."""
    if not fits:
        raise FileFormatError(f"{str(path)!r}: {fault}.")


def check_edges(
    graph: Graph, universe: Sequence, true: Sequence, path: Path
) -> tuple[tuple[Edge, ...], tuple[Edge, ...]]:
    """Check edges against the components of a model."""
    possible, counted = set(graph.edges), [tuple(edge) for edge in universe]
    chosen = [tuple(edge) for edge in true]
    for what, edges in (("universe_edges", counted), ("edges", chosen)):
        for edge in edges:
            need(edge in possible, path, f"in {what} {edge} is no edge of this model")
        need(len(set(edges)) == len(edges), path, f"in {what} an edge is there twice")
    need(counted, path, "there are no universe_edges")
    for edge in chosen:
        need(edge in counted, path, f"{edge} is not among universe_edges")
    return tuple(counted), tuple(edge for edge in counted if edge in chosen)


def read_config(path: Path) -> dict[str, Any]:
    """Read `config.json`: an object with the entries that are needed, of the right kinds."""
    config = read_json(path, AGAIN)
    need(isinstance(config, dict), path, "it holds no object")
    for key, kind in _KINDS.items():
        given = repr(config[key])[:40] if key in config else "nothing"
        fits = isinstance(config.get(key), kind)
        need(fits, path, f"{key} must be {kind.__name__}, got {given}")
    for key in ("universe_edges", "edges"):
        pairs = config["circuit"].get(key)
        fits = isinstance(pairs, list) and all(
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, str) for x in pair)
            for pair in pairs
        )
        need(fits, path, f"circuit.{key} must be a list of pairs of names")
    kind = config["output_type"]
    fits = kind in ("categorical", "numerical")
    need(fits, path, f"output_type must be categorical or numerical, got {kind!r}")
    norm, scale = config.get("normalization"), config.get("attn_scale", _SCALE)
    need(
        norm is None and scale == _SCALE,
        path,
        "only models without norms, with scores divided by sqrt(d_head), are read; got "
        f"normalization {norm!r} and attn_scale {scale!r}",
    )
    return config


def check_sizes(config: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Check the sizes that the configuration states against the weights."""
    found = {"n_layers": sum(key.endswith("attn.W_Q") for key in tensors)}
    for key, (weight, axis) in _SIZES.items():
        if weight in tensors and tensors[weight].ndim > axis:
            found[key] = tensors[weight].shape[axis]
    for key, size in found.items():
        need(config[key] == size, path, f"{key} = {config[key]}, the weights say {size}")
    words, size = len(config["input_vocab"]), config["d_vocab"]
    need(words <= size, path, f"input_vocab has {words} words, the model {size}")
    for key in ("bos_id", "pad_id"):
        token = config.get(key)
        fits = token is None or token in range(words)
        need(fits, path, f"{key} = {token} is in no vocabulary")


def read_data(path: Path, name: str, config: Mapping[str, Any]) -> CasePrompts:
    """Read `data.npz`: prompts, corrupted prompts and labels that fit the configuration."""
    data = read_npz(path, AGAIN)
    wanted = ["clean", "corrupted", "clean_labels", "corrupted_labels"]
    shapes = {key: data[key].shape for key in wanted if key in data}
    shape = shapes.get("clean", ())
    fits = len(shapes) == 4 and len(set(shapes.values())) == 1 and len(shape) == 2 and shape[0]
    names = ", ".join(wanted)
    need(fits, path, f"must hold {names} of one shape (prompts, tokens), got {shapes}")
    length, most = shape[1], config["n_ctx"]
    first, last = _scored_positions(config["scored_positions"], length, path.parent / "config.json")
    need(length <= most, path, f"prompts of {length} tokens, the model takes {most}")
    numerical = config["output_type"] == "numerical"
    limits = {key: int(config["d_vocab"]) for key in wanted[:2]}
    if not numerical:
        limits |= {key: int(config["d_vocab_out"]) for key in wanted[2:]}
    for key, limit in limits.items():
        values = data[key][:, first : last + 1] if key.endswith("labels") else data[key]
        fits = values.dtype.kind in "iu" and 0 <= values.min() <= values.max() < limit
        got = f"{values.dtype} from {values.min()} to {values.max()}"
        need(fits, path, f"{key} must hold integers from 0 to {limit - 1}, got {got}")
    kind = np.float32 if numerical else np.int64
    right, other = (torch.from_numpy(data[key].astype(kind)) for key in wanted[2:])
    fits = all(x[:, first : last + 1].isfinite().all() for x in (right, other))
    need(fits, path, "labels hold NaN or infinity")
    clean, corrupted = (tuple(map(tuple, data[key].tolist())) for key in wanted[:2])
    return CasePrompts(name, clean, corrupted, right, other, first, last)


def _scored_positions(given: list, length: int, path: Path) -> tuple[int, int]:
    """First and last position that is scored."""
    fits = len(given) == 2 and all(isinstance(x, int) for x in given)
    need(
        fits and 0 <= given[0] <= given[1] < length,
        path,
        f"scored_positions must be the first and the last, from 0 to {length - 1}, got {given!r}",
    )
    return given[0], given[1]

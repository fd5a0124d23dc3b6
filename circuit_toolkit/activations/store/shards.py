"""One shard: activations of some prompts as a safetensors file, checked in full on reading."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations.activations import MEAN, Activations
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.folder import check_listed
from circuit_toolkit.files.reading import parsed_json, read_arrays
from circuit_toolkit.sites import Site

OPTIONAL = ("metric", "directions")
AGAIN = "`capture` with the same inputs and store= makes it anew."
_PARTS = ("data", "indices", "indptr")
_PIECE = 2**16  # entries that are looked at together


def shard_name(index: int) -> str:
    """Return the name of the file of a shard."""
    return f"shard-{index:05d}.safetensors"


def widths(acts: Activations) -> dict[str, int]:
    """Return the number of features at each site."""
    each: Any = acts.features.items()  # scipy's stub says that a shape may be None
    return {str(site): matrix.shape[1] for site, matrix in each}


def packed(acts: Activations) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return activations as arrays by name, and the texts and sizes that go with them."""
    try:
        _check(acts)
    except ValueError as error:
        raise InputError(f"These activations cannot be written: {error}.") from error
    arrays = {"prompt": acts.prompt, "position": acts.position, "groups": acts.groups}
    arrays |= {name: getattr(acts, name) for name in OPTIONAL if getattr(acts, name) is not None}
    arrays |= {f"named.{name}": values for name, values in acts.named.items()}
    for site, matrix in acts.features.items():
        arrays |= {f"{site}.{part}": getattr(matrix, part) for part in _PARTS}
    words = {
        "tokens": acts.tokens,
        "labels": {name: np.asarray(values).tolist() for name, values in acts.labels.items()},
        "named": list(acts.named),  # a file keeps its arrays in another order
        "features": widths(acts),
    }
    if acts.texts is not None:
        words["texts"] = acts.texts
    return {name: np.ascontiguousarray(values) for name, values in arrays.items()}, words


def unpacked(
    arrays: Mapping[str, np.ndarray], words: Mapping[str, Any], settings: Mapping[str, Any]
) -> Activations:
    """Return what was packed; ValueError, KeyError, TypeError or AttributeError if it was not."""
    rows = len(arrays["prompt"])
    acts = Activations(
        features={
            Site.parse(name): sparse([arrays[f"{name}.{part}"] for part in _PARTS], rows, width)
            for name, width in words["features"].items()
        },
        prompt=arrays["prompt"],
        position=arrays["position"],
        tokens=words["tokens"],
        groups=arrays["groups"],
        **{name: arrays.get(name) for name in OPTIONAL},
        labels={name: np.array(values) for name, values in words["labels"].items()},
        named={name: arrays[f"named.{name}"] for name in words["named"]},
        settings=dict(settings),
        texts=words.get("texts"),
    )
    _check(acts)
    return acts


def write_shard(path: Path, acts: Activations) -> None:
    """Write the activations of some prompts."""
    from safetensors.numpy import save_file

    arrays, words = packed(acts)
    # As an array: a header of safetensors has a largest size, and an order that is left to chance.
    arrays["json"] = np.frombuffer(json.dumps(words).encode(), np.uint8)
    save_file(arrays, path)


def read_shard(path: Path, shard: Mapping[str, Any], settings: Mapping[str, Any]) -> Activations:
    """Read the activations of some prompts, after a look at the checksum and at every array."""
    check_listed(path, shard["sha256"], shard["bytes"], AGAIN)
    arrays = read_arrays(path, AGAIN)
    try:
        words = parsed_json(arrays["json"].tobytes(), f"{path}", AGAIN)
        acts = unpacked(arrays, words, settings)
        sizes = len(acts.prompt), acts.n_prompts
        require(sizes == (shard["rows"], shard["prompts"]), "its size is another one")
    # InputError is a ValueError.
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise FileFormatError(
            f"{path} is no shard of activations ({type(error).__name__}: {error}). Delete it. "
            f"{AGAIN}"
        ) from error
    return acts


def require(holds: Any, otherwise: str) -> None:
    """Raise ValueError unless something holds."""
    if not holds:
        raise ValueError(otherwise)


def sparse(parts: list[np.ndarray], rows: int, width: int) -> sp.csr_array:
    """Return a sparse matrix whose parts fit each other: code in C trusts them."""
    data, indices, indptr = parts
    require(type(width) is int and 0 <= width < 2**31, f"there cannot be {width!r} features")
    require(indices.dtype.kind == indptr.dtype.kind == "i", "indices must be whole numbers")
    require(indptr.shape == (rows + 1,), "indptr must have an entry more than rows")
    require(data.ndim == 1 and indices.shape == data.shape, "data and indices differ in shape")
    require(indptr[0] == 0 and indptr[-1] == len(data), "indptr must go from 0 to the end")
    require((indptr[:-1] <= indptr[1:]).all(), "indptr must not decrease")
    require(within(indices, 0, width), f"indices must be from 0 to {width - 1}")
    return sp.csr_array((data, indices, indptr), shape=(rows, width))


def _check(acts: Activations) -> None:
    """Raise ValueError for what no capture gives: all arrays, but the structure of matrices."""
    n, rows = acts.n_prompts, len(acts.prompt)
    for site, matrix in acts.features.items():
        require(matrix.dtype in (np.float32, np.float64), f"{site} must hold float numbers")
        require(np.isfinite(matrix.data).all(), f"{site} holds NaN or infinity")
        require(_is_single(matrix), f"{site} holds a feature of a row twice")
    require(
        isinstance(acts.tokens, list)
        and all(isinstance(words, list) for words in acts.tokens)
        and all(isinstance(word, str) for words in acts.tokens for word in words),
        "tokens must be lists of texts",
    )
    require(
        acts.texts is None
        or (isinstance(acts.texts, list) and all(isinstance(text, str) for text in acts.texts)),
        "the prompts must be texts",
    )
    lengths = np.array([len(words) for words in acts.tokens], dtype=int)
    _check_whole("prompt", acts.prompt, rows, 0, n)
    _check_whole("position", acts.position, rows, MEAN, lengths[acts.prompt] if rows else 0)
    _check_whole("groups", acts.groups, n)
    for name, values in acts.named.items():
        _check_whole(f"the position {name}", values, n, 0, lengths)
    if acts.directions is not None:
        _check_whole("directions", acts.directions, n, -1, 2)
        require(np.all(acts.directions), "directions must be 1 or -1")
    if (metric := acts.metric) is not None:
        fine = metric.shape == (n,) and metric.dtype.kind == "f" and np.isfinite(metric).all()
        require(fine, "metric must be a finite number for each prompt")
    for name, values in acts.labels.items():
        plain = np.array(np.asarray(values).tolist())
        fine = plain.shape == (n,) and plain.dtype != object
        require(fine, f"{name} must be a text or a number for each prompt")


def _check_whole(name: str, values: Any, n: int, low: Any = -np.inf, end: Any = np.inf) -> None:
    """Raise ValueError for other than n whole numbers in [low, end)."""
    values = np.asarray(values)
    fine = values.dtype.kind in "iu" and values.shape == (n,)
    require(fine, f"{name} must be a whole number for each of {n}")
    require(within(values, low, end), f"{name} is out of range")


def _is_single(matrix: sp.csr_array) -> bool:
    """Return whether no row holds a column twice; unsorted columns, as of products, are fine."""
    step = 1 + _PIECE * len(matrix.indptr) // max(1, matrix.nnz)  # rows
    for start in () if matrix.has_canonical_format else range(0, len(matrix.indptr), step):
        piece = sp.csr_array(matrix[start : start + step])
        n = piece.nnz
        piece.sum_duplicates()
        if piece.nnz != n:
            return False
    return True


def within(values: np.ndarray, low: int, end: Any) -> bool:
    """Return whether all values are at least `low`, and below `end`."""
    return bool(((values >= low) & (values < end)).all())

"""One shard: activations of some prompts as a safetensors file, with a checksum beside it."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.errors import FileFormatError
from circuit_toolkit.sites import Site

PART = ".part"  # ending of a file that is being written
OPTIONAL = ("metric", "directions")


@dataclass(frozen=True)
class Shard:
    """What the manifest knows of a shard."""

    sha256: str
    bytes: int
    nbytes: int
    prompts: int
    rows: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as the manifest holds it."""
        return asdict(self)


def shard_name(index: int) -> str:
    """Return the name of the file of a shard."""
    return f"shard-{index:05d}.safetensors"


def sha256_of(path: Path) -> str:
    """Checksum of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PART}")
    try:
        part.touch(exist_ok=False)
        mode = part.stat().st_mode  # as the user wants files; safetensors would hide its own
        write(part)
        part.chmod(mode)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def widths(acts: Activations) -> dict[str, int]:
    """Return the number of features at each site."""
    found = {}
    for site, matrix in acts.features.items():
        _, found[str(site)] = matrix.shape  # type: ignore[misc]  # scipy's stub says it may be None
    return found


def write_shard(path: Path, acts: Activations) -> Shard:
    """Write the activations of some prompts."""
    from safetensors.numpy import save_file

    arrays = {"prompt": acts.prompt, "position": acts.position, "groups": acts.groups}
    arrays |= {name: getattr(acts, name) for name in OPTIONAL if getattr(acts, name) is not None}
    arrays |= {f"named.{name}": values for name, values in acts.named.items()}
    for site, matrix in acts.features.items():
        for part in ("data", "indices", "indptr"):
            arrays[f"{site}.{part}"] = getattr(matrix, part)
    words = {
        "tokens": acts.tokens,
        "labels": {name: np.asarray(values).tolist() for name, values in acts.labels.items()},
        "named": list(acts.named),  # a file keeps its arrays in another order
        "features": widths(acts),
    }
    # As an array: a header of safetensors has a largest size, and an order that is left to chance.
    arrays["json"] = np.frombuffer(json.dumps(words).encode(), np.uint8)
    contiguous = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    write_whole(path, lambda part: save_file(contiguous, part))
    return Shard(
        sha256_of(path), path.stat().st_size, acts.nbytes, acts.n_prompts, len(acts.prompt)
    )


def check_shard(path: Path, shard: Shard) -> None:
    """Refuse a file that is not the one that was written."""
    if not path.is_file():
        raise FileFormatError(f"{path} is missing. {_AGAIN}")
    if path.stat().st_size != shard.bytes or sha256_of(path) != shard.sha256:
        raise FileFormatError(
            f"{path} is damaged, or of another store: it is not the file that was written there "
            f"(its checksum differs). Delete it. {_AGAIN}"
        )


def read_shard(path: Path, shard: Shard, settings: Mapping[str, Any]) -> Activations:
    """Read the activations of some prompts, after a look at the checksum."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    check_shard(path, shard)
    try:
        arrays = load_file(path)
        words = json.loads(arrays["json"].tobytes())
        features = {
            Site.parse(name): sp.csr_array(
                tuple(arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr")),
                shape=(len(arrays["prompt"]), width),
            )
            for name, width in words["features"].items()
        }
        return Activations(
            features=features,
            prompt=arrays["prompt"],
            position=arrays["position"],
            tokens=words["tokens"],
            groups=arrays["groups"],
            **{name: arrays.get(name) for name in OPTIONAL},
            labels={name: np.array(values) for name, values in words["labels"].items()},
            named={name: arrays[f"named.{name}"] for name in words["named"]},
            settings=dict(settings),
        )
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(
            f"{path} is no shard of activations ({type(error).__name__}: {error}). Delete it. "
            f"{_AGAIN}"
        ) from error


_AGAIN = "`capture` with the same inputs and store= makes it anew."

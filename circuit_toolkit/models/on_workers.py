"""A model on the workers of a Dask cluster: each loads it once, for as long as it is needed.

Who runs what, and again after a worker died, is left to Dask's scheduler.
"""

from __future__ import annotations

import platform
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from circuit_toolkit.cluster import memory_kept, same
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.files.folder import differences
from circuit_toolkit.files.scratch import scratch
from circuit_toolkit.models.carried import put_together, taken_apart
from circuit_toolkit.models.model import Model
from circuit_toolkit.models.versions import versions

_ONE = threading.Lock()  # piece at a time in a worker, which has all its threads


@dataclass(frozen=True, eq=False)
class Sent:
    """What holds a model, on a worker: while it does, what the first task loads stays loaded."""

    packed: bytes
    weights: Path
    versions: Mapping[str, str]

    @cached_property
    def value(self) -> Any:
        """What was sent; with other packages than the caller's it may be something else."""
        if differ := differences(self.versions, _versions()):
            raise MismatchError(
                f"A worker ({platform.node()}) has other packages than the caller (there): "
                f"{'; '.join(differ)}. They would not compute the same: install equal ones."
            )
        self.check_seen()
        return put_together(self.packed, self.weights)

    def check_seen(self) -> None:
        """Refuse to go on where the folder is not seen, or the caller is gone."""
        if not self.weights.is_file():
            raise InputError(
                f"A worker ({platform.node()}) does not see {self.weights.parent}, where the "
                "model's weights are while it is needed: the store's folder must be one that all "
                "machines mount, or what was run has ended."
            )

    def __getstate__(self) -> dict[str, Any]:
        """Return what travels: not what is loaded."""
        return {name: value for name, value in vars(self).items() if name != "value"}


@contextmanager
def on_workers(client: Any, value: Any, model: Model, folder: Path) -> Iterator[Any]:
    """Have workers hold what holds a model, by a file in a folder that they all see.

    Returns what tasks take for it, as the argument that they know as `Sent`.
    """
    with scratch(folder / "weights") as place:
        weights = place / "weights.safetensors"
        sent = Sent(taken_apart(value, model, weights), weights, _versions())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")  # a tokenizer may have 30 MB
            held = client.submit(same, sent, pure=False)
        try:
            yield held
        finally:
            client.cancel([held])


@contextmanager
def whole_worker() -> Iterator[None]:
    """Run one piece at a time, with as many threads as the worker has, whatever else is said."""
    from dask.distributed import get_worker

    with _ONE, memory_kept():
        before = torch.get_num_threads()
        torch.set_num_threads(get_worker().state.nthreads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **versions()}

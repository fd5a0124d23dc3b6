"""Capture on a Dask cluster: workers load the model once and write the shards of one store.

Who writes which shard, and again after a worker died, is left to Dask's scheduler. The caller
holds the store's lock, and alone lists in its manifest what was written.
"""

from __future__ import annotations

import platform
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from circuit_toolkit.activations.activations import joined
from circuit_toolkit.activations.batches import captured, shard_rows
from circuit_toolkit.activations.capture_plan import CapturePlan
from circuit_toolkit.activations.carried_plan import put_together, taken_apart
from circuit_toolkit.activations.store.shards import shard_name
from circuit_toolkit.activations.store.writer import KIND, versions, write_part
from circuit_toolkit.cluster import RETRIES, check_seen, memory_kept, same, threads_of
from circuit_toolkit.errors import InputError, MismatchError, ToolkitError
from circuit_toolkit.files.folder import ResumableFolder, differences
from circuit_toolkit.files.scratch import scratch
from circuit_toolkit.progress import Bar

Listed = dict[str, Any]  # of a manifest
_ONE = threading.Lock()  # shard at a time in a worker, which has all its threads
_GOES_ON = "Shards that are written stay: call capture again, with or without a client, to go on."


@dataclass(frozen=True, eq=False)
class Sent:
    """A capture as a worker holds it: while it does, what the first task loads stays loaded."""

    packed: bytes
    weights: Path
    folder: Path
    shard_size: int
    versions: dict[str, str]

    @cached_property
    def plan(self) -> CapturePlan:
        """The capture; of other versions than the caller's it may be another one."""
        if differ := differences(self.versions, _versions()):
            raise MismatchError(
                f"A worker ({platform.node()}) has other packages than the caller (there): "
                f"{'; '.join(differ)}. They would not write the same: install equal ones."
            )
        self.check_seen()
        return put_together(self.packed, self.weights)

    def check_seen(self) -> None:
        """Refuse to go on where the folder is not seen, or the caller is gone."""
        if not self.weights.is_file():
            raise InputError(
                f"A worker ({platform.node()}) does not see {self.weights.parent}, where the "
                "model's weights are while a capture runs: the store's folder must be one that all "
                "machines mount, or the capture has ended."
            )

    def __getstate__(self) -> dict[str, Any]:
        """Return what travels: not what is loaded."""
        return {name: value for name, value in vars(self).items() if name != "plan"}


def check_client(client: Any, store: Any, remote: bool | str) -> None:
    """Refuse what a capture on a cluster cannot be, before anything else is looked at."""
    threads_of(client)
    if store is None:
        raise InputError(
            "A capture on a cluster writes a store: pass store='folder' too, one that all workers "
            "see. Then store.load() reads it into memory."
        )
    if remote:
        raise InputError("remote runs the model on NDIF: leave it out, or leave client= out.")


def write_on_workers(
    client: Any,
    source: CapturePlan,
    there: ResumableFolder,
    missing: Sequence[int],
    shard_size: int,
    bar: Bar,
) -> None:
    """Have the shards that are missing written by workers, and list each when it is."""
    check_seen(client, there.path / KIND.manifest, "")
    folder = there.path.resolve()
    with scratch(folder / "weights") as place:
        weights = place / "weights.safetensors"
        sent = Sent(taken_apart(source, weights), weights, folder, shard_size, _versions())
        with _failures_named():
            for index, listed in _done(client, sent, missing):
                there.enter(shard_name(index), listed)
                bar.update(listed["prompts"])


def _done(client: Any, sent: Sent, missing: Sequence[int]) -> Iterator[tuple[int, Listed]]:
    """Have shards written, and return each when it is; whatever stops that cancels the rest."""
    from dask.distributed import as_completed

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")  # a tokenizer may have 30 MB
        held = client.submit(same, sent, pure=False)
    futures = client.map(
        write_shard_of, missing, sent=held, begins=missing[0], pure=False, retries=RETRIES
    )
    which = dict(zip(futures, missing, strict=True))
    try:
        for future in as_completed(futures):
            result = future.result()
            if isinstance(result, ToolkitError):
                raise result
            yield which[future], result
    finally:
        client.cancel([*futures, held])


def write_shard_of(index: int, sent: Sent, begins: int) -> Listed | ToolkitError:
    """Write a shard; return our own errors, which Dask would try again."""
    with _ONE, _all_threads(), memory_kept():
        try:
            plan = sent.plan
            rows = shard_rows(plan, sent.shard_size, index)
            acts = joined(captured(plan, rows, Bar(shown=False), sent.folder, index == begins))
            sent.check_seen()  # a caller that is gone may have given the folder to another
            return write_part(sent.folder, index, acts)
        except ToolkitError as error:
            return error


@contextmanager
def _all_threads() -> Iterator[None]:
    """Compute with as many threads as the worker has, whatever the environment says."""
    from dask.distributed import get_worker

    before = torch.get_num_threads()
    torch.set_num_threads(get_worker().state.nthreads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _failures_named() -> Iterator[None]:
    """Name the failures that are Dask's."""
    from concurrent.futures import CancelledError

    from dask.distributed import KilledWorker

    try:
        yield
    except KilledWorker as error:
        raise InputError(
            "Several workers died on the same shard, most often for want of memory: use a smaller "
            f"batch_size, or workers with more. {_GOES_ON}"
        ) from error
    except CancelledError as error:
        raise InputError(f"The cluster was closed, or its scheduler died. {_GOES_ON}") from error


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **versions()}

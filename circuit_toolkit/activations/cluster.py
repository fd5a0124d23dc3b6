"""Capture on a Dask cluster: workers load the model once and write the shards of one store.

Who writes which shard, and again after a worker died, is left to Dask's scheduler. The caller
holds the store's lock, and alone lists in its manifest what was written.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from circuit_toolkit.activations.activations import joined
from circuit_toolkit.activations.batches import captured, shard_rows
from circuit_toolkit.activations.capture_plan import CapturePlan
from circuit_toolkit.activations.store.shards import shard_name
from circuit_toolkit.activations.store.writer import KIND, write_part
from circuit_toolkit.cluster import RETRIES, check_seen, threads_of
from circuit_toolkit.errors import InputError, ToolkitError
from circuit_toolkit.files.folder import ResumableFolder
from circuit_toolkit.models.on_workers import Sent, on_workers, whole_worker
from circuit_toolkit.progress import Bar

Listed = dict[str, Any]  # of a manifest
_GOES_ON = "Shards that are written stay: call capture again, with or without a client, to go on."


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
    with _failures_named(), on_workers(client, source, source.model, folder) as held:
        task = {"sent": held, "folder": folder, "shard_size": shard_size, "begins": missing[0]}
        with closing(_done(client, missing, task)) as done:
            for index, listed in done:
                there.enter(shard_name(index), listed)
                bar.update(listed["prompts"])


def _done(
    client: Any, missing: Sequence[int], task: Mapping[str, Any]
) -> Generator[tuple[int, Listed]]:
    """Have shards written, and return each when it is; whatever stops that cancels the rest."""
    from dask.distributed import as_completed

    futures = client.map(write_shard_of, missing, **task, pure=False, retries=RETRIES)
    which = dict(zip(futures, missing, strict=True))
    try:
        for future in as_completed(futures):
            result = future.result()
            if isinstance(result, ToolkitError):
                raise result
            yield which[future], result
    finally:
        client.cancel(futures)


def write_shard_of(
    index: int, sent: Sent, folder: Path, shard_size: int, begins: int
) -> Listed | ToolkitError:
    """Write a shard; return our own errors, which Dask would try again."""
    with whole_worker():
        try:
            plan = sent.value
            rows = shard_rows(plan, shard_size, index)
            acts = joined(captured(plan, rows, Bar(shown=False), folder, index == begins))
            sent.check_seen()  # a caller that is gone may have given the folder to another
            return write_part(folder, index, acts)
        except ToolkitError as error:
            return error


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

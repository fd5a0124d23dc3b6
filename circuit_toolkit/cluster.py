"""A Dask cluster as users pass it: checked once, before anything long is sent to it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from circuit_toolkit.errors import InputError
from circuit_toolkit.extras import needed

RETRIES = 2  # of a task that fails, as where a shared disk stalls; deaths are Dask's own matter
_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_TRIMS = "MALLOC_TRIM_THRESHOLD_"


def threads_of(client: Any) -> int:
    """Count the threads of the workers; refuse what is no client, and a cluster without workers."""
    Client = needed("dask.distributed").Client
    if not isinstance(client, Client) or client.asynchronous:
        raise InputError(
            "client must be a dask.distributed.Client that is not asynchronous, got "
            f"{type(client).__name__}. On one machine: Client(n_workers=2, threads_per_worker=1)."
        )
    if client.status != "running":
        raise InputError(f"This client is {client.status}. Make one anew: Client(cluster).")
    workers: Any = client.nthreads()
    threads = sum(workers.values())
    if not threads:
        raise InputError(
            "The cluster of this client has no workers. Start some, cluster.scale(2), and wait for "
            "them, client.wait_for_workers(1)."
        )
    return threads


def check_seen(client: Any, file: Path, way_out: str) -> None:
    """Refuse a folder that not all workers see, by a file that is in it."""
    file = file.resolve()
    sees = client.run(is_file, file)
    if blind := [worker for worker, there in sees.items() if not there]:
        raise InputError(
            f"{len(blind)} of {len(sees)} workers do not see the store {file.parent}, such as "
            f"{blind[0]}. Put it where all machines mount it{way_out}."
        )


def is_file(path: Path) -> bool:
    """Whether this worker sees a file."""
    return path.is_file()


def same(value: Any) -> Any:
    """Return what was sent here: the scheduler, which sent it, can do so again after a death."""
    return value


@contextmanager
def memory_kept() -> Iterator[None]:
    """Let freed memory stay with the process while something runs that takes it again at once.

    Dask starts its workers with MALLOC_TRIM_THRESHOLD_=65536. glibc then maps every tensor of over
    128 KiB anew and clears it page by page: a third of the CPU time of a capture. Meanwhile it has
    the thresholds that it reaches by itself where nothing is set, see mallopt(3).
    """
    set_by_dask, libc = os.environ.get(_TRIMS, ""), None
    if sys.platform == "linux" and set_by_dask.isdecimal():
        libc = ctypes.CDLL(None)
    if libc is None or not hasattr(libc, "mallopt"):  # another libc than glibc
        yield
        return
    libc.mallopt(_MMAP, 32 * 2**20)
    libc.mallopt(_TRIM, 64 * 2**20)
    try:
        yield
    finally:
        libc.mallopt(_MMAP, 128 * 2**10)
        libc.mallopt(_TRIM, min(int(set_by_dask), 2**31 - 1))

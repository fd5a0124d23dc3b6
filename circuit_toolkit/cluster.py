"""A Dask cluster as users pass it: checked once, before anything long is sent to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from circuit_toolkit.errors import InputError
from circuit_toolkit.extras import needed

RETRIES = 2  # of a task that fails, as where a shared disk stalls; deaths are Dask's own matter


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

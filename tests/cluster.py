"""A cluster of two processes on this machine, and a death on it."""

import os
import signal
import time
from contextlib import contextmanager
from importlib import import_module

import psutil


@contextmanager
def two_workers():
    from dask.distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            silence_logs="CRITICAL",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
        left = list(client.run(os.getpid).values())
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in left))


def wait_until(done):
    ends = time.monotonic() + 60
    while not done():
        assert time.monotonic() < ends
        time.sleep(0.05)


@contextmanager
def a_death(client, module, name, died, after=False):
    """The first worker that calls a function is killed: before it does anything, or after it."""
    pids = set(client.run(os.getpid).values())
    client.run(
        _set_trap, module, name, died, after
    )  # for all: who gets which task is Dask's matter
    yield
    client.wait_for_workers(2)
    assert len(pids & set(client.run(os.getpid).values())) == 1, "nobody died"
    # Dask lets go of a worker that dies before its nanny has seen it start.
    wait_until(lambda: all(n.status.name == "running" for n in client.cluster.workers.values()))


def _set_trap(module, name, died, after):
    module = import_module(module)
    plain = getattr(module, name)

    def trap(*args, **kwargs):
        try:
            died.touch(exist_ok=False)
        except FileExistsError:
            return plain(*args, **kwargs)
        if after:
            plain(*args, **kwargs)
        return os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, name, trap)


def count_calls(module, name):
    """Count from now on how often a worker calls a function of a module."""
    module = import_module(module)
    plain, module.calls = getattr(module, name), 0

    def counting(*args, **kwargs):
        module.calls += 1
        return plain(*args, **kwargs)

    setattr(module, name, counting)


def calls_of(module):
    return import_module(module).calls

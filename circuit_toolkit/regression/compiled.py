"""The compiled loops where numba is installed; no fit waits for a compiler.

Numba compiles them once on a machine, which takes about three seconds, and caches them. Until they
are ready, and without numba, numpy and LAPACK do the same work. A process that ends sooner waits
for the rest at its end, once.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

_WAIT = 1.0  # seconds; reading numba and its cache from disk takes half of one


def kernels(wait: bool = False) -> Any:
    """Return the module of compiled loops, if it is ready."""
    future, begun = _compiling()
    left = begun + _WAIT - time.monotonic()
    if not future.done() and not (wait and left > 0):
        return None
    try:
        return future.result(max(left, 0.001))
    except TimeoutError:
        return None


@cache
def _compiling() -> tuple[Future[ModuleType | None], float]:
    worker = ThreadPoolExecutor(1, "compile")
    future = worker.submit(_compile)
    worker.shutdown(wait=False)
    return future, time.monotonic()


def _compile() -> ModuleType | None:
    from circuit_toolkit.regression import kernels as compiled

    if compiled.njit is None:
        return None
    one, empty = np.ones(1), np.zeros((1, 1))
    parts = np.zeros(2, np.int32), np.zeros(1, np.int32), one
    compiled.add_products(*parts, *parts, empty, True)
    compiled.add_dense_products(*parts, empty, empty)
    everything = np.zeros(1, np.int64)
    compiled.slope_of_error(np.eye(1), one, one, one, everything, 1, one, np.zeros(1))
    compiled.gather(np.eye(1), one, one, everything, np.zeros((1, 1), np.float32))
    counts, index = np.zeros(1, np.int64), np.zeros((1, compiled.LIMIT), np.int64)
    compiled.walk(
        np.eye(1), one, one, one, one, one, one, 0, 1.0, 0.0, False, 9, np.zeros(1), np.zeros(1),
        counts, index, np.zeros(index.shape), np.zeros((1, compiled.SUMMARY)),
    )  # fmt: skip
    return compiled

"""What a process says of its own cost; of the standard library alone, so that peers import it."""

from __future__ import annotations

import gc
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def memory() -> dict[str, float]:
    """Resident memory of this process now and at its peak, in MB.

    Linux's own count: `getrusage` begins with the peak of the process that started this one.
    """
    found = dict(re.findall(r"Vm(HWM|RSS):\s+(\d+) kB", STATUS.read_text()))
    return {"now": int(found["RSS"]) / 1024, "peak": int(found["HWM"]) / 1024}


def timed(call: Callable[[], Any], repeats: int) -> tuple[Any, dict[str, Any]]:
    """Return a call's result, and what it cost.

    The first call warms up, and alone tells the memory: `before` it and the `peak` of it, in MB.
    `wall` and `cpu` are medians of `repeats` more calls, in seconds.
    """
    gc.collect()
    PEAK.write_text("5")  # the peak begins anew
    before = memory()["now"]
    result = call()
    peak = memory()["peak"]
    wall, cpu = [], []
    for _ in range(repeats):
        del result
        gc.collect()
        began = time.perf_counter(), time.process_time()
        result = call()
        wall.append(time.perf_counter() - began[0])
        cpu.append(time.process_time() - began[1])
    cost = {"wall": statistics.median(wall), "cpu": statistics.median(cpu)} if repeats else {}
    return result, cost | {"before": before, "peak": peak}

"""What Dask sets in its workers costs page faults, which `memory_kept` spares while it holds."""

import subprocess
import sys

import pytest

from circuit_toolkit.cluster import memory_kept

FAULTS = """
import resource
import torch
from circuit_toolkit.cluster import memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        torch.zeros(2**20)  # 4 MiB, which is 1,024 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

outside = faults()
with memory_kept():
    torch.zeros(2**20)
    within = faults()
print(outside, within, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the thresholds are those of glibc on Linux")
def test_memory_is_kept_while_it_is_asked_for_and_no_longer():
    environment = {"MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    before, within, after = map(int, done.stdout.split())
    assert min(before, after) > 50 * 1000 and within < 50 * 1000 / 5


@pytest.mark.parametrize("value", [None, "", "many"])
def test_nothing_is_touched_where_nothing_is_set(value, monkeypatch):
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    if value is not None:
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", value)
    monkeypatch.setattr("ctypes.CDLL", None)  # which would fail
    with memory_kept():
        pass

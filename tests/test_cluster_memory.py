"""What Dask sets in its workers costs page faults, which `memory_kept` spares while it holds."""

import subprocess
import sys
from types import SimpleNamespace

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
print(outside, within)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the thresholds are those of glibc on Linux")
def test_memory_is_kept_while_it_is_asked_for():
    environment = {"MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    before, within = map(int, done.stdout.split())
    assert before > 50 * 1000 and within < before / 5


@pytest.mark.skipif(sys.platform != "linux", reason="the thresholds are those of glibc on Linux")
def test_the_thresholds_are_as_before_when_it_ends(monkeypatch):
    """M_TRIM_THRESHOLD is -1 and M_MMAP_THRESHOLD -3; without Dask's the latter is 128 KiB."""
    now = {}
    libc = SimpleNamespace(mallopt=now.__setitem__)
    monkeypatch.setattr("ctypes.CDLL", lambda _: libc)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    with pytest.raises(KeyError), memory_kept():
        assert now == {-1: 64 * 2**20, -3: 32 * 2**20}
        raise KeyError
    assert now == {-1: 65536, -3: 128 * 2**10}


@pytest.mark.parametrize("value", [None, "", "many"])
def test_nothing_is_touched_where_nothing_is_set(value, monkeypatch):
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    if value is not None:
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", value)
    monkeypatch.setattr("ctypes.CDLL", None)  # which would fail
    with memory_kept():
        pass

"""Estimates: near what a capture then takes, and refused before it where there is not enough."""

import os
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from circuit_toolkit import capture
from circuit_toolkit.activations import budget
from circuit_toolkit.activations.budget import (
    BLOCK,
    COPIES,
    KEPT,
    available_memory,
    batch_bytes,
    estimate_capture,
    free_disk,
    size,
)
from circuit_toolkit.activations.capture_plan import CapturePlan, plan_capture
from circuit_toolkit.errors import InputError
from circuit_toolkit.tasks import ioi
from tests.tiny import FEATURES, TEXTS, WIDTH

LONG = "the boys near the cabinet"
GB = 10**9


@pytest.fixture
def texts():
    """Prompts of 6 to 41 tokens, the long ones last."""
    return [" ".join([LONG] * (1 + i // 8)) for i in range(64)]


@pytest.fixture
def available(monkeypatch):
    """Set the bytes of memory and disk that there are."""

    def there_are(memory=GB, disk=GB):
        monkeypatch.setattr(budget, "available_memory", lambda device=None: memory)
        monkeypatch.setattr(budget, "free_disk", lambda folder: disk)

    return there_are


@pytest.fixture
def batches(monkeypatch):
    """Batches that were run."""
    run, seen = CapturePlan.activations, []

    def activations(self, rows, batch):
        seen.append(rows)
        return run(self, rows, batch)

    monkeypatch.setattr(CapturePlan, "activations", activations)
    return seen


def on_disk(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize("batch_size", [8, 100])
def test_estimates_are_within_a_factor_of_two(
    tiny, tiny_saes, texts, tmp_path, positions, batch_size
):
    given = (tiny, tiny_saes, texts, positions)
    said = estimate_capture(*given, batch_size=batch_size)
    acts = capture(*given, batch_size=batch_size, progress=False)
    store = capture(*given, batch_size=batch_size, store=tmp_path, progress=False)
    assert said.tokens == sum(map(len, acts.tokens))
    assert acts.nbytes / 1.1 < said.result < acts.nbytes * 1.1
    assert on_disk(tmp_path) / 2 < said.disk < on_disk(tmp_path) * 2
    largest = max(part.nbytes for part in store.shards())
    assert said.memory > acts.nbytes + said.batch
    assert largest / 2 < said.stored_memory - said.batch < 2 * largest
    assert said.seconds > 0


def test_joining_takes_the_memory_that_was_said(tiny, tiny_saes, texts):
    said = estimate_capture(tiny, tiny_saes, texts, batch_size=16)
    tracemalloc.start()  # sees numpy's arrays, not torch's tensors
    try:
        capture(tiny, tiny_saes, texts, batch_size=16, progress=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / 2 < said.memory - said.batch < 2 * peak


def test_a_probe_is_spread_over_the_prompts(tiny, tiny_saes, texts, batches):
    estimate_capture(tiny, tiny_saes, texts, batch_size=16)
    assert batches == [range(0, 64, 4)] * 2  # the second is timed


def test_the_memory_of_a_batch_is_counted_from_shapes(tiny, tiny_saes):
    task = ioi(tiny, n=4)
    plain = plan_capture(tiny, tiny_saes, TEXTS, "all", False, False)
    scored = plan_capture(tiny, tiny_saes, task, "all", False, False)
    tokens, vocabulary = 5 * 7, tiny.hf.config.vocab_size
    raw = 4 * tokens * WIDTH * len(tiny_saes)  # float32
    encoding = 2 * 4 * tokens * WIDTH + COPIES * 4 * tokens * FEATURES
    block = 4 * tokens * BLOCK * WIDTH
    assert block > encoding  # what is encoded comes after the pass
    assert batch_bytes(plain, 5, 7) == round(KEPT * (raw + block))
    more = batch_bytes(scored, 5, 7) - batch_bytes(plain, 5, 7)
    assert abs(more - KEPT * 2 * 4 * 5 * vocabulary) <= 1
    labels = replace(task, answers=(), wrong=(), metric=None, labels={"a": tuple("abab")})
    assert batch_bytes(plan_capture(tiny, tiny_saes, labels, "all", False, False), 5, 7) == (
        batch_bytes(plain, 5, 7)
    )


def test_small_captures_run_each_batch_once(tiny, tiny_saes, texts, batches, monkeypatch):
    tokenized, tokenize = [], CapturePlan.tokenize

    def counted(self, rows):
        tokenized.append(rows)
        return tokenize(self, rows)

    monkeypatch.setattr(CapturePlan, "tokenize", counted)
    capture(tiny, tiny_saes, texts, batch_size=32, progress=False)
    assert batches == tokenized == [range(0, 32), range(32, 64)]


def test_a_result_that_does_not_fit_is_refused_after_one_batch(
    tiny, tiny_saes, texts, available, batches, tmp_path
):
    batch_size = 1
    said = estimate_capture(tiny, tiny_saes, texts, batch_size=batch_size)
    assert said.result > said.batch  # else this would refuse the batch
    del batches[:]
    available(memory=said.batch + said.result // 4)
    with pytest.raises(InputError) as error:
        capture(tiny, tiny_saes, texts, batch_size=batch_size, progress=False)
    assert len(batches) == 1
    assert "of 64 prompts at 4 sites need about" in str(error.value)
    assert "store='folder'" in str(error.value) and "fewer sites" in str(error.value)
    assert "positions other than 'all'" in str(error.value)
    # Each way out is one.
    capture(tiny, tiny_saes, texts, batch_size=batch_size, store=tmp_path, progress=False)
    capture(tiny, tiny_saes, texts, "last", batch_size=batch_size, progress=False)


def test_a_batch_that_does_not_fit_is_refused_before_it_runs(
    tiny, tiny_saes, texts, available, batches, tmp_path
):
    said = estimate_capture(tiny, tiny_saes, texts, batch_size=64)
    del batches[:]
    available(memory=said.batch - 1)
    for store in (None, tmp_path):
        with pytest.raises(InputError, match="64 prompts of .* tokens at 4 sites needs .*smaller"):
            capture(tiny, tiny_saes, texts, batch_size=64, store=store, progress=False)
    assert not batches


def test_the_largest_batch_is_foreseen(tiny, tiny_saes, texts, available, batches):
    said = estimate_capture(tiny, tiny_saes, texts, batch_size=8)
    first = batch_bytes(plan_capture(tiny, tiny_saes, texts, "all", False, False), 8, 6)
    assert first < 0.8 * said.batch
    del batches[:]
    available(memory=int(0.8 * said.batch))
    with pytest.raises(InputError, match="Use a smaller batch_size"):
        capture(tiny, tiny_saes, texts, batch_size=8, progress=False)
    assert len(batches) == 1


def test_a_disk_that_is_too_small_is_refused(tiny, tiny_saes, texts, available, batches, tmp_path):
    capture(tiny, tiny_saes, texts[:16], batch_size=16, store=tmp_path / "one", progress=False)
    del batches[:]
    available(disk=2 * on_disk(tmp_path / "one"))
    with pytest.raises(InputError, match=r"of disk in .*two, .* Choose another folder") as error:
        capture(tiny, tiny_saes, texts, batch_size=16, store=tmp_path / "two", progress=False)
    assert len(batches) == 1 and "store=" not in str(error.value)


def test_token_ids_are_counted_as_texts_are(tiny, tiny_saes, texts):
    ids = [tiny.tokenizer(text)["input_ids"] for text in texts]
    a, b = (estimate_capture(tiny, tiny_saes, each, batch_size=16) for each in (texts, ids))
    assert (a.tokens, a.batch, a.result) == (b.tokens, b.batch, b.result)


def test_what_cannot_be_captured_cannot_be_estimated(tiny, tiny_saes):
    with pytest.raises(InputError, match="No prompts"):
        estimate_capture(tiny, tiny_saes, [])
    with pytest.raises(InputError, match="does not know 'zebra'"):
        estimate_capture(tiny, tiny_saes, ["Anna", "the zebra"], batch_size=1)


def test_it_says_its_figures(tiny, tiny_saes):
    said = estimate_capture(tiny, tiny_saes, TEXTS)
    words = str(said)
    assert f"for {said.tokens} tokens" in words
    assert size(said.memory) in words and size(said.disk) in words
    assert [size(n) for n in (0, 999, 1234, 5.5e7, 2e9, 3e15)] == [
        *("0 B", "999 B", "1.23 kB", "55 MB", "2 GB", "3e+03 TB")
    ]


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with 8 GB available, and control groups of one's own making."""
    import psutil

    monkeypatch.setattr(budget, "CGROUP", tmp_path)
    memory = SimpleNamespace(available=8 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)

    def group(limit, used, cached, folder=""):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "memory.max").write_text(f"{limit}\n")
        (tmp_path / folder / "memory.current").write_text(f"{used}\n")
        (tmp_path / folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")

    return group


def test_memory_is_that_of_the_machine_or_of_its_control_group(machine):
    assert available_memory() == 8 * GB
    machine(limit=4 * GB, used=3 * GB, cached=GB // 2)
    assert available_memory() == 1.5 * GB
    machine(limit=64 * GB, used=3 * GB, cached=0)
    assert available_memory(torch.device("cpu")) == 8 * GB
    machine(limit="max", used=3 * GB, cached=0)
    assert available_memory() == 8 * GB
    machine(limit=GB, used=2 * GB, cached=0)
    assert available_memory() == 0


def test_a_group_within_a_group_is_found(machine, monkeypatch):
    read = Path.read_text

    def read_text(self, *args, **options):
        own = str(self) == "/proc/self/cgroup"
        return "1:cpu:/other\n0::/job\n" if own else read(self, *args, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    machine(limit=4 * GB, used=GB, cached=0)
    machine(limit=2 * GB, used=GB, cached=0, folder="job")
    assert available_memory() == GB


def test_the_disk_is_that_of_the_folder(tmp_path):
    stat = os.statvfs(tmp_path)
    assert free_disk(tmp_path) == pytest.approx(stat.f_bavail * stat.f_frsize, rel=0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_has_memory_of_its_own():
    before = available_memory(torch.device("cuda"))
    held = torch.zeros(2**28, dtype=torch.uint8, device="cuda")
    after = available_memory(torch.device("cuda"))
    assert before - after == pytest.approx(held.numel(), rel=0.2)


def test_a_batch_of_too_many_bytes_runs_in_pieces(
    tiny, tiny_saes, texts, batches, monkeypatch, tmp_path
):
    whole = capture(tiny, tiny_saes, texts, batch_size=64, progress=False)
    source = plan_capture(tiny, tiny_saes, texts, "all", False, False)
    longest = source.tokenize(range(64)).ids.shape[1]
    monkeypatch.setattr(budget, "MOST", batch_bytes(source, 20, longest))
    del batches[:]
    said = estimate_capture(tiny, tiny_saes, texts, batch_size=64)
    assert said.batch <= budget.MOST
    assert batches == [range(0, 64, 4)] * 2  # 16 fit, which is 64 halved twice
    del batches[:]
    parts = capture(tiny, tiny_saes, texts, batch_size=64, progress=False)
    assert batches == [range(start, start + 16) for start in range(0, 64, 16)]
    store = capture(tiny, tiny_saes, texts, batch_size=64, store=tmp_path, progress=False)
    assert len(list(store.shards())) == 1
    for site in whole.sites:  # float32, padded to other lengths
        difference = abs(whole.features[site] - parts.features[site]).max()
        assert difference <= 1e-5 * abs(whole.features[site]).max()
    assert np.array_equal(whole.groups, parts.groups) and whole.tokens == parts.tokens


def test_longer_prompts_that_run_in_pieces_are_not_refused(
    tiny, tiny_saes, texts, batches, monkeypatch, available
):
    source = plan_capture(tiny, tiny_saes, texts, "last", False, False)
    longest = source.tokenize(range(64)).ids.shape[1]
    monkeypatch.setattr(budget, "MOST", batch_bytes(source, 10, longest))
    available(memory=int(1.3 * budget.MOST))  # 16 of the longest would take 1.6 times it
    capture(tiny, tiny_saes, texts, "last", batch_size=16, progress=False)
    assert batches[0] == range(16) and batches[-1] == range(56, 64)

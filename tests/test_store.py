"""Stores: what capture would give in memory, on disk, whole, checked, and one shard at a time."""

import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from circuit_toolkit import capture, estimate
from circuit_toolkit.activations import Activations, joined
from circuit_toolkit.circuits.circuit_lasso import CircuitLasso
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import FileFormatError, InputError, MismatchError
from circuit_toolkit.reader import Reader
from circuit_toolkit.sites import Site
from circuit_toolkit.store import ActivationStore, writer
from circuit_toolkit.tasks import ioi
from tests.same import assert_same
from tests.tiny import TEXTS, random_sae, residual_sites, tiny_model

BATCH = 3  # of 12 prompts: 4 batches


@pytest.fixture(scope="module")
def task(tiny):
    return ioi(tiny, n=6, seed=3)


@pytest.fixture(scope="module")
def acts(tiny, tiny_saes, task):
    return capture(tiny, task, tiny_saes, batch_size=BATCH, progress=False)


@pytest.fixture
def to(tiny, tiny_saes, task):
    """Capture into a folder; arguments of capture can be replaced."""

    def run(folder, **changes):
        given = {"model": tiny, "prompts": task, "dictionaries": tiny_saes, "batch_size": BATCH}
        return capture(**(given | changes), store=folder, progress=False)

    return run


@pytest.fixture
def folder(to, tmp_path):
    """Folder of a store of four shards."""
    return to(tmp_path / "store").folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def shards(folder):
    return sorted(folder.glob("*.safetensors"))


def test_a_stored_capture_is_the_one_in_memory_to_the_bit(to, acts, tmp_path):
    store = to(tmp_path)
    assert isinstance(store, ActivationStore) and len(store) == 4
    assert_same(store.load(), acts)
    assert_same(ActivationStore.open(tmp_path).load(), acts)
    assert (store.settings, store.sites, store.n_prompts) == (acts.settings, acts.sites, 12)
    assert sum(part.nbytes for part in store.shards()) == store.nbytes
    assert store.nbytes == pytest.approx(acts.nbytes, rel=0.05)  # an indptr more for each shard


def test_a_circuit_is_learnt_from_a_store_as_from_memory(tiny, tiny_saes, tmp_path):
    many = ioi(tiny, n=60, seed=1)
    there = capture(tiny, many, tiny_saes, batch_size=16, progress=False, store=tmp_path)
    here = capture(tiny, many, tiny_saes, batch_size=16, progress=False)
    theirs, ours = (CircuitLasso().fit(acts, target=many) for acts in (here, there))
    first, second = theirs.circuit(strength=0.3), ours.circuit(strength=0.3)
    assert len(first.nodes) > 3
    assert first.nodes.tolist() == second.nodes.tolist()
    assert first.edges.tolist() == second.edges.tolist()


@pytest.mark.parametrize("positions", ["all", "mean", "last", "S2", "IO"])
def test_pooling_shard_by_shard_is_pooling_the_whole(to, acts, tmp_path, positions):
    assert_same(to(tmp_path / "all").pooled(positions), acts.pooled(positions))
    there = to(tmp_path / "there", positions=positions)
    assert_same(there.load(), acts.pooled(positions))
    assert_same(there.pooled(positions), acts.pooled(positions))


def test_rows_that_were_pooled_are_not_pooled_again(to, tmp_path):
    with pytest.raises(InputError, match="captured as positions='last'"):
        to(tmp_path, positions="last").pooled("mean")


def test_a_shard_can_hold_several_batches(to, acts, tmp_path):
    store = to(tmp_path, shard_size=3 * BATCH)
    assert [part.n_prompts for part in store.shards()] == [9, 3]
    assert_same(store.load(), acts)
    for size in (0, BATCH + 1):
        with pytest.raises(InputError, match=f"multiple of batch_size=3, got {size}"):
            to(tmp_path / "other", shard_size=size)


def test_texts_without_a_task_are_stored_too(tiny, tiny_saes, to, tmp_path):
    whole = capture(tiny, TEXTS, tiny_saes, batch_size=2, progress=False)
    assert_same(to(tmp_path, prompts=TEXTS, batch_size=2).load(), whole)


def test_means_are_those_of_all_rows(to, acts, tmp_path):
    means = to(tmp_path).means()
    for site, expected in acts.means().items():
        np.testing.assert_allclose(means[site], expected, rtol=1e-5, atol=1e-8)  # order of sums
        assert means[site].dtype == expected.dtype


def test_the_same_inputs_give_the_same_bytes(to, folder, tmp_path):
    assert contents(to(tmp_path / "again").folder) == contents(folder)


def test_the_manifest_says_what_was_captured(folder, tiny, tiny_saes, task):
    content = json.loads((folder / "manifest.json").read_text())["content"]
    inputs = content["inputs"]
    assert inputs["model"] == tiny.name and inputs["positions"] == "all"
    assert (inputs["batch_size"], inputs["shard_size"], inputs["n_prompts"]) == (3, 3, 12)
    assert list(inputs["dictionaries"]) == [str(site) for site in tiny_saes]
    for site, each in tiny_saes.items():
        described = inputs["dictionaries"][str(site)]
        assert described["name"] == each.name and described["out"] == str(each.out)
        assert described["conventions"]["prepend_bos"] is each.conventions.prepend_bos
        assert len(described["weights"]) == 64
    assert {"circuit_toolkit", "torch", "transformers", "sae_lens"} <= set(content["made_with"])
    assert content["sites"] == {str(site): each.n_features for site, each in tiny_saes.items()}
    for path in shards(folder):
        assert content["shards"][path.name]["bytes"] == path.stat().st_size


def test_files_have_the_mode_that_the_user_wants(folder, tmp_path):
    (tmp_path / "plain").touch()
    for path in folder.iterdir():
        assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


# Memory


def big(n_prompts, tokens=200, features=500, fire=40):
    """Activations of which a shard takes much more than all else does."""
    rng = np.random.default_rng(0)
    rows = n_prompts * tokens
    indices = rng.integers(features, size=rows * fire, dtype=np.int32)
    indptr = np.arange(0, rows * fire + 1, fire, dtype=np.int32)
    data = rng.random(rows * fire, dtype=np.float32)
    return Activations(
        features={
            Site("resid_post", layer): sp.csr_array((data, indices, indptr), (rows, features))
            for layer in range(3)
        },
        prompt=np.repeat(np.arange(n_prompts), tokens),
        position=np.tile(np.arange(tokens), n_prompts),
        tokens=[["a"] * tokens for _ in range(n_prompts)],
        groups=np.arange(n_prompts),
    )


def test_iterating_takes_the_memory_of_one_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SAVED_PROMPTS", 2)
    big(24).save(tmp_path / "store")
    store = ActivationStore.open(tmp_path / "store")
    one = max(part.nbytes for part in store.shards())
    assert len(store) == 12 and store.nbytes > 11 * one
    tracemalloc.start()
    try:
        for part in store.shards():
            assert part.n_prompts == 2
            del part
        _, iterating = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        pooled = store.pooled("last")
        _, pooling = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert one / 2 < iterating < 1.5 * one  # else the arrays are not traced
    assert pooling < 2.5 * one + 2 * pooled.nbytes  # one is read while the last is still pooled


def test_what_does_not_fit_in_memory_is_not_loaded(folder, monkeypatch):
    store = ActivationStore.open(folder)
    monkeypatch.setattr("circuit_toolkit.store.store.available_memory", lambda: store.nbytes)
    with pytest.raises(InputError, match=r"needs about .* are available. Use pooled\('last'\)"):
        store.load()
    assert store.pooled("last").n_prompts == 12


# Going on


class Interruption(Exception):
    pass


@pytest.fixture
def stop_after(monkeypatch):
    """Let a capture raise after some batches; gives the batches that were run since."""

    def after(n):
        run, seen = Reader.activations, []

        def activations(self, rows, batch):
            if len(seen) == n:
                raise Interruption
            seen.append(rows)
            return run(self, rows, batch)

        monkeypatch.setattr(Reader, "activations", activations)
        return seen

    return after


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_it_goes_on_where_it_stopped(to, folder, tmp_path, stop_after, monkeypatch, batches):
    other = tmp_path / "other"
    with monkeypatch.context(), pytest.raises(Interruption):
        stop_after(batches)
        to(other)
    monkeypatch.undo()
    assert len(shards(other)) == batches
    with pytest.raises(FileFormatError, match=f"holds {batches} of 4 shards. Call `capture` with"):
        ActivationStore.open(other)
    seen = stop_after(100)
    to(other)
    assert [rows.start for rows in seen] == list(range(0, 12, BATCH))[batches:]
    assert contents(other) == contents(folder)


def test_a_complete_store_is_not_captured_again(to, folder, stop_after):
    before = contents(folder)
    stop_after(0)
    assert to(folder).n_prompts == 12
    assert contents(folder) == before


def other_dictionaries(tiny, tiny_saes, **changes):
    site = residual_sites()[1]
    sae = random_sae(tiny.name, site, seed=77)
    return {**tiny_saes, site: replace(tiny_saes[site], sae=sae, **changes)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m, s, t: {"positions": "last"}, "positions 'all' there, 'last' here"),
        (lambda m, s, t: {"batch_size": 4}, "batch_size 3 there, 4 here"),
        (lambda m, s, t: {"shard_size": 6}, "shard_size 3 there, 6 here"),
        (lambda m, s, t: {"prompts": t.subset(5)}, "n_prompts 12 there, 10 here"),
        (lambda m, s, t: {"prompts": ioi(m, n=6, seed=4)}, "other task content; other prompts"),
        (lambda m, s, t: {"prompts": t.texts}, "task 'ioi' there, None here"),
        (lambda m, s, t: {"prompts": replace(t, wrong=t.answers)}, "other task content. Pass"),
        (lambda m, s, t: {"model": tiny_model(seed=5)}, "other model weights. Pass"),
        (
            lambda m, s, t: {"dictionaries": other_dictionaries(m, s)},
            "dictionaries blocks.0.hook_resid_post other weights. Pass",
        ),
        (
            lambda m, s, t: {"dictionaries": dict(list(s.items())[:3])},
            "dictionaries blocks.2.hook_resid_post only there. Pass",
        ),
        (
            lambda m, s, t: {"dictionaries": dict(reversed(list(s.items())))},
            "dictionaries in another order. Pass",
        ),
    ],
)
def test_other_inputs_are_refused(to, folder, tiny, tiny_saes, task, change, said):
    before = contents(folder)
    with pytest.raises(MismatchError) as error:
        to(folder, **change(tiny, tiny_saes, task))
    assert said in str(error.value) and "or another folder" in str(error.value)
    assert contents(folder) == before


def test_other_versions_read_a_store_and_do_not_go_on_with_it(
    to, tmp_path, stop_after, monkeypatch
):
    with monkeypatch.context(), pytest.raises(Interruption):
        stop_after(2)
        to(tmp_path)
    monkeypatch.undo()
    newer, module = {**writer.versions(), "torch": "9.9"}, sys.modules[capture.__module__]
    with monkeypatch.context() as context:
        context.setattr(module, "versions", lambda: newer)
        with pytest.raises(MismatchError, match="torch '2.* there, '9.9' here"):
            to(tmp_path)
    to(tmp_path)
    monkeypatch.setattr(module, "versions", lambda: newer)
    assert len(to(tmp_path)) == 4


def test_a_folder_with_something_else_is_left_alone(to, tmp_path):
    (tmp_path / "thesis.txt").write_text("words")
    with pytest.raises(InputError, match="holds 'thesis.txt' and is no store"):
        to(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "words"


def test_what_safetensors_left_half_written_is_taken_away(to, tmp_path):
    to(tmp_path)
    whole = contents(tmp_path)
    (tmp_path / ".tmpt3aZ5l").write_bytes(b"half")
    to(tmp_path)
    assert contents(tmp_path) == whole


def test_killed_captures_finish_as_one_that_was_not(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.killed_captures", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        # One thread, since it forks.
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report["timed"]) == 10
    assert len({(kill["folder"], kill["listed"]) for kill in report["timed"]}) >= 6
    found = {kill["step"]: (kill["unlisted"], kill["parts"]) for kill in report["planned"]}
    assert found == {
        "half a shard": (0, 1),
        "a shard without its name": (0, 1),
        "a shard that is not listed": (1, 0),
        "half a manifest": (1, 1),
        "a manifest without its name": (1, 1),
        "a shard that is listed": (0, 0),
    }
    whole = contents(tmp_path / "whole")
    assert len(whole) == 60 + 2  # manifest and lock
    names = {path.name for path in tmp_path.iterdir()}
    assert {"whole", "timed-0", "planned", "held"} <= names
    for name in names:
        assert contents(tmp_path / name) == whole, name


# Damage


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


def of_another_shard(path):
    other = next(each for each in shards(path.parent) if each != path)
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [flip, cut, empty, of_another_shard])
def test_a_damaged_or_foreign_shard_is_named_and_not_read(to, folder, acts, damage):
    path = shards(folder)[2]
    damage(path)
    store = ActivationStore.open(folder)
    reading = store.shards()
    next(reading), next(reading)
    for read in (
        lambda: next(reading),
        store.load,
        lambda: store.pooled("last"),
        lambda: to(folder),
    ):
        with pytest.raises(
            FileFormatError, match=r"shard-00002\.safetensors is damaged, or of ano"
        ):
            read()
    path.unlink()
    assert_same(to(folder).load(), acts)  # as the error says


def test_a_missing_shard_is_named_and_made_anew(to, folder, stop_after):
    before = contents(folder)
    store = ActivationStore.open(folder)
    shards(folder)[1].unlink()
    with pytest.raises(FileFormatError, match=r"shard-00001\.safetensors is missing. `capture`"):
        list(store.shards())
    with pytest.raises(FileFormatError, match=r"shard-00001\.safetensors is missing"):
        ActivationStore.open(folder)
    seen = stop_after(1)
    to(folder)
    assert [rows.start for rows in seen] == [BATCH] and contents(folder) == before


def test_a_shard_too_many_is_named(folder):
    (folder / "shard-00004.safetensors").write_bytes(shards(folder)[0].read_bytes())
    with pytest.raises(FileFormatError, match="shard-00004.safetensors does not belong"):
        ActivationStore.open(folder)


def test_a_file_that_is_no_shard_is_refused_even_with_its_checksum(folder, tmp_path):
    from safetensors.numpy import save_file

    from circuit_toolkit.store.shards import Shard, read_shard, sha256_of

    path = tmp_path / "weights.safetensors"
    save_file({"W": np.zeros(3)}, path)
    shard = Shard(sha256_of(path), path.stat().st_size, 0, 1, 1)
    with pytest.raises(FileFormatError, match="weights.safetensors is no shard of activations"):
        read_shard(path, shard, {})


def with_manifest(folder, change):
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(change(document) or document))


def listing_less(document):
    document["content"]["shards"].popitem()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["content"]["inputs"].update(positions="mean"), "its checksum differs"),
        (listing_less, "its checksum differs"),
        (lambda d: d.update(content=None), "its checksum differs"),
        (lambda d: d.update(schema_version=2), "has schema version 2; this release reads"),
        (lambda d: d.update(format="circuit_toolkit.circuit"), "is not of a store of activations"),
        (lambda d: ["a list"], "is not of a store of activations"),
    ],
)
def test_a_damaged_or_foreign_manifest_is_refused(to, folder, change, said):
    with_manifest(folder, change)
    for read in (ActivationStore.open, to):
        with pytest.raises(FileFormatError, match=said) as error:
            read(folder)
        assert "manifest.json" in str(error.value)


def test_no_manifest_or_half_of_one(folder, tmp_path):
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(FileFormatError, match="manifest.json is damaged: it is not JSON"):
        ActivationStore.open(folder)
    path.unlink()
    for nothing in (folder, tmp_path / "nowhere"):
        with pytest.raises(FileFormatError, match="is no store of activations"):
            ActivationStore.open(nothing)


# Activations.save


@pytest.mark.parametrize("step", [1, 5, 100])
def test_saved_activations_are_read_back(acts, tmp_path, monkeypatch, step):
    monkeypatch.setattr(writer, "SAVED_PROMPTS", step)
    for kind in ("all", "mean"):
        rows = acts.pooled(kind)
        folder = rows.save(tmp_path / f"{kind}-{step}")
        store = ActivationStore.open(folder)
        assert len(store) == -(-12 // step)
        assert_same(store.load(), rows)
        assert_same(joined(list(store.shards())), rows)


def test_rows_of_mixed_prompts_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SAVED_PROMPTS", 1)
    mixed = Activations(
        features={Site("embed"): sp.csr_array(np.eye(3, dtype=np.float32))},
        prompt=np.array([1, 0, 1]),
        position=np.array([0, 0, 1]),
        tokens=[["a"], ["b", "c"]],
        groups=np.array([0, 0]),
        labels={"class": np.array(["long", "s"])},
        settings={"seed": np.int64(3)},
    )
    back = ActivationStore.open(mixed.save(tmp_path / "store")).load()
    assert_same(back, mixed)


def test_what_is_there_is_not_written_over(acts, folder, tmp_path, to):
    (tmp_path / "file").write_text("words")
    for path in (folder, tmp_path / "file"):
        with pytest.raises(InputError, match="holds something already"):
            acts.save(path)
    (tmp_path / "empty").mkdir()
    saved = acts.save(tmp_path / "empty")
    assert_same(ActivationStore.open(saved).load(), acts)
    with pytest.raises(MismatchError, match="activations that were saved"):
        to(saved)


def test_settings_that_cannot_be_written_leave_nothing(acts, tmp_path):
    odd = replace(acts, settings={"what": object()})
    with pytest.raises(InputError, match="cannot be written as JSON"):
        odd.save(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_it_prints_its_size(folder, acts):
    store = ActivationStore.open(folder)
    sites = ", ".join(site.short for site in store.sites)
    assert repr(store) == (
        f"ActivationStore(12 prompts in 4 shards, {estimate.size(store.nbytes)}, at {sites})"
    )
    assert isinstance(next(iter(store.shards())), Activations)
    assert Dictionary.__module__ not in repr(store)

"""A store holds what capture would give in memory, and is read one shard at a time."""

import gc
import json
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp

from circuit_toolkit import capture
from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.store import ActivationStore, writer
from circuit_toolkit.circuit_lasso.estimator import CircuitLasso
from circuit_toolkit.errors import InputError
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import ioi
from tests.activations.store.small_store import BATCH, contents, shards
from tests.same import ROUNDED, assert_same
from tests.tiny import TEXTS


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
    there = capture(tiny, tiny_saes, many, batch_size=16, progress=False, store=tmp_path)
    here = capture(tiny, tiny_saes, many, batch_size=16, progress=False)
    theirs, ours = (CircuitLasso().fit(acts, target=many) for acts in (here, there))
    first, second = theirs.circuit(strength=0.3), ours.circuit(strength=0.3)
    assert len(first.nodes) > 3
    assert first.nodes.tolist() == second.nodes.tolist()
    assert first.edges.tolist() == second.edges.tolist()


@pytest.mark.parametrize("positions", ["all", "mean", "last", "S2", "IO"])
def test_pooling_shard_by_shard_is_pooling_the_whole(to, acts, tmp_path, positions):
    assert_same(to(tmp_path / "all").pooled(positions), acts.pooled(positions))
    there = to(tmp_path / "there", positions=positions)
    assert_same(there.load(), acts.pooled(positions), ROUNDED)
    assert_same(there.pooled(positions), acts.pooled(positions), ROUNDED)


def test_rows_that_were_pooled_are_not_pooled_again(to, tmp_path):
    with pytest.raises(InputError, match="captured as positions='last'"):
        to(tmp_path, positions="last").pooled("mean")


def test_a_shard_can_hold_several_batches(to, acts, tmp_path):
    store = to(tmp_path, shard_size=3 * BATCH)
    assert [part.n_prompts for part in store.shards()] == [9, 3]
    assert_same(store.load(), acts)
    for size, said in ((0, "at least 1, got 0"), (BATCH + 1, "multiple of batch_size=3, got 4")):
        with pytest.raises(InputError, match=said):
            to(tmp_path / "other", shard_size=size)


def test_texts_without_a_task_are_stored_too(tiny, tiny_saes, to, tmp_path):
    whole = capture(tiny, tiny_saes, TEXTS, batch_size=2, progress=False)
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
    every = np.tile(np.arange(features, dtype=np.int32), (rows, 1))
    indices = rng.permuted(every, axis=1)[:, :fire].ravel()
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
        peaks = []
        for _ in range(3):  # the least of three: threads of other tests allocate too
            gc.collect()
            tracemalloc.reset_peak()
            for part in store.shards():
                assert part.n_prompts == 2
                del part
            peaks.append(tracemalloc.get_traced_memory()[1])
        iterating = min(peaks)
        tracemalloc.reset_peak()
        pooled = store.pooled("last")
        _, pooling = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert one / 2 < iterating < 1.5 * one  # else the arrays are not traced
    assert pooling < 2.5 * one + 2 * pooled.nbytes  # one is read while the last is still pooled


def test_what_does_not_fit_in_memory_is_not_loaded(folder, monkeypatch):
    store = ActivationStore.open(folder)
    monkeypatch.setattr(
        "circuit_toolkit.activations.store.store.available_memory", lambda: store.nbytes
    )
    with pytest.raises(InputError, match=r"needs about .* are available. Use pooled\('last'\)"):
        store.load()
    assert store.pooled("last").n_prompts == 12

"""Activations in memory are saved as a store."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from circuit_toolkit.activations import budget
from circuit_toolkit.activations.activations import Activations, joined
from circuit_toolkit.activations.store import ActivationStore, writer
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.sites import Site
from tests.same import assert_same


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
        with pytest.raises(InputError, match="holds something already|is no folder"):
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
        f"ActivationStore(12 prompts in 4 shards, {budget.size(store.nbytes)}, at {sites})"
    )
    assert isinstance(next(iter(store.shards())), Activations)
    assert Dictionary.__module__ not in repr(store)

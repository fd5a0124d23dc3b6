"""A capture that was interrupted goes on, with the same inputs only, and ends at the same bytes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from circuit_toolkit import capture
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.errors import FileFormatError, InputError, MismatchError
from circuit_toolkit.models.versions import versions
from circuit_toolkit.tasks import ioi
from tests.activations.store.small_store import BATCH, Interruption, contents, shards
from tests.tiny import random_sae, residual_sites, tiny_model


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


def other_model(saes):
    """Another model, and the dictionaries as if they were not bound to one."""
    unbound = {site: replace(each, of=None) for site, each in saes.items()}
    return {"model": tiny_model(seed=5), "dictionaries": unbound}


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
        (lambda m, s, t: other_model(s), "other model weights. Pass"),
        (
            lambda m, s, t: {"dictionaries": other_dictionaries(m, s)},
            "dictionaries blocks.0.hook_resid_post other weights. Pass",
        ),
        (
            lambda m, s, t: {"dictionaries": dict(list(s.items())[:3])},
            "dictionaries blocks.2.hook_resid_post only there. Pass",
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
    newer, module = {**versions(), "torch": "9.9"}, sys.modules[capture.__module__]
    with monkeypatch.context() as context:
        context.setattr(module, "versions", lambda: newer)
        with pytest.raises(MismatchError, match="torch '2.* there, '9.9' here"):
            to(tmp_path)
    to(tmp_path)
    monkeypatch.setattr(module, "versions", lambda: newer)
    assert len(to(tmp_path)) == 4


def test_a_folder_with_something_else_is_left_alone(to, tmp_path):
    (tmp_path / "thesis.txt").write_text("words")
    with pytest.raises(InputError, match="holds 'thesis.txt' and no activations"):
        to(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "words"


def test_killed_captures_finish_as_one_that_was_not(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.activations.store.killed_captures", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
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
        "a shard that is not listed": (1, 1),  # the folder that it was written in
        "half a manifest": (1, 1),
        "a manifest without its name": (1, 1),
        "a shard that is listed": (0, 1),
    }
    whole = contents(tmp_path / "whole")
    assert len(whole) == 60 + 2  # manifest and lock
    names = {path.name for path in tmp_path.iterdir()}
    assert {"whole", "timed-0", "planned", "held"} <= names
    for name in names:
        assert contents(tmp_path / name) == whole, name

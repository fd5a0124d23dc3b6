"""Training goes on after any death, from a checkpoint that is what was written, and from no other.

A planted change of a file stands for what a disk, or a stranger, does to it.
"""

import json
import shutil
from itertools import cycle

import pytest
import torch

from circuit_toolkit.dictionaries import load_dictionaries, train_dictionaries
from circuit_toolkit.dictionaries.training.trainers import BatchTopKTraining, SaeTraining
from circuit_toolkit.errors import FileFormatError, InputError, WriteError
from circuit_toolkit.files.documents import digest, sha256_of
from circuit_toolkit.files.folder import locked
from circuit_toolkit.files.scratch import is_scratch
from tests.dictionaries.training.test_train import MLP, SHORT, SITE, TEXTS, Stop, equal, stopping
from tests.killed import Killed, contents, killed_at
from tests.tiny import WIDTH

FEW = {**SHORT, "n_features": 24, "steps": 9, "batch": 32, "checkpoint_every": 3}
TRAININGS = {
    "sae": (SITE, "sae", TEXTS[:20]),
    "transcoder": (MLP, "transcoder", TEXTS[:20]),
    "stream": (SITE, "sae", lambda: cycle(TEXTS[:20])),
}


def train(tiny, folder, name="sae", **more):
    site, kind, texts = TRAININGS[name]
    more |= {"memory": 4 * WIDTH * 100} if name == "stream" else {}  # blocks of 100 tokens
    return train_dictionaries(tiny, [site], texts, kind, **{**FEW, **more}, folder=folder)[site]


@pytest.mark.parametrize("name", TRAININGS)
def test_killed_at_any_change_of_a_file_it_ends_as_if_it_had_not_been(tiny, tmp_path, name):
    """What changes no file between two changes is the same as a death at the second."""
    train(tiny, None, name)  # so that all is imported
    with pytest.MonkeyPatch.context() as patch:
        changes = killed_at(patch, 0)
        whole = train(tiny, tmp_path / "whole", name)
    files = contents(tmp_path / "whole")
    assert len(changes) > 40
    for number in range(1, len(changes) + 1):
        here = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patch:
            killed_at(patch, number)
            with pytest.raises(Killed):
                train(tiny, here, name)
        resumed = train(tiny, here, name)
        assert equal(resumed, whole), changes[number - 1]
        assert contents(here) == files, (number, changes[number - 1])  # and nothing else is there
        shutil.rmtree(here)


def test_a_second_process_in_the_folder_is_refused_by_name(tiny, tmp_path):
    with locked(tmp_path), pytest.raises(InputError, match=f"Another process .* {tmp_path}. Wait"):
        train(tiny, tmp_path)
    train(tiny, tmp_path)


@pytest.fixture(params=["sae", "transcoder"])
def stopped(request, tiny, tmp_path, monkeypatch):
    """A run that was stopped behind its checkpoint at step 6; name and folder of the checkpoint."""
    owner = SaeTraining if request.param == "sae" else BatchTopKTraining
    with monkeypatch.context() as patch:
        stopping(patch, owner, "update", at=8)
        with pytest.raises(Stop):
            train(tiny, tmp_path, request.param)
    (place,) = tmp_path.glob("checkpoints/*/000000006")
    return request.param, place


def refused(tiny, tmp_path, name, said):
    with pytest.raises(FileFormatError, match=said) as error:
        train(tiny, tmp_path, name)
    assert "Delete" in str(error.value) and "is trained anew" in str(error.value)


def test_any_damage_of_any_file_of_a_checkpoint_is_named(tiny, tmp_path, stopped):
    name, place = stopped
    for file in sorted(place.iterdir()):
        sound = file.read_bytes()
        middle = len(sound) // 2
        for damaged in (
            sound[:-2],
            sound + b" " if file.suffix == ".pt" else sound[1:],
            sound[:middle] + bytes([sound[middle] ^ 1]) + sound[middle + 1 :],
            b"",
        ):
            file.write_bytes(damaged)
            refused(tiny, tmp_path, name, "damaged|JSON|checkpoint")
        file.write_bytes(sound)
    file = place / ("weights.pt" if name == "sae" else "state.pt")
    file.rename(tmp_path / "away")
    refused(tiny, tmp_path, name, f"{file.name} is missing")


def forged(place, file, change):
    """Change what is in a file of a checkpoint, and all checksums that say so."""
    state = change(torch.load(place / file, weights_only=True))
    torch.save(state, place / file)
    listing = json.loads((place / "checkpoint.json").read_text())
    listed = listing["content"]["files"][file]
    listed |= {"sha256": sha256_of(place / file), "bytes": (place / file).stat().st_size}
    listing["sha256"] = digest(listing["content"])
    (place / "checkpoint.json").write_text(json.dumps(listing))


def every_leaf(state, path=()):
    """Where the numbers and tensors of a state are."""
    items = state.items() if isinstance(state, dict) else enumerate(state)
    for key, value in items:
        if isinstance(value, dict | list | tuple):
            yield from every_leaf(value, (*path, key))
        elif isinstance(value, torch.Tensor) or type(value) in (int, float):
            yield (*path, key)


def put(state, path, value):
    """The state with another value in one place."""
    if not path:
        is_number = isinstance(state, torch.Tensor) and state.is_floating_point()
        return torch.full_like(state, value) if is_number and isinstance(value, float) else value
    new = state.copy() if isinstance(state, dict) else list(state)
    new[path[0]] = put(state[path[0]], path[1:], value)
    return tuple(new) if isinstance(state, tuple) else new


@pytest.mark.parametrize("value", [float("nan"), torch.zeros(2, 3), "text"])
def test_values_of_another_kind_or_not_finite_are_named_though_checksums_fit(
    tiny, tmp_path, stopped, value
):
    name, place = stopped
    files = ("weights.pt", "trainer_state.pt") if name == "sae" else ("state.pt",)
    sound = contents(place)
    for file in files:
        leaves = list(every_leaf(torch.load(place / file, weights_only=True)))
        assert len(leaves) >= 5
        for leaf in leaves:
            forged(place, file, lambda state, leaf=leaf: put(state, leaf, value))
            refused(tiny, tmp_path, name, "of another kind, or not finite|damaged")
            for each, content in sound.items():
                (place / each).write_bytes(content)


def test_a_checkpoint_of_another_step_or_kind_is_named(tiny, tmp_path, stopped):
    name, place = stopped
    other = place.with_name("000000007")
    place.rename(other)
    refused(tiny, tmp_path, name, "of another step")
    other.rename(place)
    file = "weights.pt" if name == "sae" else "state.pt"
    forged(place, file, lambda state: dict([*state.items()][1:]))
    refused(tiny, tmp_path, name, "of another kind")


def test_training_that_diverged_is_named_and_the_checkpoint_before_it_stays(
    tiny, tmp_path, monkeypatch
):
    update = BatchTopKTraining.update

    def diverges(self, *batch):
        if self.step == 4:
            self.weights[0].data.fill_(float("nan"))
        return update(self, *batch)

    monkeypatch.setattr(BatchTopKTraining, "update", diverges)
    said = r"'transcoder-mlp_in-1' diverged: at step 6 .* smaller learning_rate"
    with pytest.raises(InputError, match=said):
        train(tiny, tmp_path, "transcoder")
    assert [each.name for each in tmp_path.glob("checkpoints/*/*")] == ["000000003"]
    with pytest.raises(InputError, match="diverged: at step 9"):
        train(tiny, None, "transcoder")


def test_a_disk_that_is_full_is_named_and_training_goes_on_when_it_is_not(
    tiny, tmp_path, monkeypatch
):
    whole = train(tiny, tmp_path / "whole")
    save, calls = SaeTraining.save, []

    def full(self, folder):
        calls.append(folder)
        if len(calls) == 2:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos")
        save(self, folder)

    with monkeypatch.context() as patch:
        patch.setattr(SaeTraining, "save", full)
        with pytest.raises(WriteError, match="could not be written.* call again"):
            train(tiny, tmp_path / "cut")
    assert not any(map(is_scratch, tmp_path.rglob("*")))
    assert equal(train(tiny, tmp_path / "cut"), whole)
    assert equal(load_dictionaries(tiny, tmp_path / "cut")[SITE], whole)

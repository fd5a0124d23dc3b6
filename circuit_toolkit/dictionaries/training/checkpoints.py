"""The training of one dictionary in a folder: checkpoints, what is finished, what may go on."""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuit_toolkit.dictionaries.dictionary import Dictionary, save_dictionary
from circuit_toolkit.dictionaries.loading import bind_dictionary, load_dictionaries
from circuit_toolkit.dictionaries.training.trainers import (
    SAMPLE,
    BatchTopKTraining,
    DictionaryConfig,
    SaeTraining,
)
from circuit_toolkit.errors import FileFormatError, InputError, MismatchError
from circuit_toolkit.files.folder import remove_files, replacing
from circuit_toolkit.models import Model
from circuit_toolkit.progress import Bar
from circuit_toolkit.sites import Site

Batches = Callable[[int], Iterator[tuple[Tensor, ...]]]  # step -> batches from there on
_CHECKPOINT_FILES = ("cfg.json", "weights.pt", "trainer_state.pt", "activation_scaler.json") + (
    "state.pt",
)
_UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError)


@dataclass(frozen=True)
class TrainingRun:
    """The training of one dictionary."""

    name: str
    sites: tuple[Site, ...]
    config: DictionaryConfig
    metadata: dict[str, Any]
    parent: Path | None
    half: bool

    def is_finished(self) -> bool:
        """Return whether the dictionary is in its folder."""
        if self.parent is None:
            return False
        done = self.parent / self.name / "cfg.json"
        for place in [done, *(each / "cfg.json" for each in self._checkpoints())]:
            if place.is_file():
                self._refuse_other_settings(place)
        return done.is_file()

    def train(self, batches: Batches, every: int, progress: bool) -> Any:
        """Train from the last checkpoint on."""
        sample = list(islice(batches(0), 1 if self._checkpoints() else SAMPLE))
        training, steps = self.begin(sample), self.config.steps
        rest = islice(batches(training.step), steps - training.step)
        said = {"total": steps, "initial": training.step, "shown": progress}
        with Bar(rest, self.sites[0].short, **said) as bar:
            for batch in bar:
                loss = training.update(*batch)
                if training.step % 100 == 0:
                    bar.tell(loss=f"{float(loss):.3f}")
                if training.step % every == 0 and training.step < steps:
                    self.save_checkpoint(training)
        return training.finish()

    def keep(self, model: Model, trained: Any) -> Dictionary:
        """Save what was trained, if there is a folder, and bind it to the model."""
        if self.parent is None:
            return bind_dictionary(model, trained, self.name)
        save_dictionary(trained, self.parent / self.name, half=self.half)
        self.forget()
        return self.load(model)

    def load(self, model: Model) -> Dictionary:
        """Load the dictionary from its folder."""
        assert self.parent is not None
        return load_dictionaries(model, self.parent / self.name)[self.sites[0]]

    def forget(self) -> None:
        """Delete the checkpoints, and what an interruption left of one."""
        if self.parent is None:
            return
        place = self.parent / "checkpoints" / self.name
        for pattern in ("[0-9]*", ".[0-9]*/[0-9]*", ".[0-9]*"):
            for each in place.glob(pattern):
                with contextlib.suppress(InputError):  # something else is in it
                    remove_files(each, _CHECKPOINT_FILES)
        for folder in (place, place.parent):
            with contextlib.suppress(OSError):  # absent, or not empty
                folder.rmdir()

    def _checkpoints(self) -> list[Path]:
        """All of them, the last one last; an interruption may leave an older one."""
        if self.parent is None:
            return []
        place = self.parent / "checkpoints" / self.name
        return sorted(each.parent for each in place.glob("[0-9]*/cfg.json"))

    def reached(self) -> int:
        """Return the step of the last checkpoint."""
        return int(checkpoints[-1].name) if (checkpoints := self._checkpoints()) else 0

    def save_checkpoint(self, training: SaeTraining | BatchTopKTraining) -> None:
        """Write a checkpoint whole or not at all, and let go of those before."""
        if self.parent is None:
            return
        older, place = self._checkpoints(), self.parent / "checkpoints" / self.name
        with replacing(place / f"{training.step:09d}", _CHECKPOINT_FILES) as new:
            training.save(new)
            (new / "cfg.json").write_text(json.dumps({"metadata": self.metadata}))
        for each in older:
            remove_files(each, _CHECKPOINT_FILES)

    def begin(self, sample: list[tuple[Tensor, ...]]) -> SaeTraining | BatchTopKTraining:
        """Begin on batches that show the scale, or go back to the last checkpoint."""
        columns = list(zip(*sample, strict=True))
        if self.config.rule == "topk":
            training = SaeTraining(columns[0], self.config, self.metadata)
        else:
            values = [torch.cat(column) for column in columns]
            training = BatchTopKTraining(values[0], values[-1], self.config, self.metadata)
        if checkpoints := self._checkpoints():
            try:
                training.load(checkpoints[-1])
            except _UNREADABLE as error:
                raise FileFormatError(
                    f"The checkpoint {str(checkpoints[-1])!r} is damaged ({error!r:.80}). Delete "
                    f"{str(checkpoints[-1].parent)!r}: this dictionary is trained anew."
                ) from error
        return training

    def _refuse_other_settings(self, place: Path) -> None:
        try:
            there = json.loads(place.read_text(encoding="utf-8")).get("metadata") or {}
        except ValueError as error:
            raise FileFormatError(f"{place} is not JSON ({error}). Delete its folder.") from error
        ours, there = _settings(self.metadata), _settings(there)
        other = [f"{k}={there.get(k)!r} (now {v!r})" for k, v in ours.items() if there.get(k) != v]
        if other:
            raise MismatchError(
                f"{str(place.parent)!r} holds a run with other settings: {', '.join(other[:4])}. "
                "Pass another folder, or resume=False to replace it."
            )


def _settings(metadata: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in metadata.items() if k != "training"} | metadata.get("training", {})

"""The training of one dictionary in a folder: checkpoints, what is finished, what may go on."""

from __future__ import annotations

import contextlib
import errno
import pickle
from collections.abc import Callable, Iterable, Iterator
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
from circuit_toolkit.files.documents import read_document, sha256_of, write_document
from circuit_toolkit.files.folder import (
    check_listed,
    check_replaceable,
    remove_files,
    replacing,
)
from circuit_toolkit.files.reading import read_json
from circuit_toolkit.files.scratch import clear_dead, write_error
from circuit_toolkit.models import Model
from circuit_toolkit.progress import Bar
from circuit_toolkit.sites import Site

Batches = Callable[[int], Iterator[tuple[Tensor, ...]]]  # step -> batches from there on
_LISTING = "checkpoint.json"
_CHECKPOINT_FILES = ("cfg.json", "weights.pt", "trainer_state.pt", "activation_scaler.json") + (
    *("state.pt", _LISTING),
)
_LISTED = {"sha256", "bytes"}
_FORM, _VERSION = "circuit_toolkit.checkpoint", 1
_UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) + (
    *(TypeError, AttributeError, IndexError),
)


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
        if is_done := done.is_file():
            self._refuse_other_settings(done.parent, _metadata(done))
        for each in self._checkpoints():
            self._refuse_other_settings(each, self._listing(each)["metadata"])
        return is_done

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
        self._refuse_diverged(trained.state_dict().values(), self.config.steps)
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
        clear_dead(self.parent, self.name)
        clear_dead(place)
        for each in place.glob("[0-9]*"):
            with contextlib.suppress(InputError):  # something else is in it
                _remove(each)
        for folder in (place, place.parent):
            with contextlib.suppress(OSError):  # absent, or not empty
                folder.rmdir()

    def _checkpoints(self) -> list[Path]:
        """All of them, the last one last; an interruption may leave an older one."""
        if self.parent is None:
            return []
        place = self.parent / "checkpoints" / self.name
        return sorted(each.parent for each in place.glob(f"[0-9]*/{_LISTING}"))

    def reached(self) -> int:
        """Return the step of the last checkpoint."""
        return int(checkpoints[-1].name) if (checkpoints := self._checkpoints()) else 0

    def save_checkpoint(self, training: SaeTraining | BatchTopKTraining) -> None:
        """Write a checkpoint whole or not at all, and let go of those before."""
        if self.parent is None:
            return
        older, place = self._checkpoints(), self.parent / "checkpoints" / self.name
        self._refuse_diverged(training.weights, training.step)
        with replacing(place / f"{training.step:09d}", _CHECKPOINT_FILES) as new:
            try:
                training.save(new)
            except RuntimeError as error:
                if "inline_container" not in str(error):
                    raise
                raise write_error(place, errno.EIO) from error  # torch says no more of a full disk
            files = {
                each.name: {"sha256": sha256_of(each), "bytes": each.stat().st_size}
                for each in sorted(new.iterdir())
            }
            content = {"metadata": self.metadata, "step": training.step, "files": files}
            write_document(new / _LISTING, _FORM, _VERSION, content)
        for each in older:
            _remove(each)

    def begin(self, sample: list[tuple[Tensor, ...]]) -> SaeTraining | BatchTopKTraining:
        """Begin on batches that show the scale, or go back to the last checkpoint."""
        columns = list(zip(*sample, strict=True))
        if self.config.rule == "topk":
            training = SaeTraining(columns[0], self.config, self.metadata)
        else:
            values = [torch.cat(column) for column in columns]
            training = BatchTopKTraining(values[0], values[-1], self.config, self.metadata)
        if checkpoints := self._checkpoints():
            self._go_back(training, checkpoints[-1])
        return training

    def _go_back(self, training: SaeTraining | BatchTopKTraining, place: Path) -> None:
        """Load a checkpoint, after a look at the checksum of each of its files."""
        listing, again = self._listing(place), self._remedy()
        for name, each in listing["files"].items():
            check_listed(place / name, each["sha256"], each["bytes"], again)
        try:
            training.load(place)
            if not training.step == listing["step"] == int(place.name):
                raise ValueError("it is of another step")
        except _UNREADABLE as error:
            raise FileFormatError(
                f"The checkpoint {str(place)!r} is damaged ({error!r:.80}). {again}"
            ) from error

    def _listing(self, place: Path) -> dict[str, Any]:
        """Return what a checkpoint says of itself."""
        again = self._remedy()
        content = read_document(place / _LISTING, _FORM, _VERSION, again)
        files = content.get("files")
        if (
            not isinstance(content.get("metadata"), dict)
            or not isinstance(files, dict)
            or not files
            or not set(files) <= {*_CHECKPOINT_FILES}
            or not all(isinstance(each, dict) and {*each} == _LISTED for each in files.values())
        ):
            raise FileFormatError(f"{place / _LISTING} describes no checkpoint. {again}")
        return content

    def _remedy(self) -> str:
        assert self.parent is not None
        place = self.parent / "checkpoints" / self.name
        return f"Delete {str(place)!r}: this dictionary is trained anew."

    def _refuse_diverged(self, weights: Iterable[Tensor], step: int) -> None:
        if not all(bool(each.isfinite().all()) for each in weights):
            raise InputError(
                f"The training of {self.name!r} diverged: at step {step} its weights are not "
                "finite. Pass a smaller learning_rate, and resume=False."
            )

    def _refuse_other_settings(self, place: Path, there: dict[str, Any]) -> None:
        ours, there = _settings(self.metadata), _settings(there)
        other = [f"{k}={there.get(k)!r} (now {v!r})" for k, v in ours.items() if there.get(k) != v]
        if other:
            raise MismatchError(
                f"{str(place)!r} holds a run with other settings: {', '.join(other[:4])}. "
                "Pass another folder, or resume=False to replace it."
            )


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint; what is left of it, if that is interrupted, is none."""
    check_replaceable(checkpoint, _CHECKPOINT_FILES)
    (checkpoint / _LISTING).unlink(missing_ok=True)
    remove_files(checkpoint, _CHECKPOINT_FILES)


def _metadata(config: Path) -> dict[str, Any]:
    """Return what a finished dictionary says of itself."""
    found = read_json(config, "Delete its folder.")
    about = found.get("metadata") if isinstance(found, dict) else found
    if not isinstance(about, dict | None):
        raise FileFormatError(f"{config} holds no settings of a dictionary. Delete its folder.")
    return about or {}


def _settings(metadata: dict[str, Any]) -> dict[str, Any]:
    more = metadata.get("training")
    more = more if isinstance(more, dict) else {}
    return {k: v for k, v in metadata.items() if k != "training"} | more

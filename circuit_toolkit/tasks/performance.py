"""How a model does on a task, prompt by prompt, and the prompts that it solves."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from circuit_toolkit.arguments import expect
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import LOGITS, Model, run
from circuit_toolkit.tasks.prompt_pairs import row_slices, rows_of


@dataclass(frozen=True, eq=False)
class Performance:
    """How a model does on the prompts of a task.

    Parameters
    ----------
    correct : ndarray of bool, shape (rows,)
        Of each clean and then each corrupted prompt, whether the best answer beats every wrong
        token.
    metric : ndarray, shape (rows,)
        The task's metric, in logits or as a probability.
    n : int
        Number of clean prompts, which come first.
    chance : float
        Accuracy of a model that ranks answers and wrong tokens at random.
    """

    correct: np.ndarray
    metric: np.ndarray
    n: int
    chance: float

    @property
    def accuracy(self) -> float:
        """Share of the clean prompts that the model solves."""
        return float(self.correct[: self.n].mean())

    @property
    def solved(self) -> int:
        """Number of clean prompts that the model solves."""
        return int(self.correct[: self.n].sum())

    @property
    def mean(self) -> float:
        """Mean metric of the clean prompts."""
        return float(self.metric[: self.n].mean())

    @property
    def corrupted_accuracy(self) -> float | None:
        """Share of the corrupted prompts after which the clean answer wins; None without any."""
        rest = self.correct[self.n :]
        return float(rest.mean()) if len(rest) else None

    @property
    def corrupted_mean(self) -> float | None:
        """Mean metric of the corrupted prompts: what is left without the evidence."""
        rest = self.metric[self.n :]
        return float(rest.mean()) if len(rest) else None

    def __repr__(self) -> str:
        """Accuracy and metric beside what chance and corrupted prompts give."""
        without = self.corrupted_mean
        beside = "" if without is None else f" ({without:.2f} on corrupted prompts)"
        return (
            f"Performance({self.solved} of {self.n} solved, {self.chance:.2f} by chance; metric "
            f"{self.mean:.2f}{beside})"
        )


def performance(
    self: Any,
    model: Model,
    *,
    bos: bool | None = None,
    batch_size: int = 32,
    progress: bool = False,
) -> Performance:
    """Run a model on all prompts.

    Parameters
    ----------
    model : Model
        The model, whose tokenizer the task was made for.
    bos : bool, optional
        Whether prompts begin with the beginning-of-sequence token, as in `Model.tokenize`.
    batch_size : int
        Prompts in a run.
    progress : bool
        Show a bar.

    Returns
    -------
    Performance

    Raises
    ------
    InputError
        If the task has labels and no answers, or `model` is none.
    """
    expect(model, "model", "Model")
    self._need_answers()
    batch = model.tokenize(self.texts, bos=bos)
    correct, metric = [], []
    for some in row_slices(len(batch.ids), batch_size, progress, self.name):
        logits = run(model, rows_of(batch, some), [LOGITS], last_logits=True)[LOGITS][:, -1]
        rows = range(some.start, some.stop)
        metric.append(self.score(logits, rows))
        correct.append(self.accuracy(logits, rows))
    sides = zip(self.answers, self.wrong, strict=True)
    chances = [len(right) / (len(right) + len(wrong)) for right, wrong in sides]
    return Performance(
        correct=torch.cat(correct).cpu().numpy(),
        metric=torch.cat(metric).cpu().numpy(),
        n=len(self),
        chance=float(np.mean(chances)),
    )


def solved_by(
    self: Any,
    model: Model,
    *,
    bos: bool | None = None,
    batch_size: int = 32,
    progress: bool = False,
) -> Any:
    """Keep the prompts that a model solves, and count the others in `unsolved`.

    A circuit for a task is looked for where the task is done. A score on these prompts alone says
    nothing of how often the model is right: `performance` does.

    Parameters
    ----------
    model : Model
        The model, whose tokenizer the task was made for.
    bos, batch_size, progress
        As in `performance`.

    Returns
    -------
    Task

    Raises
    ------
    InputError
        If the model solves none, or as in `performance`.
    """
    solved = performance(self, model, bos=bos, batch_size=batch_size, progress=progress).correct
    kept = np.flatnonzero(solved[: len(self)])
    failed = len(self) - len(kept)
    if not len(kept):
        raise InputError(
            f"{model.name} solves none of {len(self)} prompts of {self.name!r}: there is no "
            "circuit of this task to find. Use a larger model or another task."
        )
    if failed:
        warnings.warn(
            f"{failed} of {len(self)} prompts of {self.name!r} are left out: {model.name} does "
            "not solve them.",
            UserWarning,
            stacklevel=2,
        )
    return replace(self.select(kept), unsolved=self.unsolved + failed)

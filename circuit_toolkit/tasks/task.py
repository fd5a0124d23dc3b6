"""Task: prompts, corrupted twins, what is right, and the number that says how right a model is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model

Metric = Literal["logit_difference", "probability_difference"]


@dataclass(frozen=True, eq=False)
class Task:
    """Prompts with answers, and the metric that measures a model on them.

    The rows of a task are its n clean prompts, then their n corrupted twins if there are any. A
    twin is scored with the answers of its clean prompt, so the metric falls where the evidence
    for the answer is gone.

    Parameters
    ----------
    name : str
        For example `ioi`.
    clean : tuple of str
        n prompts, each up to the word that is asked for.
    corrupted : tuple of str
        Their twins in the same order, or empty.
    answers, wrong : tuple of tuple of int
        For each clean prompt the tokens that are right next, and those that are wrong.
    metric : {"logit_difference", "probability_difference"}
        Mean logit of the answers minus mean logit of the wrong tokens; or the probability of all
        answers minus that of all wrong tokens.
    labels : dict of str to tuple of str
        Classes of the clean prompts, such as `{"profession": (...), "gender": (...)}`.
    positions : dict of str to tuple of int
        Named places: for each clean prompt the index of a token, counted from the end (-1 is the
        last), which holds for its twin too.
    directions : tuple of int
        For each clean prompt +1 or -1, where the metric changes its sense from prompt to prompt:
        "right minus wrong" is "singular minus plural" or the reverse. A regression explains the
        metric times this, which features can add up to. Empty where it is always the same.
    """

    name: str
    clean: tuple[str, ...]
    corrupted: tuple[str, ...]
    answers: tuple[tuple[int, ...], ...]
    wrong: tuple[tuple[int, ...], ...]
    metric: Metric = "logit_difference"
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    positions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    directions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse parts that do not go together."""
        n = len(self.clean)
        if not n:
            raise InputError(f"Task {self.name!r} has no prompts.")
        for what, given in [("answers", self.answers), ("wrong", self.wrong)]:
            if len(given) != n or not all(given):
                raise InputError(f"{what} must hold at least one token for each of {n} prompts.")
        if len(self.corrupted) not in (0, n):
            raise InputError(f"{n} prompts need {n} corrupted twins or none: {len(self.corrupted)}")
        if self.metric not in ("logit_difference", "probability_difference"):
            raise InputError(
                f"Unknown metric {self.metric!r}: use 'logit_difference' or "
                "'probability_difference'."
            )
        if len(self.directions) not in (0, n) or not set(self.directions) <= {-1, 1}:
            raise InputError(f"directions must be empty or +1 or -1 for each of {n} prompts.")
        for what, values in [*self.labels.items(), *self.positions.items()]:
            if len(values) != n:
                raise InputError(f"{what!r} must have one entry for each of {n} prompts.")

    @classmethod
    def from_pairs(
        cls,
        model: Model,
        pairs: Sequence[tuple[str, str, str, str]],
        *,
        name: str = "own",
        metric: Metric = "logit_difference",
    ) -> Task:
        """Make a task of one's own prompts.

        Parameters
        ----------
        model : Model
            Whose tokenizer the answers must be single tokens of.
        pairs : sequence of (clean, corrupted, answer, wrong answer)
            The prompts end just before the answer; twins should be of equal length.
        name : str
            Name of the task.
        metric : {"logit_difference", "probability_difference"}
            What measures the model.

        Returns
        -------
        Task

        Raises
        ------
        InputError
            If there is no pair, one has not four parts, or an answer is not one token.
        """
        if not pairs or any(len(pair) != 4 for pair in pairs):
            raise InputError(f"Pass (clean, corrupted, answer, wrong) tuples, got {pairs!r:.80}.")
        clean, corrupted, answers, wrong = zip(*pairs, strict=True)
        return cls(
            name,
            tuple(clean),
            tuple(corrupted),
            tuple((model.token_id(word),) for word in answers),
            tuple((model.token_id(word),) for word in wrong),
            metric,
        )

    def __len__(self) -> int:
        """Give the number of clean prompts."""
        return len(self.clean)

    def __repr__(self) -> str:
        """Name, size and metric; not the prompts."""
        twins = "with" if self.corrupted else "without"
        return f"Task({self.name!r}, {len(self)} prompts {twins} twins, {self.metric})"

    @property
    def texts(self) -> list[str]:
        """All prompts: clean, then corrupted."""
        return [*self.clean, *self.corrupted]

    @property
    def groups(self) -> np.ndarray:
        """Number of the pair that each of `texts` belongs to, shape (rows,)."""
        n = len(self.clean)
        return np.tile(np.arange(n), 2 if self.corrupted else 1)

    @cached_property
    def _tokens(self) -> tuple[Tensor, Tensor, Tensor]:
        """Row, token and weight of every answer (+) and wrong token (-), for scatter-adds."""
        rows, tokens, signs = [], [], []
        mean = self.metric == "logit_difference"
        for row, (right, wrong) in enumerate(zip(self.answers, self.wrong, strict=True)):
            for sign, group in ((1.0, right), (-1.0, wrong)):
                rows += [row] * len(group)
                tokens += group
                signs += [sign / len(group) if mean else sign] * len(group)
        return torch.tensor(rows), torch.tensor(tokens), torch.tensor(signs)

    def score(self, logits: Tensor, rows: Sequence[int] | np.ndarray) -> Tensor:
        """Measure the metric.

        Parameters
        ----------
        logits : Tensor, shape (B, V)
            Logits at the last token of B prompts.
        rows : sequence of int, length B
            Which of `texts` they are.

        Returns
        -------
        Tensor, shape (B,)
            The metric: in logits, or as a probability.
        """
        logits = logits.detach().float().cpu()
        values = logits if self.metric == "logit_difference" else logits.softmax(-1)
        pair = torch.as_tensor(np.asarray(rows)) % len(self)  # (B,)
        weights = torch.zeros(len(self), values.shape[1])
        weights.index_put_(self._tokens[:2], self._tokens[2], accumulate=True)
        return (values * weights[pair]).sum(1)

    def accuracy(self, logits: Tensor, rows: Sequence[int] | np.ndarray) -> Tensor:
        """Say where the best answer beats every wrong token.

        Parameters
        ----------
        logits : Tensor, shape (B, V)
            Logits at the last token of B prompts.
        rows : sequence of int, length B
            Which of `texts` they are.

        Returns
        -------
        Tensor, shape (B,)
            True or false.
        """
        pair = np.asarray(rows) % len(self)
        return torch.stack(
            [
                line[list(self.answers[i])].max() > line[list(self.wrong[i])].max()
                for line, i in zip(logits, pair, strict=True)
            ]
        )

    def subset(self, n: int) -> Task:
        """Keep the first `n` prompts and their twins.

        Parameters
        ----------
        n : int
            How many; more than there are keeps all.

        Returns
        -------
        Task
        """
        return Task(
            self.name,
            self.clean[:n],
            self.corrupted[:n],
            self.answers[:n],
            self.wrong[:n],
            self.metric,
            {name: values[:n] for name, values in self.labels.items()},
            {name: values[:n] for name, values in self.positions.items()},
            self.directions[:n],
        )

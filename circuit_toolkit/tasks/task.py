"""Task: prompts, corrupted ones, what is right, and the metric that says how right a model is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.arguments import one_of, refuse_surrogates, whole
from circuit_toolkit.errors import InputError
from circuit_toolkit.tasks.chat import as_chat
from circuit_toolkit.tasks.hub import from_hub
from circuit_toolkit.tasks.performance import performance, solved_by
from circuit_toolkit.tasks.tables import Metric, from_pairs, from_table
from circuit_toolkit.tasks.token_tables import from_tokens

Split = Literal["training", "held-out"]
MOST = 20_000  # prompts that a circuit remembers having been learnt on


@dataclass(frozen=True, eq=False)
class Task:
    """Prompts with answers, and the metric that says how right a model is.

    The rows of a task are its n clean prompts, then their n corrupted prompts if there are any. A
    corrupted prompt is scored with the answers of its clean prompt, so the metric falls where the
    evidence for the answer is gone. A task may have labels in place of answers: then nothing scores
    a model, and its labels are what a regression explains.

    Parameters
    ----------
    name : str
        For example `ioi`.
    clean : tuple of str
        n prompts, each up to the word that is asked for.
    corrupted : tuple of str
        Their corrupted prompts in the same order, or empty.
    answers, wrong : tuple of tuple of int
        For each clean prompt the tokens that are right next, and those that are wrong; both empty
        for a task of labels alone.
    metric : {"logit_difference", "probability_difference"} or None
        Mean logit of the answers minus mean logit of the wrong tokens; or the probability of all
        answers minus that of all wrong tokens. None if and only if there are no answers.
    labels : dict of str to tuple of str
        Classes of the clean prompts, such as `{"profession": (...), "gender": (...)}`.
    positions : dict of str to tuple of int
        Named places: for each clean prompt the index of a token, counted from the end (-1 is the
        last), which holds for its corrupted prompt too.
    directions : tuple of int
        For each clean prompt +1 or -1, where the metric changes its sense from prompt to prompt:
        "right minus wrong" is "singular minus plural" or the reverse. A regression explains the
        metric times this, which features can add up to. Empty where it is always the same.
    split : {"training", "held-out"} or None
        Which part of the material the prompts are of; None where nobody said.
    seed : int or None
        Which of its prompts were drawn.
    unsolved : int
        How many other prompts were left out because a model fails them, see `solved_by`.
    """

    name: str
    clean: tuple[str, ...]
    corrupted: tuple[str, ...] = ()
    answers: tuple[tuple[int, ...], ...] = ()
    wrong: tuple[tuple[int, ...], ...] = ()
    metric: Metric | None = "logit_difference"
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    positions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    directions: tuple[int, ...] = ()
    split: Split | None = None
    seed: int | None = None
    unsolved: int = 0

    from_pairs = classmethod(from_pairs)
    from_table = classmethod(from_table)
    from_tokens = classmethod(from_tokens)
    from_hub = classmethod(from_hub)
    as_chat = as_chat
    performance = performance
    solved_by = solved_by

    def __post_init__(self) -> None:
        """Refuse parts that do not go together."""
        if isinstance(self.clean, str) or isinstance(self.corrupted, str):
            raise InputError("Pass prompts as a tuple of texts, not one text: write (text,).")
        texts = (each for each in (self.name, *self.texts, *chain(*self.labels.values())))
        for text in texts:
            if isinstance(text, str):
                refuse_surrogates(text, "A text of a task")
        ends = (each for each in chain(*self.labels.values()) if isinstance(each, str))
        if bad := [text for text in ends if text.endswith("\0")]:  # arrays of texts drop it
            raise InputError(f"A label ends in NUL, {bad[0]!r:.80}: leave it out.")
        n = len(self.clean)
        if not n:
            raise InputError(f"Task {self.name!r} has no prompts.")
        for what, given in [("answers", self.answers), ("wrong", self.wrong)]:
            if self.metric is None and given:
                raise InputError(f"metric=None is for a task without {what}: choose a metric.")
            if self.metric is not None and (len(given) != n or not all(given)):
                raise InputError(
                    f"{what} must hold at least one token for each of {n} prompts. For a task of "
                    "labels alone pass metric=None and none."
                )
        if len(self.corrupted) not in (0, n):
            raise InputError(
                f"{n} prompts need {n} corrupted prompts or none: {len(self.corrupted)}"
            )
        one_of(self.metric, "metric", None, "logit_difference", "probability_difference")
        if len(self.directions) not in (0, n) or not set(self.directions) <= {-1, 1}:
            raise InputError(f"directions must be empty or +1 or -1 for each of {n} prompts.")
        one_of(self.split, "split", None, "training", "held-out")
        for what, values in [*self.labels.items(), *self.positions.items()]:
            if len(values) != n:
                raise InputError(f"{what!r} must have one entry for each of {n} prompts.")

    def __len__(self) -> int:
        """Return the number of clean prompts."""
        return len(self.clean)

    def __repr__(self) -> str:
        """Name, size and metric; not the prompts."""
        corrupted = f"{'with' if self.corrupted else 'without'} corrupted prompts"
        metric = self.metric or "no metric"
        left_out = f", {self.unsolved} unsolved left out" if self.unsolved else ""
        return f"Task({self.name!r}, {len(self)} prompts {corrupted}, {metric}{left_out})"

    def record(self) -> dict[str, Any]:
        """Return which prompts these are: what evidence and circuits say of them.

        Returns
        -------
        dict
            `task` (the name), `metric`, `split`, `seed`, `n`, the number of clean prompts, and
            `unsolved`, the number of those that were left out.
        """
        return {
            "task": self.name,
            "metric": self.metric,
            "split": self.split,
            "seed": self.seed,
            "n": len(self),
            "unsolved": self.unsolved,
        }

    @property
    def texts(self) -> list[str]:
        """All prompts: clean, then corrupted."""
        return [*self.clean, *self.corrupted]

    @property
    def groups(self) -> np.ndarray:
        """Number of the pair that each of `texts` belongs to, shape (rows,)."""
        n = len(self.clean)
        return np.tile(np.arange(n), 2 if self.corrupted else 1)

    def _weights(self, rows: Sequence[int] | np.ndarray, like: Tensor) -> Tensor:
        """Return how much each token counts, answers + and wrong ones -, (B, V) as `like`."""
        self._need_answers()
        mean = self.metric == "logit_difference"
        weights = torch.zeros_like(like)
        for line, row in zip(weights, np.asarray(rows) % len(self), strict=True):
            for sign, group in ((1.0, self.answers[row]), (-1.0, self.wrong[row])):
                share = sign / len(group) if mean else sign
                line.index_add_(
                    0,
                    torch.tensor(group, device=like.device),
                    torch.full((len(group),), share, device=like.device),
                )
        return weights

    def weights(self, tokens: Sequence[int], rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return how much the logits (or probabilities) of some tokens count in the metric.

        Parameters
        ----------
        tokens : sequence of int
            Which tokens, q of them.
        rows : sequence of int
            Which of `texts`, B of them.

        Returns
        -------
        ndarray, shape (B, q)
        """
        most = max([*tokens, *(token for group in (*self.answers, *self.wrong) for token in group)])
        every = self._weights(rows, torch.zeros(len(rows), most + 1))
        return every[:, list(tokens)].numpy()

    def _need_answers(self) -> None:
        if self.metric is None:
            known = ", ".join(self.labels) or "none"
            raise InputError(
                f"Task {self.name!r} has no answers, so nothing scores a model on it. Use its "
                f"labels ({known}) as targets."
            )

    def score(self, logits: Tensor, rows: Sequence[int] | np.ndarray) -> Tensor:
        """Return the metric, without a graph for gradients.

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

        Raises
        ------
        InputError
            If the task has labels and no answers.
        """
        return self.metric_of(logits.detach()[:, None], rows).cpu()

    def metric_of(self, logits: Tensor, rows: Sequence[int] | np.ndarray) -> Tensor:
        """Return the metric at the last token as `score` does, keeping the graph for gradients.

        Parameters
        ----------
        logits, rows
            Logits of B prompts, padded on the left, shape (B, T, V); and which they are. Errors as
            in `score`.

        Returns
        -------
        Tensor, shape (B,)
        """
        last = logits[:, -1].float()
        values = last if self.metric == "logit_difference" else last.softmax(-1)
        return (values * self._weights(rows, last.detach())).sum(1)

    def metric_gradient(self, logits: Tensor, rows: Sequence[int] | np.ndarray) -> Tensor:
        """Return what each logit counts in the metric: its gradient.

        Parameters
        ----------
        logits, rows
            As in `score`, whose errors it has.

        Returns
        -------
        Tensor, shape (B, V)
        """
        leaf = logits.detach().clone().requires_grad_()
        with torch.enable_grad():
            total = self.metric_of(leaf[:, None], rows).sum()
        return torch.autograd.grad(total, leaf)[0]

    def change(self, logits: Tensor, reference: Tensor, rows: Sequence[int]) -> Tensor:
        """Return how far the metric is from that of other logits.

        Parameters
        ----------
        logits, reference, rows
            Two logits of the same prompts, each as in `metric_of`.

        Returns
        -------
        Tensor, shape (B,)
            0 or more, in the unit of the metric.
        """
        return (self.metric_of(logits, rows) - self.metric_of(reference, rows)).abs()

    def accuracy(self, logits: Tensor, rows: Sequence[int] | np.ndarray) -> Tensor:
        """Return where the best answer beats every wrong token, true or false.

        Parameters
        ----------
        logits, rows
            As in `score`, whose errors it has.

        Returns
        -------
        Tensor, shape (B,)
        """
        self._need_answers()
        pair = np.asarray(rows) % len(self)
        return torch.stack(
            [
                line[list(self.answers[i])].max() > line[list(self.wrong[i])].max()
                for line, i in zip(logits, pair, strict=True)
            ]
        )

    def subset(self, n: int) -> Task:
        """Keep the first `n` prompts and their corrupted prompts.

        Parameters
        ----------
        n : int
            How many; more than there are keeps all.

        Returns
        -------
        Task
        """
        return self.select(range(min(whole(n, "n", 1), len(self))))

    def select(self, rows: Sequence[int] | np.ndarray) -> Task:
        """Keep some prompts and their corrupted prompts.

        Parameters
        ----------
        rows : sequence of int
            Which clean prompts, in the order that is wanted.

        Returns
        -------
        Task

        Raises
        ------
        InputError
            If there is no such prompt, or none is kept.
        """
        index = np.asarray(rows)
        if index.size and (
            index.dtype.kind not in "iu" or not 0 <= index.min() <= index.max() < len(self)
        ):
            raise InputError(f"Rows of {self.name!r} are whole numbers from 0 to {len(self) - 1}.")

        def of(values: Sequence) -> tuple:
            return tuple(values[row] for row in index.tolist()) if len(values) else ()

        return replace(
            self,
            clean=of(self.clean),
            corrupted=of(self.corrupted),
            answers=of(self.answers),
            wrong=of(self.wrong),
            labels={name: of(values) for name, values in self.labels.items()},
            positions={name: of(values) for name, values in self.positions.items()},
            directions=of(self.directions),
        )


def reads_last_token(prompts: Any) -> bool:
    """Whether the metric needs the logits at the last token alone."""
    return isinstance(prompts, Task)


def trained_on(prompts: Any, n: int | None = None) -> dict[str, Any] | None:
    """Record the first n prompts of a task that something is learnt on; None if it is no task."""
    if not isinstance(prompts, Task):
        return None
    task = prompts if n is None else prompts.subset(n)
    texts = task.texts if len(task) <= MOST else []
    return {**task.record(), "digests": " ".join(map(_digest, dict.fromkeys(texts)))}


def seen_in(task: Task, trained: Mapping[str, Any] | None) -> int | None:
    """Count the clean prompts of a task that are in such a record; None if nobody can tell."""
    known = set(str((trained or {}).get("digests") or "").split())
    return sum(_digest(text) in known for text in task.clean) if known else None


def _digest(prompt: Any) -> str:
    text = prompt if isinstance(prompt, str) else " ".join(map(str, prompt))  # of token ids
    return hashlib.sha256(text.encode()).hexdigest()[:10]

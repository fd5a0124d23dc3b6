"""Which prompts make a graph, with which targets, and what each counts in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circuit_toolkit.arguments import described, is_chat
from circuit_toolkit.attribution.graph.targets import Target, Targets, as_targets, metric_target
from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.models import LOGITS, Batch, Model, run
from circuit_toolkit.models.model import token_mask
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

OTHER = "other"  # the position of all tokens that a task does not name


@dataclass(frozen=True, eq=False)
class Part:
    """One prompt, and what its graph counts in the sum."""

    ids: Tensor
    factor: float
    targets: Targets | Sequence[Target]
    places: list[str] | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """Which prompts make a graph, and what is said of them."""

    parts: list[Part]
    settings: dict[str, Any]
    label: str | None = None


def _ids(
    model: Model, known: Mapping[Site, Dictionary], prompt: Any, position: int, name: str
) -> Tensor:
    """Return the tokens of a prompt, (T,)."""
    is_text = isinstance(prompt, str)
    if not is_text and (isinstance(prompt, Mapping) or not hasattr(prompt, "__len__")):
        raise InputError(
            f"{name} must be a text, a list of token ids or a task, got {described(prompt)}."
        )
    batch = model.tokenize([prompt], bos=shared_bos(known) if is_text else None)
    n = batch.ids.shape[1]
    if int(token_mask(model, batch).sum()) < 2:
        raise InputError(
            f"{name} is one token, {model.words(batch)[0][-1]!r}: there is nothing before it that "
            "a graph could draw. Pass a text of at least two tokens."
        )
    if not -n <= position < n:
        raise InputError(
            f"position is {position}: the prompt has {n} tokens, 0 to {n - 1}, or -1 for the last."
        )
    return batch.ids[0]


def _logits(model: Model, ids: Tensor, position: int) -> Tensor:
    batch = Batch(ids[None], torch.ones_like(ids[None]))
    return run(model, batch, [LOGITS])[LOGITS][0, position].float()


def plan_of_prompt(
    model: Model,
    known: Mapping[Site, Dictionary],
    prompt: Any,
    targets: Any,
    pairs: Any,
    position: int,
    settings: Mapping[str, Any] | None = None,
) -> Plan:
    """Plan the graph of one prompt, or the difference of two."""
    prompt, pairs = (model.chat_text(each) if is_chat(each) else each for each in (prompt, pairs))
    ids = _ids(model, known, prompt, position, "prompt")
    if pairs is True:
        raise InputError("pairs=True is for a task. Of one prompt pass the corrupted one.")
    if pairs is not None and targets is None:  # the same for both
        targets = as_targets(model, None, _logits(model, ids, position))
    parts = [Part(ids, 1.0, targets)]
    settings = {
        "scope": "prompt",
        "prompt": _text(model, prompt, ids),
        "tokens": [model.word(i) for i in ids.tolist()],
        "token_ids": ids.tolist(),
        **(settings or {}),
    }
    if pairs is not None:
        other = _ids(model, known, pairs, position, "pairs")
        _expect_same_length(ids, other, settings["prompt"])
        parts.append(Part(other, -1.0, targets))
        settings |= {"corrupted": _text(model, pairs, other), "corrupted_ids": other.tolist()}
    return Plan(parts, settings)


def _text(model: Model, prompt: Any, ids: Tensor) -> str:
    return prompt if isinstance(prompt, str) else str(model.tokenizer.decode(ids.tolist()))


def _expect_same_length(ids: Tensor, other: Tensor, prompt: str) -> None:
    if len(ids) != len(other):
        raise MismatchError(
            f"The corrupted prompt has {len(other)} tokens, {prompt[:60]!r} has {len(ids)}: their "
            "tokens do not correspond. Pass two prompts of equal length."
        )


def plan_of_task(
    model: Model,
    known: Mapping[Site, Dictionary],
    task: Task,
    targets: Any,
    pairs: Any,
    position: int,
) -> Plan:
    """Plan the graph of a task's prompt, or the mean over its prompts at named positions."""
    if pairs not in (None, False, True):
        raise InputError("The corrupted prompts of a task are its own: pass pairs=True.")
    if pairs and not task.corrupted:
        raise InputError(f"Task {task.name!r} has no corrupted prompts: leave pairs out.")
    if task.metric is None and targets is None:
        raise InputError(f"Task {task.name!r} has labels alone: say which targets are explained.")

    def wanted(row: int, ids: Tensor) -> Any:
        if targets is not None:
            return targets
        return [metric_target(model, task, row, _logits(model, ids, position))]

    about = {"task": task.name, "split": task.split, "seed": task.seed}
    if len(task) == 1:
        ids = _ids(model, known, task.clean[0], position, "prompt")
        other = task.corrupted[0] if pairs else None
        return plan_of_prompt(model, known, task.clean[0], wanted(0, ids), other, position, about)
    parts = []
    for row, clean in enumerate(task.clean):
        ids = _ids(model, known, clean, position, "prompt")
        places = _places(task, row, len(ids))
        share, asked = 1 / len(task), wanted(row, ids)
        parts.append(Part(ids, share, asked, places))
        if pairs:
            other = _ids(model, known, task.corrupted[row], position, "pairs")
            _expect_same_length(ids, other, clean)
            parts.append(Part(other, -share, asked, places))
    settings = {
        "scope": "dataset",
        **about,
        "n": len(task),
        "positions": [*task.positions, "last", OTHER],
        **({"pairs": True} if pairs else {}),
    }
    return Plan(
        parts, settings, None if targets is not None else str(task.metric).replace("_", " ")
    )


def _places(task: Task, row: int, length: int) -> list[str]:
    """Return the name of each token of a prompt."""
    places = [OTHER] * length
    for name, ends in {**task.positions, "last": (-1,) * len(task)}.items():
        if places[ends[row]] == OTHER:
            places[ends[row]] = name
    return places

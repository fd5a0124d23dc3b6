"""Clean prompts and their corrupted prompts as tokens, side by side and in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from circuit_toolkit.arguments import expect, whole
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.models.model import Batch, Model, Prompt
from circuit_toolkit.progress import Bar


@runtime_checkable
class PromptPairs(Protocol):
    """Clean prompts, corrupted prompts of equal length, and two numbers read off the logits."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def clean(self) -> Sequence[Prompt]: ...  # noqa: D102

    @property
    def corrupted(self) -> Sequence[Prompt]: ...  # noqa: D102

    def metric_of(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """Return how well the model does on prompts `rows`: (B, T, V) -> (B,), differentiable."""
        ...

    def change(self, logits: Tensor, reference: Tensor, rows: Sequence[int]) -> Tensor:
        """Return how far outputs are from reference outputs: twice (B, T, V) -> (B,), 0 or more."""
        ...


@dataclass(frozen=True, eq=False)
class TokenPairs:
    """Tokens of n prompts and of their corrupted prompts, padded to one length."""

    clean: Batch
    corrupted: Batch

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.clean.ids)

    def fitting(self, model: Model) -> int:
        """Return how many prompts at once take half a gigabyte at most, over all components."""
        numbers = len(graph_of(model).writers) * self.clean.ids.shape[1] * model.width
        return min(max(2**27 // numbers, 1), 1024)

    def batches(self, size: int, progress: bool, label: str) -> Iterator[slice]:
        """Go through the pairs."""
        return row_slices(len(self), size, progress, label)

    def partners(self, seed: int, *, lone: bool = False) -> Tensor:
        """Return each prompt another one of its length, at random; itself if `lone` allows it."""
        rng = torch.Generator().manual_seed(seed)
        lengths = self.clean.mask.sum(1).cpu()
        found = torch.empty(len(self), dtype=torch.long)
        for length in lengths.unique():
            rows = (lengths == length).nonzero().flatten()
            if len(rows) == 1 and not lone:
                raise InputError(
                    f"Prompt {int(rows[0])} is the only one of {int(length)} tokens, so no other "
                    "prompt's outputs fit it. Leave it out, or swap to the corrupted prompt."
                )
            rows = rows[torch.randperm(len(rows), generator=rng)]
            found[rows] = rows.roll(1)  # one cycle through all
        return found


def row_slices(n: int, size: int, progress: bool = False, label: str = "") -> Iterator[slice]:
    """Go through n rows, so many at once, with a progress bar if wanted."""
    size = whole(size, "batch_size", 1)
    for start in Bar(range(0, n, size), label, shown=progress):
        yield slice(start, min(start + size, n))


def rows_of(batch: Batch, rows: slice | Tensor) -> Batch:
    """Return some prompts of a batch."""
    return Batch(batch.ids[rows], batch.mask[rows])


def expect_pairs(model: Model, task: Any, n_prompts: Any = None) -> int | None:
    """Refuse what is no model, or no prompts with a metric; return how many prompts to use."""
    expect(model, "model", "Model")
    if not isinstance(task, PromptPairs):
        expect(task, "task", "Task")
    if getattr(task, "metric", "") is None:
        raise InputError(f"Task {task.name!r} has labels alone: no metric says what changes.")
    return None if n_prompts is None else whole(n_prompts, "n_prompts", 1)


def tokenized_pairs(
    model: Model,
    task: PromptPairs,
    n_prompts: int | None = None,
    *,
    bos: bool | None = None,
    corrupted: bool = True,
) -> TokenPairs:
    """Tokenize prompts and their corrupted prompts, of equal lengths; or prompts alone, twice."""
    n_prompts = expect_pairs(model, task, n_prompts)
    texts = task.clean[:n_prompts], task.corrupted[:n_prompts]
    if not corrupted:
        clean = model.tokenize(texts[0], bos=bos)
        return TokenPairs(clean, clean)
    if len(texts[0]) != len(texts[1]):
        raise InputError(
            f"{task.name!r} has {len(texts[0])} prompts and {len(texts[1])} corrupted prompts. "
            "This method needs a corrupted prompt for each."
        )
    both, n = model.tokenize([*texts[0], *texts[1]], bos=bos), len(texts[0])
    pairs = TokenPairs(rows_of(both, slice(0, n)), rows_of(both, slice(n, None)))
    differ = (pairs.clean.mask.sum(1) != pairs.corrupted.mask.sum(1)).nonzero()
    if len(differ):
        raise InputError(
            f"Prompt {int(differ[0])} of {task.name!r} and its corrupted prompt are of different "
            "length in tokens, so their positions do not match. Use prompts of equal length."
        )
    return pairs

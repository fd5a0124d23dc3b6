"""Prompts in blocks that run at once, and whose outputs theirs are swapped for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from circuit_toolkit.arguments import one_of
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.components import Components, run_components
from circuit_toolkit.models.model import Batch, Model
from circuit_toolkit.tasks.prompt_pairs import PromptPairs, rows_of, tokenized_pairs

Swap = Literal["prompt", "corrupted"]


@dataclass(eq=False)
class Block:
    """Prompts that run at once, their clean run, and whose outputs theirs are swapped for."""

    rows: list[int]
    batch: Batch
    clean: Components
    others: Tensor | None
    groups: list[Tensor]
    spread: float
    n: int

    @property
    def has_partner(self) -> Tensor:
        """1 for prompts that can be swapped with something, else 0; shape (B,)."""
        found = torch.zeros(len(self.rows))
        for group in self.groups:
            found[group] = float(self.others is not None or len(group) > 1)
        return found

    def swapped(
        self, rng: torch.Generator, rows: Tensor | None = None, writers: Tensor | None = None
    ) -> Tensor:
        """Return outputs to swap for: each writer of a prompt of its own."""
        if self.others is not None:
            return self.others.clone() if rows is None else self.others[rows, writers]
        partner = self._partners(rng)
        if rows is not None:
            return self.clean.outputs[partner[rows, writers], writers]
        return self.clean.outputs[partner, torch.arange(partner.shape[1])]

    def _partners(self, rng: torch.Generator) -> Tensor:
        """Return every prompt and writer another prompt, shape (B, W)."""
        n, writers = self.clean.outputs.shape[:2]
        partner = torch.empty(n, writers, dtype=torch.long)
        for group in self.groups:
            order = torch.rand(len(group), writers, generator=rng).argsort(0)
            rows = group[order]  # (group, W)
            partner[rows, torch.arange(writers)] = rows.roll(1, 0)
        return partner


def clean_blocks(
    model: Model,
    task: PromptPairs,
    n_prompts: int | None,
    batch_size: int | None,
    swap: Swap,
    seed: int,
    progress: bool,
) -> Iterator[Block]:
    """Run prompts clean, batch by batch, those of one length together."""
    one_of(swap, "swap", "prompt", "corrupted")
    pairs = tokenized_pairs(model, task, n_prompts, corrupted=swap == "corrupted")
    lengths = pairs.clean.mask.sum(1).cpu()
    rng = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(pairs), generator=rng)
    order = shuffled[lengths[shuffled].argsort(stable=True)]
    if swap == "prompt" and int(torch.bincount(lengths).max()) < 2:
        raise InputError(
            f"No two prompts of {task.name!r} are of one length in tokens, so no output fits "
            "another prompt. Use more prompts, or swap='corrupted'."
        )
    # A batch is cut to the longest prompt in it: padding on the left costs time and no more.
    size = pairs.fitting(model) if batch_size is None else batch_size
    for part in pairs.batches(size, progress, "randomised"):
        rows = order[part]
        longest = int(lengths[rows].max())
        batch = _cut(rows_of(pairs.clean, rows), longest)
        clean = run_components(model, batch)
        others = None
        if swap == "corrupted":
            others = run_components(model, _cut(rows_of(pairs.corrupted, rows), longest)).outputs
        groups = [(lengths[rows] == size).nonzero().flatten() for size in lengths[rows].unique()]
        spread = _spread(clean.logits, batch.mask)
        yield Block(rows.tolist(), batch, clean, others, groups, spread, len(pairs))


def _cut(batch: Batch, length: int) -> Batch:
    return Batch(batch.ids[:, -length:], batch.mask[:, -length:])


def _spread(logits: Tensor, mask: Tensor) -> float:
    """Mean standard deviation of the logits of a token; 1 where there is but one."""
    if logits.shape[-1] < 2:
        return 1.0
    return max(float(logits[mask.bool()].float().std(-1).mean()), 1e-6)

"""Designed experiments on a running model: outputs of components are swapped at random.

Every run of a prompt swaps many outputs at once, each by a random bit of its own, for what the
same component put out on another prompt or on the corrupted prompt. What depends on what is then a
regression of responses on bits: what is used differs from what merely comes along with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from circuit_toolkit.arguments import one_of
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.components import Components, run_components
from circuit_toolkit.models.graph import Graph, graph_of
from circuit_toolkit.models.model import Batch, Model
from circuit_toolkit.tasks.prompt_pairs import PromptPairs, rows_of, tokenized_pairs

Design = Literal["direct", "edge"]
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


# What is swapped in a run of a block, by its number; and what that changes.
Draw = Callable[[Block, int, torch.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Experiment:
    """What was swapped, and what that changed."""

    bits: Tensor
    responses: Tensor
    prompts: Tensor
    alone: Tensor | None = None


def experiment(
    model: Model,
    task: PromptPairs,
    design: Design,
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    swap: Swap = "prompt",
    rho: float = 0.5,
    draws: int = 1,
    alone: int = 0,
    seed: int = 0,
    progress: bool = False,
) -> Experiment:
    """Swap with probability `rho`, `draws` times a prompt; and `alone` single components."""
    graph = graph_of(model)
    single = _Alone(model, task, graph, alone)
    draw = (_direct if design == "direct" else _edges)(model, task, graph, rho)
    rng = torch.Generator().manual_seed(seed + 1)
    bits, responses, prompts = [], [], []
    with torch.no_grad():
        for block in clean_blocks(model, task, n_prompts, batch_size, swap, seed, progress):
            single.run(block, rng)
            for number in range(draws):
                drawn, changed = draw(block, number, rng)
                bits.append(drawn.cpu())
                responses.append(changed.float().cpu())
                prompts.append(torch.tensor(block.rows))
    found = torch.cat(bits), torch.cat(responses), torch.cat(prompts)
    return Experiment(*found, single.means() if alone else None)


def _direct(model: Model, task: PromptPairs, graph: Graph, rho: float) -> Draw:
    """Put every reader's input together anew; nothing travels from one component to the next."""

    def draw(block: Block, number: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        clean = block.clean
        bits = (torch.rand(clean.outputs.shape[:2], generator=rng) < rho).float()
        bits = (bits * block.has_partner[:, None]).to(clean.outputs.device)
        added, done = torch.zeros_like(clean.inputs[0]), 0
        swapped = block.swapped(rng).sub_(clean.outputs).mul_(bits[:, :, None, None])

        def offset(slot: int, outputs: Tensor) -> Tensor:
            nonlocal added, done
            upstream, readers = graph.n_upstream(slot), graph.slots[slot]
            added, done = added + swapped[:, done:upstream].sum(1), upstream
            return added[:, None].expand(-1, readers.stop - readers.start, -1, -1)

        got = run_components(model, block.batch, offset, base=clean.inputs)
        moved = (got.outputs[:, 1:] - clean.outputs[:, 1:]).square_().sum(3)  # (B, W - 1, T)
        nodes = (moved * block.batch.mask[:, None]).sum(2).sqrt()
        target = task.change(got.logits / block.spread, clean.logits / block.spread, block.rows)
        return bits, torch.cat([nodes, target[:, None].to(nodes)], 1)

    return draw


class _Alone:
    """Runs that swap one component each: what that changes travels on to the outputs."""

    def __init__(self, model: Model, task: PromptPairs, graph: Graph, runs: int):
        self.model, self.task, self.graph, self.runs = model, task, graph, runs
        self.seen = self.done = 0  # prompts that came by, and runs
        self.total = torch.zeros(len(graph.writers), dtype=torch.double)
        self.count = torch.zeros_like(self.total)

    def means(self) -> Tensor:
        """Return the mean change for every writer, shape (W,)."""
        return self.total / self.count.clamp(min=1)

    def run(self, block: Block, rng: torch.Generator) -> None:
        """Do this block's share of the runs, on prompts of its own that have a partner."""
        usable = block.has_partner.nonzero().flatten()
        self.seen += len(block.rows)
        due = round(self.runs * self.seen / block.n) - self.done
        while due > 0 and len(usable):
            rows = usable[torch.randperm(len(usable), generator=rng)[:due]]
            self._swap(block, rows, rng)
            due -= len(rows)

    def _swap(self, block: Block, rows: Tensor, rng: torch.Generator) -> None:
        which = (self.done + torch.arange(len(rows))) % len(self.count)
        others = block.swapped(rng, rows, which)  # (b, T, D)
        each = torch.arange(len(rows))

        def offset(slot: int, outputs: Tensor) -> Tensor:
            last = outputs.shape[1] - 1
            there = (which <= last).to(outputs)[:, None, None]
            change = (others - outputs[each, which.clamp(max=last)]) * there
            readers = self.graph.slots[slot]
            return change[:, None].expand(-1, readers.stop - readers.start, -1, -1)

        got = run_components(self.model, rows_of(block.batch, rows), offset)
        numbers = [block.rows[row] for row in rows.tolist()]
        changed = self.task.change(got.logits, block.clean.logits[rows], numbers)
        self.total.index_add_(0, which, changed.cpu().double())
        self.count += torch.bincount(which, minlength=len(self.count))
        self.done += len(rows)


def _edges(model: Model, task: PromptPairs, graph: Graph, rho: float) -> Draw:
    """Swap what edges carry, each by a bit of its own; effects travel on as in edge patching."""
    groups = max(round(1 / rho), 2)
    writers, readers = graph.allowed.nonzero().T
    slots = torch.zeros_like(readers)
    for slot, which in enumerate(graph.slots):
        slots[(readers >= which.start) & (readers < which.stop)] = slot
    parts = torch.empty(0)  # group of every edge, anew where a round of draws begins

    def draw(block: Block, number: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        nonlocal parts
        clean = block.clean
        if number % groups == 0:
            parts = torch.randint(groups, (len(block.rows), len(writers)), generator=rng)
        bits = (parts == number % groups) & (block.has_partner[:, None] > 0)
        rows, edges = bits.nonzero().T  # few of all: what is not swapped costs nothing
        others = block.swapped(rng, rows, writers[edges])  # (swaps, T, D)

        def offset(slot: int, outputs: Tensor) -> Tensor | None:
            here = slots[edges] == slot
            if not here.any():
                return None
            n = graph.slots[slot].stop - graph.slots[slot].start
            row, edge = rows[here], edges[here]
            place = row * n + readers[edge] - graph.slots[slot].start
            added = outputs.new_zeros(len(outputs) * n, *outputs.shape[2:])
            added.index_add_(
                0, place.to(outputs.device), others[here] - outputs[row, writers[edge]]
            )
            return added.unflatten(0, (len(outputs), n))

        got = run_components(model, block.batch, offset)
        change = task.change(got.logits, clean.logits, block.rows)
        return bits.float(), change[:, None]

    return draw


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

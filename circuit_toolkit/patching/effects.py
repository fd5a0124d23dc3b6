"""Exact patching: outputs of another run are put into nodes or edges, and the rest is recomputed.

Nothing is approximated, so this is what faster methods are held against; it takes one run of a
prompt for each node or edge. Sources: Wang et al., 2022, arXiv 2211.00593 (path patching); Zhang
and Nanda, 2023, arXiv 2309.16042 (practice).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from circuit_toolkit.arguments import described, one_of
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import Average, averaged, component_circuit
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.components import Components, Offset, logits_from, run_components
from circuit_toolkit.models.graph import Graph, graph_of
from circuit_toolkit.models.model import Model
from circuit_toolkit.tasks.prompt_pairs import (
    PromptPairs,
    TokenPairs,
    expect_pairs,
    rows_of,
    tokenized_pairs,
)
from circuit_toolkit.tasks.task import reads_last_token, trained_on

PatchedFrom = Literal["corrupted", "other"]
Response = Literal["metric", "change"]


def edge_patching(
    model: Model,
    task: PromptPairs,
    *,
    edges: Iterable[tuple[str, str]] | None = None,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    swap: PatchedFrom = "corrupted",
    response: Response = "metric",
    average: Average = "mean of absolutes",
    seed: int = 0,
    progress: bool = True,
) -> Circuit:
    """Score every edge by patching it alone.

    The reader sees the output that the writer has on another prompt; all else is as it is.

    Parameters
    ----------
    model : Model
        The model.
    task : PromptPairs
        Prompts with corrupted prompts, and the metric; a `Task` is one.
    edges : iterable of (str, str), optional
        Which to patch, such as `("a0.h1", "logits")`; by default all, of which a model of 30 layers
        and 9 heads has 44,371.
    n_prompts : int, optional
        How many to use, the first ones; by default all.
    batch_size : int, optional
        Runs at once, each of one edge on one prompt; by default what fits into half a gigabyte.
    swap : {"corrupted", "other"}
        Outputs of the corrupted prompt, or of another clean prompt of the same length, at random.
    response : {"metric", "change"}
        Change of `task.metric_of`, or `task.change` against the clean run.
    average : {"absolute mean", "mean of absolutes"}
        Whether effects on different prompts may cancel.
    seed : int
        Decides which prompt is the other one.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Circuit
        Over components; the weight of an edge is its mean effect.

    Raises
    ------
    InputError
        If there are no corrupted prompts of equal length, an edge does not exist, or an option is
        unknown.
    """
    sizes: dict[str, Any] = {"n_prompts": n_prompts, "batch_size": batch_size, "progress": progress}
    options: dict[str, Any] = {"swap": swap, "response": response, "seed": seed}

    def effects(graph: Graph) -> Tensor:
        some = graph.edges if edges is None else _as_edges(edges)
        each = patching_effects(model, task, [[edge] for edge in some], **sizes, **options)
        found = torch.zeros(len(each), *graph.allowed.shape)
        for (writer, reader), effect in zip(some, each.T, strict=True):
            found[:, graph.writer(writer), graph.reader(reader)] = effect
        return found

    return circuit_of_effects("edge patching", model, task, effects, average, options)


def activation_patching(
    model: Model,
    task: PromptPairs,
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    swap: PatchedFrom = "corrupted",
    response: Response = "metric",
    average: Average = "mean of absolutes",
    seed: int = 0,
    progress: bool = True,
) -> Circuit:
    """Score every component by activation patching: no edges, only nodes.

    The output of the component is that on another prompt, and everything after is recomputed.

    Parameters
    ----------
    model, task, n_prompts, batch_size, swap, response, average, seed, progress
        As for `edge_patching`, each run of one component in place of one edge.

    Returns
    -------
    Circuit
        With scores of its nodes and no edges.

    Raises
    ------
    InputError
        If there are no corrupted prompts of equal length, or an option is unknown.
    """
    sizes: dict[str, Any] = {"n_prompts": n_prompts, "batch_size": batch_size, "progress": progress}
    options: dict[str, Any] = {"swap": swap, "response": response, "seed": seed}

    def effects(graph: Graph) -> Tensor:
        sets = [edges_out_of(graph, name) for name in graph.writers]
        return patching_effects(model, task, sets, **sizes, **options)

    return circuit_of_effects("node patching", model, task, effects, average, options)


def circuit_of_effects(
    method: str,
    model: Model,
    task: PromptPairs,
    effects: Callable[[Graph], Tensor],
    average: Average,
    settings: dict[str, Any],
) -> Circuit:
    """Return a circuit over components, scored by effects (n, W, R) of edges or (n, W) of nodes."""
    began = time.perf_counter()
    expect_pairs(model, task)
    averaged(torch.zeros(1, 1), average)  # refuses an unknown one before anything is run
    graph = graph_of(model)
    found = effects(graph)
    scores = averaged(found, average)
    settings = {
        "method": method,
        "model": model.name,
        "task": task.name,
        "n_prompts": len(found),
        "trained_on": trained_on(task, len(found)),
        "average": average,
        **settings,
        "seconds": time.perf_counter() - began,
    }
    if found.ndim == 3:
        return component_circuit(graph, scores, settings, weights=found.mean(0))
    none = torch.zeros(graph.allowed.shape)
    return component_circuit(graph, none, settings, node_scores=scores)


def edges_out_of(graph: Graph, writer: str) -> list[tuple[str, str]]:
    """Return all edges out of a component; to patch them all is to patch the component."""
    readers = graph.allowed[graph.writer(writer)].nonzero().flatten().tolist()
    return [(writer, graph.readers[reader]) for reader in readers]


def patching_effects(
    model: Model,
    task: PromptPairs,
    sets: Sequence[Sequence[tuple[str, str]]],
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    swap: PatchedFrom = "corrupted",
    response: Response = "metric",
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Return the effects (n, sets) of patching sets of edges, each set in runs of its own."""
    one_of(swap, "swap", "corrupted", "other")
    pairs = tokenized_pairs(model, task, n_prompts)
    if swap == "other":
        pairs = TokenPairs(pairs.clean, rows_of(pairs.clean, pairs.partners(seed)))
    options: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
    return effects_and_whole(model, task, pairs, sets, response, **options)[0]


def effects_and_whole(
    model: Model,
    task: PromptPairs,
    pairs: TokenPairs,
    sets: Sequence[Sequence[tuple[str, str]]],
    response: Response,
    *,
    batch_size: int | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return effects of patching sets of edges (n, sets), and that of patching all edges (n,)."""
    one_of(response, "response", "metric", "change")
    graph, last = graph_of(model), reads_last_token(task)
    numbers = [_edge_numbers(graph, edges) for edges in sets]
    # Sets that patch readers of one slot alone run together, from the block of the slot on.
    groups: dict[int | None, list[int]] = {}
    for i in sorted(range(len(sets)), key=lambda i: numbers[i][:, 1].tolist()):
        groups.setdefault(_one_slot(graph, numbers[i]), []).append(i)
    size = batch_size or pairs.fitting(model)
    found, whole = torch.empty(len(pairs), len(sets)), torch.empty(len(pairs))

    def effect(logits: Tensor, reference: Tensor, rows: list[int]) -> Tensor:
        if response == "change":
            return task.change(logits, reference, rows).float().cpu()
        return (task.metric_of(logits, rows) - task.metric_of(reference, rows)).float().cpu()

    with torch.no_grad():
        # Prompts of a block are run once clean, then with every set.
        for rows in pairs.batches(size, progress, "patching"):
            clean = run_components(model, rows_of(pairs.clean, rows), last_logits=last)
            other = run_components(model, rows_of(pairs.corrupted, rows), last_logits=last)
            prompts = torch.arange(rows.start, rows.stop)
            whole[rows] = effect(other.logits, clean.logits, prompts.tolist())
            for slot, members in groups.items():
                todo = torch.cartesian_prod(torch.tensor(members), torch.arange(len(prompts)))
                for which, local in (runs.T for runs in todo.split(size)):
                    patched = [numbers[i] for i in which.tolist()]
                    batch = rows_of(pairs.clean, prompts[local])
                    if slot is None:
                        offset = _patch(graph, patched, other.outputs, local)
                        logits = run_components(model, batch, offset, last_logits=last).logits
                    else:
                        added = _added(graph.slots[slot], patched, clean, other, local)
                        stream = clean.inputs[slot - slot % 2, local]  # what its block reads
                        logits = logits_from(model, batch, slot, stream, added, last_logits=last)
                    count = prompts[local].tolist()
                    found[prompts[local], which] = effect(logits, clean.logits[local], count)
    return found, whole


def _as_edges(edges: Any) -> list[tuple[str, str]]:
    """Return pairs of names as a list; refuse all else."""
    found: list[Any] = (
        list(edges) if isinstance(edges, Iterable) and not isinstance(edges, str) else [edges]
    )
    for edge in found:
        if not (
            isinstance(edge, tuple | list) and [isinstance(end, str) for end in edge] == [True] * 2
        ):
            raise InputError(
                "edges must be pairs of names of components, such as ('a0.h1', 'logits'), got "
                f"{described(edge)}."
            )
    return [(edge[0], edge[1]) for edge in found]


def _one_slot(graph: Graph, edges: Tensor) -> int | None:
    """Return the slot of all readers of a set; None if there are several, or no edge."""
    slots = {
        next(i for i, which in enumerate(graph.slots) if which.start <= reader < which.stop)
        for reader in edges[:, 1].unique().tolist()
    }
    return slots.pop() if len(slots) == 1 else None


def _edge_numbers(graph: Graph, edges: Sequence[tuple[str, str]]) -> Tensor:
    """Numbers of writers and readers, shape (edges, 2), by reader."""
    pairs = [(graph.writer(a), graph.reader(b)) for a, b in edges]
    for (a, b), pair in zip(edges, pairs, strict=True):
        if not graph.allowed[pair]:
            raise InputError(f"There is no edge from {a} to {b}: {b} is not computed after {a}.")
    if len(set(pairs)) < len(pairs):
        raise InputError(f"An edge is there twice in {list(edges)!r:.80}.")
    return torch.tensor(sorted(pairs, key=lambda p: p[::-1]), dtype=torch.long).reshape(-1, 2)


def _runs(sets: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return number of the set, writer and reader of every edge of sets that run at once."""
    run = torch.repeat_interleave(torch.arange(len(sets)), torch.tensor([len(s) for s in sets]))
    writer, reader = torch.cat(list(sets)).T
    return run, writer, reader


def _added(
    readers: slice,
    sets: Sequence[Tensor],
    clean: Components,
    other: Components,
    prompts: Tensor,
) -> Tensor:
    """Return what patched edges bring readers of one slot, (runs, readers, T, D)."""
    run, writer, reader = (x.to(clean.outputs.device) for x in _runs(sets))
    rows = prompts.to(run.device)[run]
    shape = len(sets), readers.stop - readers.start, *clean.outputs.shape[2:]
    brought = other.outputs[rows, writer] - clean.outputs[rows, writer]
    at = run, reader - readers.start
    return clean.outputs.new_zeros(shape).index_put_(at, brought, accumulate=True)


def _patch(graph: Graph, sets: Sequence[Tensor], theirs: Tensor, prompts: Tensor) -> Offset:
    """Put the outputs `theirs` (prompts, W, T, D) into the edges of each run's set."""
    run, writer, reader = _runs(sets)
    entries = {}  # slot -> run, writer, reader within the slot
    for slot, which in enumerate(graph.slots):
        here = (reader >= which.start) & (reader < which.stop)
        if here.any():
            entries[slot] = (run[here], writer[here], reader[here] - which.start)

    def offset(slot: int, outputs: Tensor) -> Tensor | None:
        if slot not in entries:
            return None
        run, writer, reader = (x.to(outputs.device) for x in entries[slot])
        n = graph.slots[slot].stop - graph.slots[slot].start
        added = outputs.new_zeros(len(outputs), n, *outputs.shape[2:])
        patched = theirs[prompts.to(outputs.device)[run], writer] - outputs[run, writer]
        return added.index_put_((run, reader), patched, accumulate=True)

    return offset

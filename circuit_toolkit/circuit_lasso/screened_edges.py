"""Edges of large models: gradients and regressions name candidates, patching measures them.

A model of 30 layers has 44,000 edges and 301 components. Regressions on components do not rank
single edges among so many, and to swap each edge in a few runs would take 200,000 runs. What leads
by gradients or by relevance is patched alone; all other edges keep what gradients say of them.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.attribution.edges import edge_attributions
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import component_circuit
from circuit_toolkit.models.graph import Graph, graph_of
from circuit_toolkit.models.model import Model
from circuit_toolkit.patching.confirmation import PROMPTS, SMALLEST, shares
from circuit_toolkit.patching.effects import effects_and_whole
from circuit_toolkit.tasks.prompt_pairs import PromptPairs, tokenized_pairs

# Edges above which candidates are screened; it helps on agreement of Gemma-3-270M, which has 4,078.
LARGE = 2500
SCREENED = 200  # of them, that are patched alone; tuned on docstring of SmolLM2, as is the next
BY_GRADIENTS = 0.75  # of the candidates; relevance names the others


def gradient_effects(
    model: Model, task: PromptPairs, sizes: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Return mean sizes of effects by gradients, of edges (W, R) and of writers (W,)."""
    found = edge_attributions(model, task, **sizes).cpu().double()
    return found.abs().mean(0), found.sum(2).abs().mean(0)


def candidates(graph: Graph, gradients: Tensor, relevance: Tensor, size: int) -> Tensor:
    """Choose edges that lead by gradients, then others that lead by relevance, shape (size,)."""
    first, then = (each[graph.allowed].argsort(descending=True) for each in (gradients, relevance))
    first = first[: round(BY_GRADIENTS * size)]
    return torch.cat([first, then[~torch.isin(then, first)]])[:size]


def screened_circuit(
    model: Model,
    task: PromptPairs,
    gradients: Tensor,
    relevance: Tensor,
    size: int,
    settings: dict[str, Any],
    sizes: dict[str, Any],
    started: float,
) -> Circuit:
    """Patch the candidates alone: their scores are effects, those of others what gradients say."""
    graph = graph_of(model)
    pairs = tokenized_pairs(model, task, min(sizes["n_prompts"] or PROMPTS, PROMPTS))
    chosen = candidates(graph, gradients, relevance, size)
    sets = [[graph.edges[number]] for number in chosen.tolist()]
    options = {key: sizes[key] for key in ("batch_size", "progress")}
    each, whole = effects_and_whole(model, task, pairs, sets, "change", **options)
    tested = shares(each.double().numpy(), whole.double().numpy(), len(graph.edges))
    flat = gradients[graph.allowed].double()
    flat[chosen] = each.double().mean(0)
    scores = torch.zeros(graph.allowed.shape, dtype=torch.double)
    scores[graph.allowed] = flat
    circuit = component_circuit(graph, scores, settings, weights=torch.zeros(scores.shape))
    edges, rows = circuit.edges.copy(), graph.allowed.nonzero()[chosen].numpy()
    place = np.full(scores.shape, -1)
    place[edges["source"], edges["target"] - 1] = np.arange(len(edges))
    at = place[rows[:, 0], rows[:, 1]]
    tested, at = tested[at >= 0], at[at >= 0]  # an edge of no effect at all is no row
    edges["weight"][at], edges["low"][at], edges["high"][at] = tested.T
    held = tested[:, 1] > SMALLEST
    edges["status"][at] = np.where(held, "confirmed", "refuted")
    more = {"screened": size, "tested": len(chosen), "confirmed": int(held.sum())}
    seconds = {"seconds": time.perf_counter() - started}
    return replace(circuit, edges=edges, settings=circuit.settings | more | seconds)

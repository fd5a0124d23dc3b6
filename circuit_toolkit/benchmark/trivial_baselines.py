"""Trivial baselines under the interface of all methods: random scores, and no edges."""

from __future__ import annotations

import time

import torch

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import component_circuit
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.models.model import Model
from circuit_toolkit.tasks.prompt_pairs import PromptPairs


def random_circuit(
    model: Model,
    task: PromptPairs,
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Circuit:
    """Score all edges at random, uniformly from 0 to 1: what any method must beat."""
    graph, start = graph_of(model), time.perf_counter()
    rng = torch.Generator().manual_seed(seed)
    # 1 - x lies in (0, 1]: no edge is left out.
    scores = 1 - torch.rand(graph.allowed.shape, generator=rng)
    settings = {"method": "random", "model": model.name, "task": task.name, "seed": seed}
    settings["seconds"] = time.perf_counter() - start
    return component_circuit(graph, scores, settings)


def empty_circuit(
    model: Model,
    task: PromptPairs,
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Circuit:
    """Find no edge at all: what any graph that is thresholded must beat."""
    graph = graph_of(model)
    settings = {"method": "empty", "model": model.name, "task": task.name, "seconds": 0.0}
    return component_circuit(graph, torch.zeros(graph.allowed.shape), settings)

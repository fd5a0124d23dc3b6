"""Trivial baselines under the interface of all methods: random scores, and no edges."""

from __future__ import annotations

from typing import Any

import torch

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import component_circuit
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.models.model import Model
from circuit_toolkit.tasks.prompt_pairs import PromptPairs


def random_circuit(model: Model, task: PromptPairs, *, seed: int = 0, **unused: Any) -> Circuit:
    """Score all edges at random, uniformly from 0 to 1: what any method must beat."""
    rng = torch.Generator().manual_seed(seed)
    # 1 - x lies in (0, 1]: no edge is left out.
    scores = 1 - torch.rand(graph_of(model).allowed.shape, generator=rng)
    return _circuit("random", model, task, scores, seed=seed)


def empty_circuit(model: Model, task: PromptPairs, **unused: Any) -> Circuit:
    """Find no edge at all: what any graph that is thresholded must beat."""
    return _circuit("empty", model, task, torch.zeros(graph_of(model).allowed.shape))


def _circuit(
    name: str, model: Model, task: PromptPairs, scores: torch.Tensor, **more: Any
) -> Circuit:
    settings = {"method": name, "model": model.name, "task": task.name, **more}
    return component_circuit(graph_of(model), scores, settings)

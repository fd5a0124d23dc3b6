"""Methods against exact edge patching where a model has too many edges to patch each of them.

Patched alone are the strongest edges of every method, taken together so that none is favoured, and
others at random. All methods see the prompts that edges are patched on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from circuit_toolkit.benchmark.methods import BASELINES, METHODS, MethodRun
from circuit_toolkit.benchmark.metrics import average_precision
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import component_circuit, edge_scores
from circuit_toolkit.circuit_lasso.randomised_edges import randomised_lasso
from circuit_toolkit.evidence.component_faithfulness import default_sizes, kept_edges
from circuit_toolkit.models.graph import Graph, graph_of
from circuit_toolkit.models.model import Model
from circuit_toolkit.patching.effects import patching_effects
from circuit_toolkit.tasks.prompt_pairs import PromptPairs

STRONGEST, OTHERS, TRUE = 300, 1000, 100  # edges: of each method, at random, and that are true
EXACT = "edge_patching"
# What is run by default: each in its best form, and beside that as published.
BEST = {
    "randomised_lasso": partial(randomised_lasso, swap="corrupted"),
    **{name: METHODS[name] for name in ("eap", "eap_absolute", "eap_ig_absolute")},
    **{name: METHODS[name] for name in ("gim", "gim_absolute")},
}


@dataclass(frozen=True, eq=False)
class PatchedEdges:
    """Edges that were patched alone, by number among those of the graph."""

    graph: Graph
    numbers: np.ndarray
    at_random: np.ndarray
    effects: np.ndarray
    seconds: float
    cpu_seconds: float

    @property
    def strengths(self) -> np.ndarray:
        """Mean size of the effect of every patched edge, shape (e,)."""
        return np.abs(self.effects).mean(0)

    def true(self, size: int = TRUE, prompts: slice = slice(None)) -> np.ndarray:
        """Return which of the patched edges are the strongest, shape (e,)."""
        order = np.argsort(-np.abs(self.effects[prompts]).mean(0), kind="stable")
        return np.isin(np.arange(len(order)), order[:size])

    def scores(self, circuit: Circuit) -> np.ndarray:
        """Read the scores of the patched edges off a circuit, shape (e,)."""
        return _flat(self.graph, circuit)[self.numbers]

    def circuit(self, settings: Mapping[str, Any]) -> Circuit:
        """Return the patched edges as a circuit, all others at 0."""
        flat = torch.zeros(len(self.graph.edges))
        flat[self.numbers] = torch.from_numpy(self.strengths).float()
        scores = torch.zeros(self.graph.allowed.shape)
        scores[self.graph.allowed] = flat
        return component_circuit(self.graph, scores, settings)


def patched_edges(
    model: Model,
    task: PromptPairs,
    circuits: Mapping[str, Circuit],
    *,
    n_prompts: int | None = None,
    strongest: int = STRONGEST,
    others: int = OTHERS,
    seed: int = 0,
    progress: bool = False,
) -> PatchedEdges:
    """Patch the strongest edges of every circuit and others at random, each alone."""
    graph = graph_of(model)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(graph.edges))[:others]
    for circuit in circuits.values():
        scores = _flat(graph, circuit)
        order = np.argsort(-scores, kind="stable")[:strongest]
        chosen = np.union1d(chosen, order[scores[order] > 0])
    began, used = time.perf_counter(), time.process_time()
    sets = [[graph.edges[number]] for number in chosen.tolist()]
    effects = patching_effects(model, task, sets, n_prompts=n_prompts, progress=progress)
    took = time.perf_counter() - began, time.process_time() - used
    rng = np.random.default_rng(seed)
    at_random = np.isin(chosen, rng.permutation(len(graph.edges))[:others])
    return PatchedEdges(graph, chosen, at_random, effects.numpy(), *took)


def _flat(graph: Graph, circuit: Circuit) -> np.ndarray:
    return edge_scores(circuit, graph)[graph.allowed.numpy()]


def sampled_rows(
    model: Model,
    task: PromptPairs,
    runs: Mapping[str, MethodRun],
    *,
    n_prompts: int | None = None,
    true: int = TRUE,
    seed: int = 0,
    progress: bool = False,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Hold what methods found against exact patching: a row for each, and what was patched.

    A row has the average precision `ap` for the `true` strongest patched edges, the share `found`
    of these among the method's own as many strongest, Spearman's `rank_correlation` over edges at
    random, the share of the metric that the `true` strongest edges keep alone, and CPR and CMD.
    """
    circuits = {name: run.circuit for name, run in runs.items() if len(run.circuit.edges)}
    ranked = {name: each for name, each in circuits.items() if name not in BASELINES}
    patched = patched_edges(model, task, ranked, n_prompts=n_prompts, seed=seed, progress=progress)
    circuits[EXACT] = patched.circuit({"method": EXACT})
    sizes = sorted({true, *default_sizes(patched.graph)})
    kept = kept_edges(model, task, circuits, sizes, n_prompts=n_prompts, progress=progress)
    cost = {name: (run.seconds, run.cpu_seconds) for name, run in runs.items()}
    cost[EXACT] = patched.seconds, patched.cpu_seconds
    mask, rows = patched.true(true), []
    for name, circuit in circuits.items():
        scores = patched.scores(circuit)
        row = {"method": name, "ap": average_precision(mask, scores)}
        row["found"] = float(mask[np.argsort(-scores, kind="stable")[:true]].mean())
        row["rank_correlation"] = _spearman(patched, scores)
        row["kept"] = float(kept.shares(name).mean(0)[sizes.index(true)])
        row["cpr"], row["cmd"] = kept.areas(name)
        row["seconds"], row["cpu_seconds"] = cost[name]
        rows.append(row)
    half = slice(0, None, 2), slice(1, None, 2)
    between = average_precision(
        patched.true(true, half[0]), np.abs(patched.effects[half[1]]).mean(0)
    )
    return rows, {
        "patched": len(patched.numbers),
        "at_random": int(patched.at_random.sum()),
        "edges": len(patched.graph.edges),
        "true": true,
        "ap_of_exact_patching_between_halves": between,
        "sizes": sizes,
        "curves": {name: kept.shares(name).mean(0).tolist() for name in circuits},
        "metric_clean": float(kept.clean.mean()),
        "metric_corrupted": float(kept.corrupted.mean()),
    }


def _spearman(patched: PatchedEdges, scores: np.ndarray) -> float:
    from scipy.stats import rankdata

    both = patched.strengths[patched.at_random], scores[patched.at_random]
    if min(np.ptp(each) for each in both) == 0:
        return float("nan")
    return float(np.corrcoef(*map(rankdata, both))[0, 1])

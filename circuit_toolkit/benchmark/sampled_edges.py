"""Methods against exact edge patching where a model has too many edges to patch each of them.

Patched alone are the strongest edges of every method, taken together so that none is favoured, and
others at random: on prompts that no method saw, which is the truth, and on those that all saw,
which is the best that can be asked for.
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
class SampledEdges:
    """Edges to patch alone, by number among those of the graph, and which are there at random."""

    graph: Graph
    numbers: np.ndarray
    at_random: np.ndarray

    def patched(
        self,
        model: Model,
        task: PromptPairs,
        *,
        n_prompts: int | None = None,
        progress: bool = False,
    ) -> np.ndarray:
        """Return the mean size of the effect of each edge alone, shape (e,)."""
        sets = [[self.graph.edges[number]] for number in self.numbers.tolist()]
        effects = patching_effects(model, task, sets, n_prompts=n_prompts, progress=progress)
        return effects.abs().mean(0).numpy()

    def scores(self, circuit: Circuit) -> np.ndarray:
        """Read the scores of the sampled edges off a circuit, shape (e,)."""
        return _flat(self.graph, circuit)[self.numbers]

    def circuit(self, strengths: np.ndarray, settings: Mapping[str, Any]) -> Circuit:
        """Return a circuit of the sampled edges, all others at 0."""
        flat = torch.zeros(len(self.graph.edges))
        flat[self.numbers] = torch.from_numpy(strengths).float()
        scores = torch.zeros(self.graph.allowed.shape)
        scores[self.graph.allowed] = flat
        return component_circuit(self.graph, scores, settings)


def sampled_edges(
    model: Model,
    circuits: Mapping[str, Circuit],
    *,
    strongest: int = STRONGEST,
    others: int = OTHERS,
    seed: int = 0,
) -> SampledEdges:
    """Choose the strongest edges of every circuit, and others at random."""
    graph = graph_of(model)
    drawn = np.random.default_rng(seed).permutation(len(graph.edges))[:others]
    chosen = np.sort(drawn)
    for circuit in circuits.values():
        scores = _flat(graph, circuit)
        order = np.argsort(-scores, kind="stable")[:strongest]
        chosen = np.union1d(chosen, order[scores[order] > 0])
    return SampledEdges(graph, chosen, np.isin(chosen, drawn))


def _flat(graph: Graph, circuit: Circuit) -> np.ndarray:
    return edge_scores(circuit, graph)[graph.allowed.numpy()]


def sampled_rows(
    model: Model,
    seen: PromptPairs,
    held_out: PromptPairs,
    runs: Mapping[str, MethodRun],
    *,
    true: int = TRUE,
    seed: int = 0,
    progress: bool = False,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Hold what methods found on prompts against exact patching on others: a row for each.

    A row has the average precision `ap` for the `true` strongest edges, the share `found` of these
    among the method's own as many strongest, Spearman's `rank_correlation` over edges at random,
    the share of the metric that the `true` strongest edges keep alone, and CPR and CMD. The row of
    exact patching ranks the sampled edges by the prompts that methods saw: it has no curve.
    """
    circuits = {name: run.circuit for name, run in runs.items() if len(run.circuit.edges)}
    ranked = {name: each for name, each in circuits.items() if name not in BASELINES}
    edges = sampled_edges(model, ranked, seed=seed)
    began, used = time.perf_counter(), time.process_time()
    exact = edges.patched(model, seen, progress=progress)
    cost = {name: (run.seconds, run.cpu_seconds) for name, run in runs.items()}
    cost[EXACT] = time.perf_counter() - began, time.process_time() - used
    circuits[EXACT] = edges.circuit(exact, {"method": EXACT})
    truth = edges.patched(model, held_out, progress=progress)
    mask = np.isin(np.arange(len(truth)), np.argsort(-truth, kind="stable")[:true])
    sizes = sorted({true, *default_sizes(edges.graph)})
    kept = kept_edges(model, held_out, circuits, sizes, progress=progress)
    rows = []
    for name, circuit in circuits.items():
        scores = edges.scores(circuit)
        row = {"method": name, "ap": average_precision(mask, scores)}
        row["found"] = float(mask[np.argsort(-scores, kind="stable")[:true]].mean())
        row["rank_correlation"] = _spearman(truth[edges.at_random], scores[edges.at_random])
        row["kept"] = float(kept.shares(name).mean(0)[sizes.index(true)])
        row["cpr"], row["cmd"] = (float("nan"),) * 2 if name == EXACT else kept.areas(name)
        row["seconds"], row["cpu_seconds"] = cost[name]
        rows.append(row)
    return rows, {
        "patched": len(edges.numbers),
        "at_random": int(edges.at_random.sum()),
        "edges": len(edges.graph.edges),
        "true": true,
        "sizes": sizes,
        "curves": {name: kept.shares(name).mean(0).tolist() for name in circuits if name != EXACT},
        "metric_clean": float(kept.clean.mean()),
        "metric_corrupted": float(kept.corrupted.mean()),
    }


def _spearman(truth: np.ndarray, scores: np.ndarray) -> float:
    from scipy.stats import rankdata

    if min(np.ptp(each) for each in (truth, scores)) == 0:
        return float("nan")
    return float(np.corrcoef(*map(rankdata, (truth, scores)))[0, 1])

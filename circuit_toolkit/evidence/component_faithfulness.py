"""What a circuit keeps by itself: its strongest edges stay, all others carry the corrupted run.

Needs no truth. Sources: Conmy et al., 2023, arXiv 2304.14997 (edge ablation by the corrupted
prompt); Mueller et al., 2025, arXiv 2504.13151 (MIB: curves over sizes, CPR and CMD).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import edge_scores
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.intervals import Interval, bootstrap
from circuit_toolkit.models.components import corrupting, run_components
from circuit_toolkit.models.graph import Graph, graph_of
from circuit_toolkit.models.model import Model
from circuit_toolkit.tasks.prompt_pairs import PromptPairs, rows_of, tokenized_pairs

SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of all edges
BATCH = 32  # prompts at once: what fits the caches of a processor is faster than what fills it


@dataclass(frozen=True, eq=False)
class KeptEdges:
    """The metric of circuits cut to sizes, on every prompt."""

    sizes: tuple[int, ...]
    measured: Mapping[str, np.ndarray]
    clean: np.ndarray
    corrupted: np.ndarray
    n_edges: int

    def __repr__(self) -> str:
        """Return what was ablated, and how; not the curves."""
        return (
            f"KeptEdges({', '.join(self.measured)}; {self.sizes[0]} to {self.sizes[-1]} edges kept "
            f"of {self.n_edges}, all others carry the corrupted run, {len(self.clean)} prompts)"
        )

    def shares(self, name: str) -> np.ndarray:
        """Return the share of the metric that a circuit keeps, prompt by prompt."""
        whole = float((self.clean - self.corrupted).mean())
        return (self.measured[name] - self.corrupted[:, None]) / whole

    def curve(self, name: str, *, level: float = 0.95, seed: int = 0) -> list[Interval]:
        """Return the mean share that a circuit keeps at every size, with bootstrap intervals."""
        return [bootstrap(each, level=level, seed=seed) for each in self.shares(name).T]

    def areas(self, name: str) -> tuple[float, float]:
        """Return the areas under and around the curve (MIB's CPR and CMD)."""
        x = np.r_[0, self.sizes] / self.n_edges  # no edge keeps nothing
        y = np.r_[0, self.shares(name).mean(0)]
        return float(np.trapezoid(y, x) / x[-1]), float(np.trapezoid(abs(1 - y), x) / x[-1])


def default_sizes(graph: Graph) -> tuple[int, ...]:
    """Return numbers of edges from few to all."""
    n = len(graph.edges)
    return tuple(sorted({max(round(share * n), 1) for share in SHARES}))


def kept_edges(
    model: Model,
    task: PromptPairs,
    circuits: Mapping[str, Circuit],
    sizes: Sequence[int] | None = None,
    *,
    n_prompts: int | None = None,
    batch_size: int = BATCH,
    progress: bool = False,
) -> KeptEdges:
    """Cut circuits to sizes and measure what is left of the model's behaviour."""
    graph = graph_of(model)
    sizes = tuple(sorted(default_sizes(graph) if sizes is None else sizes))
    if not sizes or sizes[0] < 0:
        raise InputError(f"sizes must be numbers of edges, 0 or more, got {sizes}.")
    cut = {
        (name, size): _strongest(graph, edge_scores(circuit, graph), size)
        for name, circuit in circuits.items()
        for size in sizes
    }
    found = with_edges(
        model, task, cut, n_prompts=n_prompts, batch_size=batch_size, progress=progress
    )
    clean, corrupted = found["clean"], found["corrupted"]
    if clean.mean() <= corrupted.mean():
        raise InputError(
            f"{model.name} does no better on clean prompts of {task.name!r} "
            f"({clean.mean():.3g}) than on corrupted ones ({corrupted.mean():.3g}): there is "
            "nothing that a circuit could keep."
        )
    curves = {name: np.stack([found[name, size] for size in sizes], 1) for name in circuits}
    return KeptEdges(sizes, curves, clean, corrupted, len(graph.edges))


def with_edges(
    model: Model,
    task: PromptPairs,
    kept: Mapping[Any, Tensor],
    *,
    n_prompts: int | None = None,
    batch_size: int = BATCH,
    progress: bool = False,
) -> dict[Any, np.ndarray]:
    """Measure the metric on every prompt, clean, corrupted, and with only some edges kept."""
    graph, pairs = graph_of(model), tokenized_pairs(model, task, n_prompts)
    measured: dict[Any, list[Tensor]] = {key: [] for key in [*kept, "clean", "corrupted"]}
    with torch.no_grad():
        for part in pairs.batches(batch_size, progress, "ablating edges"):
            rows, batch = range(part.start, part.stop), rows_of(pairs.clean, part)
            corrupted = run_components(model, rows_of(pairs.corrupted, part))
            measured["corrupted"].append(task.metric_of(corrupted.logits, rows))
            clean = run_components(model, batch)
            measured["clean"].append(task.metric_of(clean.logits, rows))
            for key, mask in kept.items():
                got = run_components(model, batch, corrupting(graph, ~mask, corrupted.outputs))
                measured[key].append(task.metric_of(got.logits, rows))
    return {key: torch.cat(values).double().cpu().numpy() for key, values in measured.items()}


def _strongest(graph: Graph, scores: np.ndarray, size: int) -> Tensor:
    """Mask of the edges that stay, shape (writers, readers)."""
    order = np.argsort(-scores, axis=None, kind="stable")[:size]
    kept = np.zeros(scores.size, dtype=bool)
    kept[order] = True
    return torch.from_numpy(kept.reshape(scores.shape) & (scores > 0)) & graph.allowed

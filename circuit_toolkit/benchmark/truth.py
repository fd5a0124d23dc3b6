"""The truth that circuits are held against: known edges, or the strongest of exact patching."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuit_toolkit.benchmark.metrics import average_precision, hamming, roc_auc
from circuit_toolkit.benchmark.structure import Edge, structure
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import edge_scores
from circuit_toolkit.circuit_lasso.randomised_edges import at_operating_point
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.graph import EMBED, OUTPUT, Graph

BUDGETS = (10, 20, 40)  # strongest edges of a graded truth


@dataclass(frozen=True, eq=False)
class Truth:
    """Which edges of a model are in its circuit."""

    graph: Graph
    universe: tuple[Edge, ...]
    edges: tuple[Edge, ...]
    strengths: np.ndarray | None = None

    @property
    def mask(self) -> np.ndarray:
        """Which of the universe are true, shape (e,)."""
        true = set(self.edges)
        return np.array([edge in true for edge in self.universe])

    def scores(self, circuit: Circuit) -> np.ndarray:
        """Read the scores of the universe off a circuit, shape (e,)."""
        matrix, graph = edge_scores(circuit, self.graph), self.graph
        return np.array([matrix[graph.writer(a), graph.reader(b)] for a, b in self.universe])


def truth_of(
    graph: Graph,
    truth: Circuit | Iterable[Edge],
    *,
    universe: Sequence[Edge] | None = None,
    size: int = BUDGETS[-1],
) -> Truth:
    """Return which edges are true."""
    universe = tuple(graph.edges if universe is None else universe)
    strengths = None
    if isinstance(truth, Circuit):
        strengths = Truth(graph, universe, ()).scores(truth)
        order = np.argsort(-strengths, kind="stable")[:size]
        edges = [universe[i] for i in order if strengths[i] > 0]
    else:
        edges = [(source, target) for source, target in truth]
        if strangers := set(edges) - set(universe):
            raise InputError(f"{min(strangers)} is true, but no edge that counts here.")
    if not edges:
        raise InputError("The truth has no edge, so nothing can be held against it.")
    return Truth(graph, universe, tuple(edges), strengths)


def against(circuit: Circuit, truth: Truth) -> dict[str, Any]:
    """Score a circuit."""
    scores, mask = truth.scores(circuit), truth.mask
    found = structure(truth.universe, truth.edges, scores)
    row: dict[str, Any] = {
        name: getattr(found, name)
        for name in ("edge_auroc", "edge_ap", "node_auroc", "node_ap", "shd_best", "shd_empty")
    }
    row |= {"shd": None, "n_edges": None}
    if scores_nodes_alone(circuit):
        row |= dict.fromkeys(("edge_auroc", "edge_ap", "shd_best"))
        row["node_auroc"], row["node_ap"] = _nodes(circuit, truth)
    elif has_operating_point(circuit):
        kept = truth.scores(at_operating_point(circuit)) > 0
        row |= {"shd": hamming(mask, kept), "n_edges": int(kept.sum())}
    elif not len(circuit.edges):  # that is its graph
        row |= {"shd": int(mask.sum()), "n_edges": 0}
    if truth.strengths is not None:
        for budget in BUDGETS:
            strongest = np.zeros(len(mask), dtype=bool)
            strongest[np.argsort(-truth.strengths, kind="stable")[:budget]] = True
            value = average_precision(strongest & (truth.strengths > 0), scores)
            row[f"ap_{budget}"] = None if scores_nodes_alone(circuit) else value
    return row


def has_operating_point(circuit: Circuit) -> bool:
    """Whether the method that found a circuit says which edges belong to it."""
    return circuit.settings.get("threshold") is not None


def scores_nodes_alone(circuit: Circuit) -> bool:
    """Whether a circuit has scores of nodes and no edge."""
    return not len(circuit.edges) and bool((circuit.nodes["score"] > 0).any())


def _nodes(circuit: Circuit, truth: Truth) -> tuple[float, float]:
    """AUROC and average precision of the scores of nodes themselves."""
    scores = dict(zip(circuit.nodes["label"].tolist(), circuit.nodes["score"], strict=True))
    true = {name for edge in truth.edges for name in edge}
    names = dict.fromkeys(name for edge in truth.universe for name in edge)
    names = [name for name in names if name not in (EMBED, OUTPUT)]
    mask = np.array([name in true for name in names])
    values = np.array([scores[name] for name in names], dtype=float)
    return roc_auc(mask, values), average_precision(mask, values)

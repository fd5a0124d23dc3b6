"""The truth that circuits are held against: known edges, or the strongest of exact patching."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuit_toolkit.arguments import described
from circuit_toolkit.benchmark.metrics import (
    average_precision,
    hamming,
    oracle_threshold,
    roc_auc,
)
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import edge_scores
from circuit_toolkit.circuit_lasso.randomised_edges import (
    at_operating_point,
    has_operating_point,
)
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.graph import EMBED, OUTPUT, Graph

Edge = tuple[str, str]
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
        edges = _pairs_of_names(truth)
        if strangers := set(edges) - set(universe):
            raise InputError(f"{min(strangers)} is true, but no edge that counts here.")
    if not edges:
        raise InputError("The truth has no edge, so nothing can be held against it.")
    return Truth(graph, universe, tuple(edges), strengths)


def _pairs_of_names(truth: Any) -> list[Edge]:
    """Return edges, refusing what is none."""
    given = list(truth) if isinstance(truth, Iterable) and not isinstance(truth, str) else [truth]
    for edge in given:
        if not (isinstance(edge, tuple | list) and len(edge) == 2):
            raise InputError(
                "truth must be a circuit over components or edges such as ('embed', 'a0.h1'), got "
                f"{described(edge)}."
            )
    return [(source, target) for source, target in given]


def against(circuit: Circuit, truth: Truth) -> dict[str, Any]:
    """Score a circuit."""
    scores, mask = truth.scores(circuit), truth.mask
    edges = not scores_nodes_alone(circuit)
    nodes = _nodes(circuit, truth, scores if edges else None)
    row: dict[str, Any] = {
        "edge_auroc": roc_auc(mask, scores) if edges else None,
        "edge_ap": average_precision(mask, scores) if edges else None,
        "node_auroc": roc_auc(*nodes),
        "node_ap": average_precision(*nodes),
        "shd_best": round(oracle_threshold([mask], [scores])[1]) if edges else None,
        "shd_empty": int(mask.sum()),
        "shd": None,
        "n_edges": None,
    }
    if edges and has_operating_point(circuit):
        kept = truth.scores(at_operating_point(circuit)) > 0
        row |= {"shd": hamming(mask, kept), "n_edges": int(kept.sum())}
    elif edges and not len(circuit.edges):  # that is its graph
        row |= {"shd": int(mask.sum()), "n_edges": 0}
    if truth.strengths is not None:
        order = np.argsort(-truth.strengths, kind="stable")
        for budget in BUDGETS:
            strongest = np.isin(np.arange(len(mask)), order[:budget]) & (truth.strengths > 0)
            row[f"ap_{budget}"] = average_precision(strongest, scores) if edges else None
    return row


def scores_nodes_alone(circuit: Circuit) -> bool:
    """Whether a circuit has scores of nodes and no edge."""
    return not len(circuit.edges) and bool((circuit.nodes["score"] > 0).any())


def _nodes(
    circuit: Circuit, truth: Truth, scores: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Which components are true, and their scores: of their strongest edge, or else their own."""
    if scores is None:
        of = dict(zip(circuit.nodes["label"].tolist(), circuit.nodes["score"], strict=True))
    else:
        of = {}
        for edge, score in zip(truth.universe, scores.tolist(), strict=True):
            of |= {name: max(of.get(name, 0.0), score) for name in edge}
    true = {name for edge in truth.edges for name in edge}
    names = dict.fromkeys(name for edge in truth.universe for name in edge)
    names = [name for name in names if name not in (EMBED, OUTPUT)]
    return np.array([name in true for name in names]), np.array([of[n] for n in names], float)

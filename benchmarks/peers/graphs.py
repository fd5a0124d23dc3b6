"""Two attribution graphs of one prompt, each read from a file, laid beside each other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

FEATURE, ERROR, TOKEN, TARGET = range(4)
SMALL = 0.01  # share of its row's largest edge from which an edge's own relative error counts


@dataclass(frozen=True, eq=False)
class Graph:
    """An attribution graph before pruning, and what pruning keeps of it.

    Attributes
    ----------
    keys
        Kind, layer, position and index of each node, shape (n, 4).
    adjacency
        Direct effects, shape (n, n); a row is a target.
    activations, probabilities
        Of the nodes that are features, and of those that are targets, in the order of `keys`.
    n_active
        How many features are active on the prompt; with a limit not all of them are nodes.
    nodes, edges
        For each pair of thresholds: a mask of nodes, and pairs (target, source) of edges.
    scores
        Replacement and completeness.
    costs
        By step: seconds and MB, as `benchmarks.peers.process.timed` gives them.
    """

    keys: np.ndarray
    adjacency: sp.csr_array
    activations: np.ndarray
    probabilities: np.ndarray
    n_active: int
    nodes: list[np.ndarray]
    edges: list[np.ndarray]
    scores: np.ndarray
    costs: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Graph:
        """Read what either side wrote."""
        with np.load(path, allow_pickle=False) as file:
            n = len(file["keys"])
            entries = file["weights"], (file["rows"], file["columns"])
            pairs = range(sum(name.startswith("nodes_") for name in file))
            return cls(
                file["keys"],
                sp.csr_array(entries, shape=(n, n)),
                file["activations"],
                file["probabilities"],
                int(file["n_active"]),
                [file[f"nodes_{i}"] for i in pairs],
                [file[f"edges_{i}"] for i in pairs],
                file["scores"],
                json.loads(str(file["costs"])),
            )

    def write(self, path: Path) -> None:
        """Write it as the peer writes its own."""
        table = self.adjacency.tocoo()
        arrays = {f"nodes_{i}": mask for i, mask in enumerate(self.nodes)}
        arrays |= {f"edges_{i}": pairs for i, pairs in enumerate(self.edges)}
        np.savez(
            path,
            keys=self.keys,
            rows=table.row,
            columns=table.col,
            weights=table.data,
            activations=self.activations,
            probabilities=self.probabilities,
            n_active=self.n_active,
            scores=self.scores,
            costs=json.dumps(self.costs),
            **arrays,
        )


def matched(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two tables that are equal, as numbers of rows in each."""
    place = {row: i for i, row in enumerate(map(tuple, theirs.tolist()))}
    pairs = [(i, place.get(row)) for i, row in enumerate(map(tuple, ours.tolist()))]
    found = np.array([(i, j) for i, j in pairs if j is not None], dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def compare(ours: Graph, theirs: Graph) -> dict[str, Any]:
    """Lay two graphs beside each other.

    `row_error` is the largest |difference| of an edge between common nodes by its row's largest
    edge; `edge_error` the largest by the edge itself, of those above `SMALL` of the row's largest.
    `nodes_of_one` and `edges_of_one` count what only one side has; activations are relative.
    """
    mine, other = matched(ours.keys, theirs.keys)
    a, b = ours.adjacency[mine][:, mine], theirs.adjacency[other][:, other]
    largest = np.maximum(abs(b).max(axis=1).toarray().ravel(), 1e-30)  # (n,)
    gap, size = abs(a - b).tocoo(), abs(b).tocoo()
    big = size.data > SMALL * largest[size.row]
    relative = gap.tocsr()[size.row[big], size.col[big]] / size.data[big]
    active, chance = (_of_kind(ours, theirs, mine, other, kind) for kind in (FEATURE, TARGET))
    return {
        "nodes": len(mine),
        "nodes_of_one": len(ours.keys) + len(theirs.keys) - 2 * len(mine),
        "active": [ours.n_active, theirs.n_active],
        "row_error": float(np.max(gap.data / largest[gap.row], initial=0)),
        "edge_error": float(np.max(relative, initial=0)),
        "activation_error": float(np.max(abs(active[0] / active[1] - 1), initial=0)),
        "probability_error": float(np.max(abs(chance[0] - chance[1]), initial=0)),
        "pruned": [_pruned(ours, theirs, i) for i in range(len(ours.nodes))],
        "score_error": float(np.max(abs(ours.scores - theirs.scores))),
    }


def _of_kind(
    ours: Graph, theirs: Graph, mine: np.ndarray, other: np.ndarray, kind: int
) -> list[np.ndarray]:
    """Activations, or probabilities, of common nodes of a kind, on either side."""
    common = ours.keys[mine, 0] == kind
    found = []
    for graph, rows in ((ours, mine[common]), (theirs, other[common])):
        first = np.flatnonzero(graph.keys[:, 0] == kind)
        values = graph.activations if kind == FEATURE else graph.probabilities
        found.append(values[np.searchsorted(first, rows)])
    return found


def _pruned(ours: Graph, theirs: Graph, i: int) -> dict[str, int]:
    """How many nodes and edges both keep, and how many only one does."""
    nodes = [{*map(tuple, g.keys[g.nodes[i]].tolist())} for g in (ours, theirs)]
    edges = [
        {*map(tuple, np.hstack([g.keys[g.edges[i][:, 0]], g.keys[g.edges[i][:, 1]]]).tolist())}
        for g in (ours, theirs)
    ]
    return {
        "nodes": len(nodes[0] & nodes[1]),
        "nodes_of_one": len(nodes[0] ^ nodes[1]),
        "edges": len(edges[0] & edges[1]),
        "edges_of_one": len(edges[0] ^ edges[1]),
    }

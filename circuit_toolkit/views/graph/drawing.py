"""What stands in a picture: nodes, supernodes in place of their members, and the edges between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import STATUS, UNKNOWN, depths

GROUP = "supernode"  # a kind that only pictures have
EDGES = 1000  # more cannot be told apart, and make a picture slow


@dataclass(frozen=True, eq=False)
class Drawing:
    """A circuit with each group as one node, and of very many edges the strongest."""

    circuit: Circuit
    nodes: np.ndarray  # (n,) NODE, in order of computation; a supernode's numbers are sums
    edges: np.ndarray  # (e,) EDGE between them; the only ones that may run backwards or level
    ids: list[str]
    rows: list[list[int]]  # of the circuit's nodes behind each: one, or the members of a group
    depth: np.ndarray  # (n,) rank of the site
    left_out: int = 0  # edges


def drawing_of(circuit: Circuit) -> Drawing:
    """Merge the members of each group of a circuit, and the edges that then run side by side."""
    ids, depth = circuit.ids(), circuit.depths()
    row = {name: i for i, name in enumerate(ids)}
    groups = {name: sorted(row[node] for node in nodes) for name, nodes in circuit.groups.items()}
    groups = {name: rows for name, rows in groups.items() if rows}
    grouped = {i for rows in groups.values() for i in rows}
    alone = [(ids[i], [i], circuit.nodes[i]) for i in range(len(ids)) if i not in grouped]
    items = alone + [(name, rows, _merged(circuit, name, rows)) for name, rows in groups.items()]
    items.sort(key=lambda item: depth[_middle(item[1], depth)])
    nodes = np.array([node for _, _, node in items], circuit.nodes.dtype)
    rows = [rows for _, rows, _ in items]
    item = np.empty(len(ids), int)  # (n of the circuit,) -> row in the drawing
    for i, behind in enumerate(rows):
        item[behind] = i
    names = [name for name, _, _ in items]
    edges = _summed(circuit.edges, item)
    drawn = _strongest(edges)
    left_out = len(edges) - len(drawn)
    return Drawing(circuit, nodes, drawn, names, rows, depths(nodes["site"]), left_out)


def _middle(rows: list[int], depth: np.ndarray) -> int:
    """Return the row that stands nearest the mean depth."""
    return rows[int(np.argmin(np.abs(depth[rows] - depth[rows].mean())))]


def _merged(circuit: Circuit, name: str, rows: list[int]) -> tuple:
    members = circuit.nodes[rows]
    site = circuit.nodes["site"][_middle(rows, circuit.depths())]
    places = sorted(set(members["position"].tolist()))
    position = places[0] if len(places) == 1 else ""
    return (GROUP, site, position, 0, members["activation"].sum(), members["score"].sum(), name)


def _summed(edges: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Add up edges between the same two; those inside one are left out."""
    ends = np.stack([item[edges["source"]], item[edges["target"]]], axis=1)  # (e, 2)
    between = ends[:, 0] != ends[:, 1]
    edges, ends = edges[between], ends[between]
    pairs, first, pair, count = np.unique(
        ends, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    pair = pair.reshape(-1)  # (e,) which of the pairs
    summed = edges[first]  # a copy: one edge alone keeps its interval
    summed["source"], summed["target"] = pairs.T
    for column in ("weight", "score"):
        summed[column] = np.bincount(pair, edges[column], len(pairs))
    many = count > 1
    for column, unknown in UNKNOWN.items():
        summed[column][many] = unknown
    for i in np.flatnonzero(many):
        said = set(edges["status"][pair == i].tolist())
        summed["status"][i] = said.pop() if len(said) == 1 else STATUS[0]
    return summed[np.argsort(first, kind="stable")]


def _strongest(edges: np.ndarray) -> np.ndarray:
    """Keep the highest scores, and the best edge into and out of each node."""
    if len(edges) <= EDGES:
        return edges
    keep = np.zeros(len(edges), bool)
    order = np.argsort(-edges["score"], kind="stable")
    keep[order[:EDGES]] = True
    for end in ("source", "target"):
        keep[order[np.unique(edges[end][order], return_index=True)[1]]] = True
    return edges[keep]

"""Sums of graphs: the mean over prompts at named positions, the difference of two prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.attribution.graph.engine import PromptGraph
from circuit_toolkit.attribution.graph.targets import Target
from circuit_toolkit.circuit.tables import NODE, TARGET, TOKEN, depths


class GraphSum:
    """A weighted sum of graphs whose nodes are matched by kind, site, position and index.

    Everything adds up: activations, edges, values and biases. So what enters a node of the sum adds
    up to its summed pre-activation, over the graphs in which it is active.
    """

    def __init__(self) -> None:
        self.rows: dict[tuple, int] = {}  # of each node, in order of appearance
        self.labels: list[str] = []
        self.columns = np.zeros((5, 0))  # activation, weight, value, bias, has_row
        self.adjacency = sp.csr_array((0, 0))
        self.active: dict[tuple, float] = {}
        self.largest_error = self.left_out = 0.0
        self.targets: Sequence[Target] = ()

    def add(self, graph: PromptGraph, factor: float, places: Sequence[str] | None = None) -> None:
        """Add a graph; `places` names each of its tokens, else they stay as they are numbered."""
        keys = [_key(node, places) for node in graph.nodes.tolist()]
        n_targets = int((graph.nodes["kind"] == TARGET).sum())
        for i in range(n_targets):  # matched by their order: directions have no index
            at = len(keys) - n_targets + i
            keys[at] = ((TARGET, TARGET, "", i), keys[at][1])
        which = np.array([self._row(*key) for key in keys])
        n = len(self.rows)
        grown = np.zeros((5, n))
        grown[:, : self.columns.shape[1]] = self.columns
        columns = [factor * graph.nodes["activation"], abs(factor) * graph.weights]
        columns += [factor * graph.value, factor * graph.bias, graph.has_row]
        for line, values in zip(grown, columns, strict=True):
            np.add.at(line, which, values)
        self.columns = grown
        own = sp.coo_array(graph.adjacency)
        target, source = own.coords
        added = sp.csr_array((factor * own.data, (which[target], which[source])), shape=(n, n))
        self.adjacency.resize((n, n))
        self.adjacency = sp.csr_array(self.adjacency + added)
        for node in graph.active.tolist():
            key, _ = _key(node, places)
            self.active[key] = self.active.get(key, 0.0) + factor * node[4]
        self.largest_error = max(self.largest_error, graph.largest_error)
        self.left_out = max(self.left_out, graph.left_out)
        self.targets = self.targets or graph.targets

    def _row(self, key: tuple, label: str) -> int:
        """Return the row of a node, a new one where it was not there."""
        if key not in self.rows:
            self.rows[key] = len(self.rows)
            self.labels.append(label)
        return self.rows[key]

    def total(self) -> PromptGraph:
        """Return the sum, its nodes in order of computation."""
        activation, weights, value, bias, has_row = self.columns
        rows = [(*key, activation[i], 0.0, self.labels[i]) for i, key in enumerate(self.rows)]
        nodes = np.array(rows, NODE)
        order = np.argsort(depths(nodes["site"]), kind="stable")
        active = [(*key, value, 0.0, "") for key, value in self.active.items()]
        nodes = nodes[order]
        nodes["index"][-len(self.targets) :] = [each.index for each in self.targets]
        return PromptGraph(
            nodes,
            sp.csr_array(self.adjacency[order][:, order]),
            weights[order],
            value[order],
            bias[order],
            has_row[order] > 0,
            self.largest_error,
            self.left_out,
            np.array(active, NODE),
            self.targets,
        )


def _key(node: tuple, places: Sequence[str] | None) -> tuple[tuple[str, str, str, int], str]:
    """Return what a node is matched by, and its label: of a token at a named place, the place."""
    kind, site, position, index, _, _, label = node
    if places is None or not position:
        return (kind, site, position, index), label
    place = places[int(position)]
    return (kind, site, place, 0 if kind == TOKEN else index), place if kind == TOKEN else label

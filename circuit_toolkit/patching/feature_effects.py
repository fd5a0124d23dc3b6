"""What features do to the features of the next site and to the metric: tables, and a circuit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET, new_edges, new_nodes
from circuit_toolkit.errors import InputError
from circuit_toolkit.sites import Site


@dataclass(frozen=True, eq=False)
class FeatureEffects:
    """Mean effects of changing one feature, as some method has them."""

    features: Mapping[Site, np.ndarray]  # (p,)
    edges: Mapping[Site, np.ndarray]  # (p, q), on features of the next site
    nodes: Mapping[Site, np.ndarray]  # (p,), on the metric
    activation: Mapping[Site, np.ndarray]  # (p,)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return what and how much; not the tables."""
        pairs = sum(table.size for table in self.edges.values())
        method = self.settings.get("method", "effects")
        return f"FeatureEffects({method}, {pairs} pairs at {len(self.features)} sites)"

    def circuit(self, max_features: int | None = 100, max_edges: int | None = 500) -> Circuit:
        """Return the strongest features and the strongest edges between them."""
        if set(self.nodes) != set(self.features):
            raise InputError("These effects are of edges alone: let the method score nodes too.")
        sites = list(self.features)
        sizes = [len(self.features[site]) for site in sites]
        table = new_nodes(
            sum(sizes),
            site=np.repeat([str(site) for site in sites], sizes),
            position=str(self.settings.get("positions", "")),
            index=np.concatenate([self.features[site] for site in sites]),
            score=np.concatenate([np.abs(self.nodes[site]) for site in sites]),
            activation=np.concatenate([self.activation[site] for site in sites]),
        )
        label = str(self.settings.get("task", TARGET))
        end = new_nodes(1, TARGET, score=table["score"].max(), label=label)
        table = np.concatenate([table, end])
        edges, first = [], np.cumsum([0, *sizes])
        for site, later, here, there in zip(sites, sites[1:], first, first[1:], strict=False):
            if site not in self.edges:
                continue
            effect = self.edges[site]
            total = np.abs(effect).sum(0)
            after = np.abs(self.nodes[later])
            score = np.abs(effect) * np.divide(after, total, out=0 * total, where=total > 0)
            at = score.nonzero()
            edges.append(_edge_table(here + at[0], there + at[1], effect[at], score[at]))
        last = self.nodes[sites[-1]]
        rows = last.nonzero()[0]
        ends = np.full(len(rows), len(table) - 1)
        edges.append(_edge_table(first[-2] + rows, ends, last[rows], np.abs(last[rows])))
        whole = Circuit(
            table, np.concatenate(edges), {"level": "features", "scope": "dataset", **self.settings}
        )
        keep = np.zeros(len(table), bool)
        keep[np.argsort(-table["score"][:-1], kind="stable")[:max_features]] = True
        keep[-1] = True
        part = whole.subgraph(keep & ((table["score"] > 0) | (table["kind"] == TARGET)))
        best = np.sort(np.argsort(-part.edges["score"], kind="stable")[:max_edges])
        return Circuit(part.nodes, part.edges[best], part.settings)


def _edge_table(source: np.ndarray, target: np.ndarray, weight: Any, score: Any) -> np.ndarray:
    return new_edges(len(source), source=source, target=target, weight=weight, score=score)

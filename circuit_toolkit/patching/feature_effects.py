"""What features do to the features of the next site and to the metric: the tables, the truth."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import EDGE, NODE, TARGET
from circuit_toolkit.errors import InputError
from circuit_toolkit.patching.feature_runs import FeatureRuns
from circuit_toolkit.sites import Site


@dataclass(frozen=True, eq=False)
class FeatureEffects:
    """Mean effects of changing one feature, as some method has them."""

    features: Mapping[Site, np.ndarray]
    edges: Mapping[Site, np.ndarray]
    nodes: Mapping[Site, np.ndarray]
    activation: Mapping[Site, np.ndarray]
    chosen: Mapping[Site, np.ndarray] = field(default_factory=dict)
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
        table = np.zeros(sum(sizes) + 1, NODE)
        table["site"][:-1] = np.repeat([str(site) for site in sites], sizes)
        table["feature"][:-1] = np.concatenate([self.features[site] for site in sites])
        table["score"][:-1] = np.concatenate([np.abs(self.nodes[site]) for site in sites])
        table["activation"][:-1] = np.concatenate([self.activation[site] for site in sites])
        label = str(self.settings.get("task", TARGET))
        table[-1] = (TARGET, 0, 0.0, table["score"].max(), label)
        edges, first = [], np.cumsum([0, *sizes])
        for number, site in enumerate(sites[:-1]):
            if site not in self.edges:
                continue
            effect = self.edges[site]
            total = np.abs(effect).sum(0)
            later = np.abs(self.nodes[sites[number + 1]])
            share = np.divide(later, total, out=np.zeros_like(total), where=total > 0)
            score = np.abs(effect) * share
            if site in self.chosen:
                score = np.where(self.chosen[site], score, 0.0)
            rows, columns = score.nonzero()
            edges.append(
                _edges(
                    first[number] + rows,
                    first[number + 1] + columns,
                    effect[rows, columns],
                    score[rows, columns],
                )
            )
        last = self.nodes[sites[-1]]
        rows = last.nonzero()[0]
        ends = np.full(len(rows), len(table) - 1)
        edges.append(_edges(first[-2] + rows, ends, last[rows], np.abs(last[rows])))
        whole = Circuit(table, np.concatenate(edges), {"level": "dataset", **self.settings})
        keep = np.zeros(len(table), bool)
        keep[np.argsort(-table["score"][:-1], kind="stable")[:max_features]] = True
        keep[-1] = True
        part = whole.subgraph(keep & ((table["score"] > 0) | (table["site"] == TARGET)))
        best = np.sort(np.argsort(-part.edges["score"], kind="stable")[:max_edges])
        return Circuit(part.nodes, part.edges[best], part.settings)


def _edges(source: np.ndarray, target: np.ndarray, weight: Any, score: Any) -> np.ndarray:
    table = np.zeros(len(source), EDGE)
    table["source"], table["target"], table["weight"], table["score"] = (
        source,
        target,
        weight,
        score,
    )
    return table


def exact_feature_effects(
    runs: FeatureRuns,
    sources: Mapping[Site, np.ndarray] | None = None,
    *,
    edges: bool = True,
    nodes: bool = False,
    batch_size: int | None = None,
    progress: bool = False,
) -> FeatureEffects:
    """Change one feature at a time, on every prompt where that changes anything: the truth.

    Parameters
    ----------
    runs : FeatureRuns
        The prompts.
    sources : dict of Site to ndarray of int, optional
        Features to change, of those in `runs.features`; by default all. Effects of others are
        not measured, and stand as 0.
    edges : bool
        Whether to measure effects on the features of the next site. One run changes a feature of
        each site, since every site starts afresh.
    nodes : bool
        Whether to measure effects on the metric, which takes a run of its own for each site.
    batch_size : int, optional
        Prompts that run at once.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    FeatureEffects
        With the number of `runs` and of `seconds` in its settings.

    Raises
    ------
    InputError
        If a source is not among the features of the runs.
    """
    from tqdm.auto import tqdm

    began = time.perf_counter()
    wanted = {site: columns_of(runs, site, sources) for site in runs.sites}
    n, sites = len(runs), runs.sites
    lists = {site: single_changes(runs.fires(site), wanted[site]) for site in sites}
    totals = {
        site: torch.zeros(len(runs.features[site]), len(runs.features[later]))
        for site, later in zip(sites, sites[1:], strict=False)
    }
    measured: dict[Site, Tensor] = {}
    count = 0
    if edges:
        rows, columns = stacked(lists, sites[:-1], n)
        count += len(rows)
        for part in tqdm(list(runs.in_batches(rows, batch_size)), "exact", disable=not progress):
            column = {site: values[part] for site, values in columns.items()}
            bits = {site: _one_hot(column[site], len(runs.features[site])) for site in sites[:-1]}
            found, _ = runs.run(rows[part], bits)
            for site, later in zip(sites, sites[1:], strict=False):
                live = column[site] >= 0
                totals[site].index_add_(0, column[site][live], found[later][live].cpu())
    if nodes:
        for site in sites:
            rows, column = lists[site].T
            count += len(rows)
            measured[site] = torch.zeros(len(runs.features[site]))
            for part in runs.in_batches(rows, batch_size):
                bits = {site: _one_hot(column[part], len(runs.features[site]))}
                _, logits = runs.run(rows[part], bits, afresh=False, measure=True)
                assert logits is not None
                change = runs.change(logits, rows[part])
                measured[site].index_add_(0, column[part], change.cpu())
    return FeatureEffects(
        runs.features,
        {site: table.numpy() / n for site, table in totals.items()} if edges else {},
        {site: column.numpy() / n for site, column in measured.items()},
        mean_activations(runs),
        settings={
            "method": "exact ablation",
            **runs.settings,
            "runs": count,
            "seconds": time.perf_counter() - began,
        },
    )


def mean_activations(runs: FeatureRuns) -> dict[Site, np.ndarray]:
    """Average every feature over tokens, then prompts."""
    return {site: runs.pooled(runs.acts[site]).mean(0).cpu().numpy() for site in runs.sites}


def exact_runs(runs: FeatureRuns) -> int:
    """Count the prompts that `exact_feature_effects` runs for the edges of all features."""
    each = [runs.fires(site).sum(1) for site in runs.sites[:-1]]
    return int(torch.stack(each).amax(0).sum())


def columns_of(
    runs: FeatureRuns, site: Site, sources: Mapping[Site, np.ndarray] | None
) -> np.ndarray:
    """Find the columns that features have in the tables of the runs."""
    if sources is None:
        return np.arange(len(runs.features[site]))
    given = np.asarray(sources.get(site, []), dtype=int)
    unknown = np.setdiff1d(given, runs.features[site])
    if len(unknown):
        raise InputError(
            f"Feature {unknown[0]} of {site} is not among those that fire on enough prompts. "
            "Choose from runs.features."
        )
    return np.searchsorted(runs.features[site], given)


def single_changes(fires: Tensor, columns: np.ndarray) -> Tensor:
    """List single changes, prompt by prompt."""
    chosen = torch.zeros(fires.shape[1], dtype=torch.bool)
    chosen[torch.as_tensor(columns)] = True
    return (fires.cpu() & chosen).nonzero()


def stacked(
    lists: Mapping[Site, Tensor], sites: list[Site], n: int
) -> tuple[Tensor, dict[Site, Tensor]]:
    """Put single changes of several sites side by side, into one list of runs."""
    counts = torch.stack([torch.bincount(lists[site][:, 0], minlength=n) for site in sites])
    most = counts.amax(0)  # (n,)
    first = most.cumsum(0) - most
    columns = {}
    for site, count in zip(sites, counts, strict=True):
        prompt, column = lists[site].T
        place = first[prompt] + torch.arange(len(prompt)) - (count.cumsum(0) - count)[prompt]
        columns[site] = torch.full((int(most.sum()),), -1)
        columns[site][place] = column
    return torch.repeat_interleave(torch.arange(n), most), columns


def _one_hot(column: Tensor, p: int) -> Tensor:
    out = torch.zeros(len(column), p)
    live = (column >= 0).nonzero()[:, 0]
    out[live, column[live]] = 1.0
    return out

"""Effects of features by changing one at a time: the truth that faster methods are held against."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from circuit_toolkit.attribution.features import columns_of, single_changes, stacked
from circuit_toolkit.patching.feature_runs import SIZE, FeatureRuns
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks.prompt_pairs import row_slices


@dataclass(frozen=True, eq=False)
class FeatureEffects:
    """Mean effects of changing one feature."""

    edges: Mapping[Site, np.ndarray]  # (p, q), on features of the next site
    nodes: Mapping[Site, np.ndarray]  # (p,), on the metric
    settings: Mapping[str, Any]


def changing(runs: FeatureRuns, site: Site) -> Tensor:
    """Return which features are changed at all on which prompts, shape (n, p)."""
    return runs.pooled((runs.deltas[site] != 0).float()) > 0


def metric_change(runs: FeatureRuns, logits: Tensor, rows: Tensor) -> Tensor:
    """Return how much the metric changed, shape (B,), from the logits (B, 1, V) of a run."""
    plain = runs.task.metric_of(runs.logits[rows], rows.tolist())
    return (runs.task.metric_of(logits, rows.tolist()) - plain).detach().float()


def exact_feature_effects(
    runs: FeatureRuns,
    sources: Mapping[Site, np.ndarray] | None = None,
    *,
    edges: bool = True,
    nodes: bool = False,
    batch_size: int = SIZE,
    progress: bool = False,
) -> FeatureEffects:
    """Change one feature at a time, on every prompt where that changes anything.

    Of the features in `runs.features`, all or `sources`; effects of others stand as 0. Edges: one
    run changes a feature of each site, since every site starts afresh. Nodes take a run for each.
    """
    began = time.perf_counter()
    wanted = {site: columns_of(runs, site, sources) for site in runs.sites}
    n, sites = len(runs), runs.sites
    lists = {site: single_changes(changing(runs, site), wanted[site]) for site in sites}
    totals = {
        site: torch.zeros(len(runs.features[site]), len(runs.features[later]))
        for site, later in zip(sites, sites[1:], strict=False)
    }
    measured: dict[Site, Tensor] = {}
    count = 0
    if edges:
        rows, columns = stacked(lists, sites[:-1], n)
        count += len(rows)
        for part in row_slices(len(rows), batch_size, progress, "exact"):
            column = {site: values[part] for site, values in columns.items()}
            bits = {site: _one_hot(column[site], len(runs.features[site])) for site in sites[:-1]}
            found, _ = runs.run(rows[part], bits)
            for site, later in zip(sites, sites[1:], strict=False):
                live = column[site] >= 0
                totals[site].index_add_(0, column[site][live], found[later][live].cpu())
    for site in tqdm(sites if nodes else [], "exact", disable=not progress):
        rows, column = lists[site].T
        count += len(rows)
        measured[site] = torch.zeros(len(runs.features[site]))
        for part in row_slices(len(rows), batch_size):
            bits = {site: _one_hot(column[part], len(runs.features[site]))}
            _, logits = runs.run(rows[part], bits, afresh=False, logits=True)
            assert logits is not None
            change = metric_change(runs, logits, rows[part])
            measured[site].index_add_(0, column[part], change.cpu())
    return FeatureEffects(
        {site: table.numpy() / n for site, table in totals.items()} if edges else {},
        {site: column.numpy() / n for site, column in measured.items()},
        settings={
            "method": "exact ablation",
            **runs.settings,
            "runs": count,
            "seconds": time.perf_counter() - began,
        },
    )


def exact_runs(runs: FeatureRuns) -> int:
    """Count the runs of a prompt that changing every feature by itself would take."""
    each = [changing(runs, site).sum(1) for site in runs.sites[:-1]]
    return int(torch.stack(each).amax(0).sum())


def _one_hot(column: Tensor, p: int) -> Tensor:
    out = torch.zeros(len(column), p)
    live = (column >= 0).nonzero()[:, 0]
    out[live, column[live]] = 1.0
    return out

"""Attribution patching and integrated gradients over features.

Marks et al., "Sparse Feature Circuits", 2025, arXiv 2403.19647: the effect of a feature is, to
first order, the change of its activation times the gradient there; with integrated gradients the
mean of the gradients on the way from its old to its new value. What the dictionaries leave
unexplained stays in the stream, and gradients flow through it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.arguments import whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET, new_edges, new_nodes
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.patching.feature_runs import SIZE, Bits, FeatureRuns, NewValue
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks.prompt_pairs import PromptPairs, row_slices

_MEMORY = 2**30  # bytes that are kept for gradients, about


def feature_attribution(
    model: Model,
    dictionaries: Mapping[Site, Dictionary] | Iterable[Dictionary],
    task: PromptPairs,
    *,
    steps: int = 0,
    value: NewValue = "zero",
    positions: Literal["all", "last"] = "all",
    n_prompts: int | None = None,
    min_active: int = 10,
    max_features: int = 100,
    max_edges: int | None = 500,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> Circuit:
    """Learn a circuit of features from gradients.

    Features are ranked by their effect on the metric; edges are attributed into the best.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Autoencoders of the residual stream between blocks.
    task : PromptPairs
        Prompts and a metric; a `Task` is one.
    steps : int
        0 for attribution patching, else the points of integrated gradients (10 in the paper).
    value : {"zero", "mean", "corrupted", "other"}
        What features are changed to: zero, their mean, or what they are on the corrupted prompt or
        on another prompt of the same length.
    positions : {"all", "last"}
        At which tokens.
    n_prompts : int, optional
        How many to use, the first ones; by default all.
    min_active : int
        Leave out features that change on fewer prompts.
    max_features : int
        So many, the best.
    max_edges : int, optional
        Keep at most so many.
    seed : int
        Decides which prompt is the other one.
    batch_size : int, optional
        Prompts that run at once; by default so many that what is kept for gradients takes about
        1 GiB, at most 128.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Circuit
        Weights are mean effects, to first order.

    Raises
    ------
    InputError
        If a setting is out of range, or dictionaries or prompts will not do.
    """
    began = time.perf_counter()
    runs = FeatureRuns.of(model, dictionaries, task, value, positions, n_prompts, min_active, seed)
    steps = whole(steps, "steps", 0)
    batch_size = _at_once(runs) if batch_size is None else whole(batch_size, "batch_size", 1)
    nodes, count = attributed_nodes(runs, steps, batch_size)
    sizes = np.sort(np.concatenate([np.abs(column) for column in nodes.values()]))
    least = sizes[-min(max_features, len(sizes))] if max_features > 0 else np.inf
    best = {site: runs.features[site][np.abs(column) >= least] for site, column in nodes.items()}
    edges, more = attributed_edges(runs, best, steps, batch_size, progress)
    settings = {
        "method": "integrated gradients" if steps else "attribution patching",
        **runs.settings,
        "steps": steps,
        "runs": count + more,
        "seconds": time.perf_counter() - began,
    }
    return _circuit(runs, nodes, edges, max_features, max_edges, settings)


def _circuit(
    runs: FeatureRuns,
    nodes: Mapping[Site, np.ndarray],
    edges: Mapping[Site, np.ndarray],
    max_features: int,
    max_edges: int | None,
    settings: Mapping[str, Any],
) -> Circuit:
    """Return the strongest features and the strongest edges between them."""
    sites = runs.sites
    sizes = [len(runs.features[site]) for site in sites]
    means = [runs.pooled(runs.acts[site]).mean(0).cpu().numpy() for site in sites]
    table = new_nodes(
        sum(sizes),
        site=np.repeat([str(site) for site in sites], sizes),
        position=runs.positions,
        index=np.concatenate([runs.features[site] for site in sites]),
        score=np.concatenate([np.abs(nodes[site]) for site in sites]),
        activation=np.concatenate(means),
    )
    end = new_nodes(1, TARGET, score=table["score"].max(), label=runs.task.name)
    table, first = np.concatenate([table, end]), np.cumsum([0, *sizes])
    rows = []  # source, target, weight, score
    for site, later, here, there in zip(sites, sites[1:], first, first[1:], strict=False):
        effect = edges[site]
        total = np.abs(effect).sum(0)
        after = np.abs(nodes[later])
        score = np.abs(effect) * np.divide(after, total, out=0 * total, where=total > 0)
        at = score.nonzero()
        rows.append((here + at[0], there + at[1], effect[at], score[at]))
    last = nodes[sites[-1]]
    on = last.nonzero()[0]
    rows.append((first[-2] + on, np.full(len(on), first[-1]), last[on], np.abs(last[on])))
    source, target, weight, score = map(np.concatenate, zip(*rows, strict=True))
    found = new_edges(len(source), source=source, target=target, weight=weight, score=score)
    whole = Circuit(table, found, {"level": "features", "scope": "dataset", **settings})
    keep = table["kind"] == TARGET
    keep[np.argsort(-table["score"][:-1], kind="stable")[:max_features]] = True
    part = whole.subgraph(keep & ((table["score"] > 0) | (table["kind"] == TARGET)))
    best = np.sort(np.argsort(-part.edges["score"], kind="stable")[:max_edges])
    return Circuit(part.nodes, part.edges[best], part.settings)


def attributed_nodes(
    runs: FeatureRuns, steps: int = 0, batch_size: int = SIZE
) -> tuple[dict[Site, np.ndarray], int]:
    """Return effects on the metric (p,) by site, and the number of runs that they took."""
    points = _midpoints(steps)
    totals = {site: torch.zeros(len(runs.features[site])) for site in runs.sites}
    everything, count = torch.arange(len(runs)), 0
    # Without steps, the gradients of one run serve all sites at once.
    groups = [[site] for site in runs.sites] if steps else [runs.sites]
    for part in row_slices(len(runs), batch_size):
        rows = everything[part]
        for group in groups:
            for point in points:
                leaves: dict[Site, Tensor] = {}
                bits = _part_of_the_way(runs, group, len(rows), point)
                _, logits = runs.run(rows, bits, afresh=False, logits=True, leaves=leaves)
                assert logits is not None
                metric = runs.task.metric_of(logits, rows.tolist()).sum()
                found = torch.autograd.grad(metric, list(leaves.values()))
                count += len(rows)
                for site, gradient in zip(leaves, found, strict=True):
                    effect = _effects(runs, site, rows, gradient).sum(0).cpu()
                    totals[site] += effect / (len(runs) * len(points))
    return {site: total.numpy() for site, total in totals.items()}, count


def attributed_edges(
    runs: FeatureRuns,
    later: Mapping[Site, np.ndarray] | None = None,
    steps: int = 0,
    batch_size: int = SIZE,
    progress: bool = False,
) -> tuple[dict[Site, np.ndarray], int]:
    """Return effects (p, q) between adjacent sites, and the number of runs that they took."""
    points = _midpoints(steps)
    sites, ends = runs.sites, runs.sites[1:]
    totals = {
        end: torch.zeros(len(runs.features[end]), len(runs.features[site]))
        for site, end in zip(sites, ends, strict=False)
    }
    lists = {
        end: single_changes(runs.pooled(runs.acts[end].abs()) > 0, columns_of(runs, end, later))
        for end in ends
    }
    rows, columns = stacked(lists, ends, len(runs))  # one later feature of each site in a run
    for part in row_slices(len(rows), batch_size, progress, "gradients"):
        column = {end: values[part] for end, values in columns.items()}
        live = {end: (values >= 0).nonzero()[:, 0] for end, values in column.items()}
        for point in points:
            leaves: dict[Site, Tensor] = {}
            bits = _part_of_the_way(runs, sites[:-1], len(rows[part]), point)
            changes, _ = runs.run(rows[part], bits, leaves=leaves)
            loss = torch.zeros(())
            for end in ends:
                loss = loss + changes[end][live[end], column[end][live[end]]].sum().cpu()
            starts = [leaves[site] for site in sites[:-1]]
            for site, end, gradient in zip(
                sites, ends, torch.autograd.grad(loss, starts), strict=False
            ):
                effect = _effects(runs, site, rows[part], gradient).cpu()[live[end]]
                totals[end].index_add_(0, column[end][live[end]], effect)
    scale = len(runs) * len(points)
    tables = {site: totals[end].T.numpy() / scale for site, end in zip(sites, ends, strict=False)}
    return tables, len(rows) * len(points)


def _at_once(runs: FeatureRuns) -> int:
    """Return how many prompts fit where gradients are taken from the first site on."""
    model = runs.model
    inner = getattr(model.hf.config, "intermediate_size", None) or 4 * model.width
    blocks = model.n_layers - runs.sites[0].layer
    each = 4 * runs.where.shape[1] * blocks * (12 * model.width + 4 * inner)
    return max(1, min(SIZE, int(_MEMORY // each)))


def _part_of_the_way(runs: FeatureRuns, sites: Sequence[Site], n: int, point: float) -> Bits:
    return {site: runs.deltas[site].new_full((n, 1), point) for site in sites}


def _midpoints(steps: int) -> list[float]:
    return [(step + 0.5) / steps for step in range(steps)] or [0.0]


def _effects(runs: FeatureRuns, site: Site, rows: Tensor, gradient: Tensor) -> Tensor:
    """Change of each feature times the gradient there, summed over tokens, shape (B, p)."""
    pull = gradient[runs.where[rows]] @ runs.directions(site).T  # (tokens, p)
    effect = runs.deltas[site][runs.tokens(rows)] * pull
    return runs.summed(effect, rows)


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
            f"Feature {unknown[0]} of {site} is not among those that are active on enough prompts. "
            "Choose from runs.features."
        )
    return np.searchsorted(runs.features[site], given)


def single_changes(changing: Tensor, columns: np.ndarray) -> Tensor:
    """List single changes, prompt by prompt."""
    chosen = torch.zeros(changing.shape[1], dtype=torch.bool)
    chosen[torch.as_tensor(columns)] = True
    return (changing.cpu() & chosen).nonzero()


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

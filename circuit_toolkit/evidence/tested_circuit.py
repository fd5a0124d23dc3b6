"""From a task to a tested circuit: rank, grow until it holds, draw its edges, test all of it.

Features at places are ranked by what they give to the metric between all ablated and none
(`attribution.placed`), or by randomised runs (`circuit_lasso.placed_lasso`). Nested circuits,
the best features first, are kept alone and ablated on the same prompts, until one is faithful and
complete; the smallest such is drawn. Its edges are found by ablating each feature alone, and
confirmed on other prompts, where the circuit is tested as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import numpy as np

from circuit_toolkit.arguments import expect, number, whole
from circuit_toolkit.attribution.placed import integrated_scores
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.evidence import NECESSARY, SUFFICIENT
from circuit_toolkit.circuit.names import told_apart
from circuit_toolkit.circuit.tables import TARGET, new_edges, new_nodes
from circuit_toolkit.circuit_lasso.placed_lasso import randomised_scores
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.evidence.confirmed_edges import confirm_edges, judged_losses, shares_lost
from circuit_toolkit.evidence.evaluation import evaluate, expect_better, with_metric
from circuit_toolkit.models import Model
from circuit_toolkit.patching.placed_features import (
    Ablation,
    Place,
    PlacedFeatures,
    expect_positions,
    named_positions,
)
from circuit_toolkit.progress import Bar
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task
from circuit_toolkit.tasks.task import trained_on

MARGIN = 0.03  # beyond what is asked, on the prompts where the size is chosen
GROWTH = 1.4  # from one size to the next
TRIED, LOOKED = 128, 128  # prompts that choose the size, and that find edges
LOOKED_AT, CHOOSING, MOST = 32, 3, 0.9  # prompts and steps that choose sites; share of the metric


def find_circuit(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: Task,
    held_out: Task | None = None,
    *,
    positions: str | Sequence[str] | None = None,
    ablation: Ablation | None = None,
    faithfulness: float = SUFFICIENT,
    completeness: float = NECESSARY,
    max_sites: int | None = None,
    max_features: int = 400,
    max_edges: int = 200,
    labels: Mapping[Site, Sequence[str]] | None = None,
    n_prompts: int = 256,
    draws: int | None = None,
    random_sets: int = 10,
    seed: int = 0,
    progress: bool = True,
) -> Circuit:
    """Find the smallest circuit of features at positions that holds, and test it.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        The sites that the circuit may have, see `max_sites`.
    task : Task
        Prompts to learn on.
    held_out : Task, optional
        Other prompts, to test the circuit and its edges on. Without them it stays untested.
    positions : str or sequence of str, optional
        Positions that the task names, and `last`; by default all that are tokens of their own on
        every prompt, of `held_out` too. Features elsewhere are left alone.
    ablation : {"corrupted", "mean"}, optional
        What features outside the circuit are set to: what they are on the corrupted prompt
        (default, where the task has them), or their mean over the prompts.
    faithfulness, completeness : float
        The circuit is grown until F of it alone is at least the first, and F of everything else at
        most the second (Marks et al., 2025, arXiv 2403.19647), on training prompts, each by a
        margin of .03.
    max_sites : int, optional
        Use at most so many of the sites: those where the fewest features give most of the metric.
        By default two that are given are both used, and of more the one. Few sites make small
        circuits, since what passes through each is coded anew.
    max_features : int
        Where no circuit of this size holds, the one of this size is returned.
    max_edges : int
        Draw at most so many edges, the strongest.
    labels : dict of Site to sequence of str, optional
        Names of all features of a site.
    n_prompts : int
        Training prompts, the first ones.
    draws : int, optional
        Rank features by so many randomised runs of each prompt (CircuitLasso); by default by
        integrated gradients, from all features ablated to none.
    random_sets : int
        Random circuits of the same size to compare with.
    seed : int
        Of the randomised runs and of the random circuits.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    Circuit
        Its edges run between one site and the next, and to the metric; see `confirm_edges` for
        their weights. A node's score is the share of the metric that goes when it is ablated alone.
        `evidence["size"]` has the curve over `sizes` on the training prompts; with held-out prompts
        `evidence["ablation"]` (`evaluate`) and `evidence["edges"]` (`confirm_edges`) say how it
        fared, and `circuit.verdict` in words.

    Raises
    ------
    InputError
        If the task has no metric, a position is unknown, or the model does the task no better with
        every feature as it is than with all ablated.
    """
    expect(model, "model", "Model")
    began = time.perf_counter()
    known = as_dictionaries(model, dictionaries)
    part = with_metric(task).subset(whole(n_prompts, "n_prompts", 1))
    if held_out is not None:  # before anything long: a circuit is tested at the positions it has
        held_out = with_metric(held_out)
        if positions is None:
            positions = named_positions(part, held_out)
        expect_positions(held_out, positions)
    goal = number(faithfulness, "faithfulness", 0, 1), number(completeness, "completeness", 0, 1)
    most = (2 if len(known) <= 2 else 1) if max_sites is None else whole(max_sites, "max_sites", 1)
    if len(known) > most:
        some = PlacedFeatures.of(model, known, part.subset(LOOKED_AT), positions, ablation)
        chosen = narrowest(integrated_scores(some, CHOOSING, progress), most)
        known = {site: known[site] for site in chosen}
    runs = PlacedFeatures.of(model, known, part, positions, ablation)
    if draws is None:
        scores = integrated_scores(runs.subset(TRIED), progress=progress)
    else:
        scores = randomised_scores(runs, draws=draws, seed=seed, progress=progress)
    order = ranked(scores, runs.places)[: whole(max_features, "max_features", 1)]
    curve = _curve(runs.subset(TRIED), order, goal, progress)
    nodes = by_place(order[: curve["size"]])
    settings = {
        "method": "integrated gradients" if draws is None else "randomised CircuitLasso",
        "model": model.name,
        "task": task.name,
        "target": task.metric,
        "n_prompts": len(part),
        "trained_on": trained_on(part),
        "sites": [str(site) for site in known],
        "dictionaries": {str(site): each.name for site, each in known.items()},
        "positions": runs.positions,
        "ablation": runs.ablation,
        "draws": draws,
        "seed": seed,
        "level": "features",
        "scope": "dataset",
        "chosen_by": f"faithfulness {goal[0]:g}, completeness {goal[1]:g}",
    }
    fixed = list(known), max_edges, labels or {}, settings, progress
    circuit = _drawn(runs.subset(LOOKED), nodes, *fixed).with_evidence({"size": curve})
    if held_out is not None:
        circuit = confirm_edges(circuit, model, known, held_out, progress=progress)
        circuit = evaluate(
            circuit, model, known, held_out, draws=random_sets, seed=seed, progress=progress
        )
    seconds = round(time.perf_counter() - began, 1)
    return replace(circuit, settings={**circuit.settings, "seconds": seconds})


def narrowest(scores: Mapping[Place, np.ndarray], n: int) -> list[Site]:
    """Return the n sites, in order, where the fewest features give most of what all there give."""
    by_site: dict[Site, list[np.ndarray]] = {}
    for (site, _), each in scores.items():
        by_site.setdefault(site, []).append(each)
    needed: dict[Site, tuple[float, float]] = {}  # and of equal ones the site that gives most
    for site, parts in by_site.items():
        values = np.sort(np.concatenate(parts))[::-1]
        given = float(values.sum())
        enough = np.cumsum(values) >= MOST * given
        needed[site] = float(np.argmax(enough)) if given > 0 else np.inf, -given
    return sorted(sorted(needed, key=lambda site: needed[site])[:n])


def ranked(scores: Mapping[Place, np.ndarray], places: Sequence[Place]) -> list[tuple[Place, int]]:
    """Features with any effect, the best of each site in turn."""
    by_site: dict[Site, list[tuple[Place, int]]] = {}
    for place in places:
        units = np.flatnonzero(scores[place]).tolist()
        by_site.setdefault(place[0], []).extend((place, unit) for unit in units)
    best = [sorted(each, key=lambda at: -abs(scores[at[0]][at[1]])) for each in by_site.values()]
    return [at for rank in zip_longest(*best) for at in rank if at is not None]


def by_place(nodes: Sequence[tuple[Place, int]]) -> dict[Place, np.ndarray]:
    """Return features, listed with their places, by place."""
    found: dict[Place, list[int]] = {}
    for place, unit in nodes:
        found.setdefault(place, []).append(unit)
    return {place: np.sort(units) for place, units in found.items()}


def _curve(
    runs: PlacedFeatures,
    order: Sequence[tuple[Place, int]],
    goal: tuple[float, float],
    progress: bool,
) -> dict[str, Any]:
    """Grow nested circuits until one is faithful and complete; say at which size."""
    full, empty = float(runs.metric().mean()), float(runs.metric_with({}).mean())
    expect_better(runs.model, runs.task, "feature", full, empty)
    found: dict[int, tuple[float, float]] = {}
    bar = Bar(label="growing the circuit", shown=progress)

    def holds(size: int) -> bool:
        if size not in found:
            circuit = by_place(order[:size])
            each = [runs.metric_with(circuit, kept=kept).mean() for kept in (True, False)]
            F, C = ((float(m) - empty) / (full - empty) for m in each)
            found[size] = F, C
            bar.update()
        F, C = found[size]
        return goal[0] + MARGIN <= F and goal[1] - MARGIN >= C

    low, high = 0, min(5, len(order))
    while not holds(high) and high < len(order):
        low, high = high, min(max(high + 1, round(high * GROWTH)), len(order))
    while high - low > 1 and high - low > 0.05 * high and holds(high):
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    bar.close()
    sizes = sorted(found)
    return {
        "size": high,
        "reached": holds(high),
        "sizes": sizes,
        "faithfulness": [round(found[size][0], 4) for size in sizes],
        "completeness": [round(found[size][1], 4) for size in sizes],
        "n": len(runs),
    }


def _drawn(
    runs: PlacedFeatures,
    placed: Mapping[Place, np.ndarray],
    sites: list[Site],
    max_edges: int,
    labels: Mapping[Site, Sequence[str]],
    settings: Mapping[str, Any],
    progress: bool,
) -> Circuit:
    """Find the edges of a circuit by ablating each of its features alone, and put it in tables."""
    inner = {place: placed[place] for place in runs.places if place in placed}
    lost, changed = shares_lost(runs, inner, progress)
    listed = [(at, unit) for at, units in inner.items() for unit in units.tolist()]
    means = [runs.acts[place][:, units].mean(0).cpu().numpy() for place, units in inner.items()]
    n = len(listed)
    table = new_nodes(
        n,
        site=[str(site) for (site, _), _ in listed],
        position=[position for (_, position), _ in listed],
        index=[unit for _, unit in listed],
        activation=np.concatenate([*means, []]),
        label=[labels[site][unit] if site in labels else "" for (site, _), unit in listed],
    )
    nodes = np.concatenate([table, new_nodes(1, TARGET, label=runs.task.metric)])
    nodes["score"] = np.append(np.abs(lost[:, -1].mean(1)), 1.0)
    nodes["activation"][-1] = runs.metric().mean()
    depth = np.array([sites.index(site) for (site, _), _ in listed])
    pairs = [(s, t) for s in range(n) for t in np.flatnonzero(depth == depth[s] + 1).tolist()]
    found = judged_losses([lost[pair] for pair in pairs], [changed[s] for s, _ in pairs], 0.95)
    kept = [i for i in np.argsort(-np.abs(found["weight"]), kind="stable") if found["holds"][i]]
    drives = {pairs[i][0] for i in kept[:max_edges]}
    # What no later feature carries on is drawn to the metric; so is all of the last site.
    ends = [s for s in range(n) if depth[s] == len(sites) - 1 or s not in drives]
    direct = judged_losses([lost[s, -1] for s in ends], [changed[s] for s in ends], 0.95)
    rows = [(*pairs[i], found["weight"][i]) for i in kept[:max_edges]]
    rows += [(s, n, w) for s, w in zip(ends, direct["weight"], strict=True) if np.isfinite(w)]
    source, target, weight = zip(*rows, strict=True) if rows else ((), (), ())
    edges = new_edges(len(rows), source=source, target=target, weight=weight, score=np.abs(weight))
    return Circuit(told_apart(nodes), edges, dict(settings))

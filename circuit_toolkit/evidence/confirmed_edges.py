"""Does every edge hold? Each source is ablated by itself, and what follows is measured.

The weight of a tested edge is the share of the target's mean activation (or metric) that goes when
the source is ablated: its total effect, along every path between the two sites. It is confirmed
where the interval over prompts excludes 0, its sign is that of what was drawn, and it survives
Benjamini and Hochberg's procedure (1995) over all edges that were tested; else it is refuted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from circuit_toolkit.arguments import expect, expect_known, number, whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import STATUS, TARGET
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.evaluation import evaluated_on, with_metric
from circuit_toolkit.evidence.head_paths import PATHS, path_shares
from circuit_toolkit.models import Model
from circuit_toolkit.patching.placed_features import Ablation, Place, PlacedFeatures
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

_LEAST = 3  # prompts on which a source changes, below which nothing can be said


def confirm_edges(
    circuit: Circuit,
    model: Model,
    dictionaries: Mapping[Site, Dictionary] | None,
    task: Task,
    *,
    ablation: Ablation | None = None,
    n_prompts: int = 256,
    level: float = 0.95,
    progress: bool = True,
) -> Circuit:
    """Test every edge of a circuit by itself: its source is ablated, or its path is patched.

    Parameters
    ----------
    circuit : Circuit
        Of features at positions that the task names, or `last`; or of heads.
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary, or None
        Those that the circuit was learnt on; None for heads.
    task : Task
        Prompts to test on; better ones that the circuit was not learnt on.
    ablation : {"corrupted", "mean"}, optional
        What a source is set to: what it is on the corrupted prompt, or its mean over the prompts;
        by default as the circuit's settings say, else corrupted where the task has such prompts.
    n_prompts : int
        Prompts of the task to use, the first ones.
    level : float
        Of the intervals; 1 - level is the false discovery rate.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Circuit
        Whose edges have a status and an interval, and as weight the share of the target's mean
        activation that the source accounts for; with `evidence["edges"]`: `confirmed`, `refuted`,
        `untested` (counts), `level`, `ablation` and `evaluated_on`. An edge whose source changes on
        fewer than three prompts, or whose target is never active on them, stays untested. An edge
        between heads, or from a head to the target, carries what it has on the corrupted prompt, at
        all tokens, through MLPs but no other head; its weight is the share that this takes of the
        metric's change between clean and corrupted prompts.

    Raises
    ------
    InputError
        If the circuit has neither features at positions of this task nor heads, or several
        targets, or heads without inputs of their own, a dictionary is missing, or a setting is
        out of range.
    """
    expect(circuit, "circuit", "Circuit")
    expect(model, "model", "Model")
    level = number(level, "level", 0, 1, open_low=True)
    part = with_metric(task).subset(whole(n_prompts, "n_prompts", 1))
    placed = circuit.placed_features()
    kinds = set(circuit.nodes["kind"].tolist()) - {TARGET}
    if kinds == {"head"}:
        pairs = circuit.edges[["source", "target"]].tolist()
        losses = list(path_shares(circuit, model, part, pairs, n_prompts, progress))
        edges = _with_status(circuit.edges, losses, [np.ones(len(part), bool)] * len(pairs), level)
        return _recorded(circuit, edges, level, PATHS, model, part)
    if not placed or kinds != {"feature"}:
        raise InputError(
            "This needs a circuit of features or of heads, got one of "
            f"{', '.join(sorted(kinds)) or 'nothing but a target'}."
        )
    if np.count_nonzero(circuit.nodes["kind"] == TARGET) > 1:
        raise InputError(
            "Edges are tested on the metric of the task: pass a circuit of one target."
        )
    known = as_dictionaries(model, dictionaries)
    for site, _ in placed:
        expect_known(site, known, f"No dictionary was given for {site} of the circuit")
    sites = {site: known[site] for site, _ in placed}
    positions = list(dict.fromkeys(position for _, position in placed))
    ablation = ablation or circuit.settings.get("ablation")
    runs = PlacedFeatures.of(model, sites, part, positions, ablation)
    inner = {place: placed[place] for place in runs.places if place in placed}
    edges = _judged(circuit, runs, inner, level, progress)
    return _recorded(circuit, edges, level, runs.ablation, model, part)


def _recorded(
    circuit: Circuit, edges: np.ndarray, level: float, ablation: str, model: Model, task: Task
) -> Circuit:
    """Put tested edges into a circuit, with how they fared."""
    record = {
        **{name: int((edges["status"] == name).sum()) for name in STATUS},
        "level": level,
        "ablation": ablation,
        "evaluated_on": evaluated_on(circuit.settings, model, task),
    }
    return replace(circuit, edges=edges, evidence={**circuit.evidence, "edges": record})


def _judged(
    circuit: Circuit,
    runs: PlacedFeatures,
    placed: Mapping[Place, np.ndarray],
    level: float,
    progress: bool,
) -> np.ndarray:
    """Ablate every feature alone, and return the edges with weights, intervals and status."""
    lost, moved = shares_lost(runs, placed, progress)
    listed = [(str(at[0]), at[1], unit) for at, units in placed.items() for unit in units.tolist()]
    row = {key: number for number, key in enumerate(listed)}
    rows = [
        row.get(tuple(key), -1) for key in circuit.nodes[["site", "position", "index"]].tolist()
    ]
    pairs = [(rows[s], rows[t]) for s, t in circuit.edges[["source", "target"]].tolist()]
    losses, changed = [lost[pair] for pair in pairs], [moved[s] for s, _ in pairs]
    return _with_status(circuit.edges, losses, changed, level)


def _with_status(
    edges: np.ndarray, losses: Sequence[np.ndarray], changed: Sequence[np.ndarray], level: float
) -> np.ndarray:
    """Give edges the weights that were measured, intervals, and whether they hold."""
    edges, found = edges.copy(), judged_losses(losses, changed, level)
    known = np.isfinite(found["weight"])
    signs = (np.sign(edges["weight"]) == np.sign(found["weight"])) | (edges["weight"] == 0)
    edges["status"] = np.where(known, "refuted", "untested")
    edges["status"][known & found["holds"] & signs] = "confirmed"
    for name in ("weight", "low", "high"):
        edges[name][known] = found[name][known]
    edges["score"][known] = np.abs(found["weight"][known])
    return edges


def shares_lost(
    runs: PlacedFeatures, placed: Mapping[Place, np.ndarray], progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Ablate every feature alone; return what goes, and on which prompts the feature changes.

    Shares of the mean activation of each feature, and last of the metric, (sources, targets + 1,
    n); NaN where that mean is 0.
    """
    on_features, on_metric = runs.effects(placed, placed, progress=progress)
    means = [runs.acts[place][:, units].mean(0).cpu().numpy() for place, units in placed.items()]
    whole = np.concatenate([*means, [abs(float(runs.metric().mean()))]])[:, None]
    lost = np.concatenate([on_features, on_metric[:, None]], 1)
    return lost / np.where(whole > 0, whole, np.nan), runs.changed(placed)


_JUDGED = np.dtype([("weight", "f8"), ("low", "f8"), ("high", "f8"), ("holds", "?")])


def judged_losses(
    losses: Sequence[np.ndarray], changed: Sequence[np.ndarray], level: float
) -> np.ndarray:
    """Return mean losses with intervals, and which of them are discoveries, a row for each.

    Intervals are Student's t over the prompts on which the source changes; the weight is NaN where
    these are too few.
    """
    import scipy.stats

    rows = [_interval(*each, level) for each in zip(losses, changed, strict=True)]
    table = np.array([(w, low, high, low > 0 or high < 0) for w, low, high, _ in rows], _JUDGED)
    p = np.array([row[3] for row in rows])
    known = np.isfinite(p)
    if known.any():
        table["holds"][known] &= scipy.stats.false_discovery_control(p[known]) <= 1 - level
    return table


def _interval(
    losses: np.ndarray, changed: np.ndarray, level: float
) -> tuple[float, float, float, float]:
    """Mean, ends and p-value of Student's t over the prompts on which the source changes."""
    import scipy.stats

    moved = losses[changed]
    share = len(moved) / max(len(losses), 1)
    if len(moved) < _LEAST or not np.isfinite(moved).all():
        return np.nan, -np.inf, np.inf, np.nan
    mean, error = moved.mean(), moved.std(ddof=1) / np.sqrt(len(moved))
    if error == 0:
        return mean * share, mean * share, mean * share, 0.0
    found = scipy.stats.t(len(moved) - 1)
    half = found.ppf((1 + level) / 2) * error
    p = 2 * found.sf(abs(mean) / error)
    return mean * share, (mean - half) * share, (mean + half) * share, p

"""Does every edge hold? Each source is ablated by itself, and what follows is measured.

The weight of a tested edge is the share of the target's mean activation (or metric) that goes when
the source is ablated: its total effect, along every path between the two sites. It is confirmed
where the interval over prompts excludes 0, its sign is that of what was drawn, and it survives
Benjamini and Hochberg's procedure (1995) over all edges that were tested; else it is refuted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from circuit_toolkit.arguments import expect, number, whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.evaluation import evaluated_on, with_metric
from circuit_toolkit.models import Model
from circuit_toolkit.patching.placed_features import Ablation, Place, PlacedFeatures
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

_LEAST = 3  # prompts on which a source changes, below which nothing can be said


def confirm_edges(
    circuit: Circuit,
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: Task,
    *,
    ablation: Ablation | None = None,
    n_prompts: int = 128,
    level: float = 0.95,
    progress: bool = True,
) -> Circuit:
    """Test every edge of a circuit of features by ablating its source alone.

    Parameters
    ----------
    circuit : Circuit
        Of features at positions that the task names, or `last`.
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Those that the circuit was learnt on.
    task : Task
        Prompts to test on; better ones that the circuit was not learnt on.
    ablation : {"corrupted", "mean"}, optional
        What a source is set to: what it is on the corrupted prompt (default, where there is one) or
        its mean over the prompts.
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
        fewer than three prompts stays untested.

    Raises
    ------
    InputError
        If the circuit has no features at positions of this task, or a setting is out of range.
    """
    expect(circuit, "circuit", "Circuit")
    expect(model, "model", "Model")
    level = number(level, "level", 0, 1, open_low=True)
    part = with_metric(task).subset(whole(n_prompts, "n_prompts", 1))
    placed = placed_of(circuit)
    sites = {site: dictionaries[site] for site in dict.fromkeys(site for site, _ in placed)}
    positions = list(dict.fromkeys(position for _, position in placed))
    runs = PlacedFeatures.of(model, sites, part, positions, ablation)
    inner = {place: placed[place] for place in runs.places if place in placed}
    on_features, on_metric = runs.effects(inner, inner, progress=progress)
    rows = _rows(circuit, inner)
    edges = _Tested(circuit, runs, inner, rows, on_features, on_metric).judged(level)
    counts = {name: int((edges["status"] == name).sum()) for name in _STATUS}
    record = {
        **counts,
        "level": level,
        "ablation": runs.ablation,
        "evaluated_on": evaluated_on(circuit.settings, model, part),
    }
    return replace(circuit, edges=edges, evidence={**circuit.evidence, "edges": record})


_STATUS = ("confirmed", "refuted", "untested")


def placed_of(circuit: Circuit) -> dict[Place, np.ndarray]:
    """Return the features of a circuit by place; refuse one that has none."""
    placed = circuit.placed_features()
    kinds = set(circuit.nodes["kind"].tolist()) - {TARGET}
    if not placed or kinds != {"feature"}:
        raise InputError(
            "This needs a circuit of features, got one of "
            f"{', '.join(sorted(kinds)) or 'nothing but a target'}."
        )
    return placed


def _rows(circuit: Circuit, placed: Mapping[Place, np.ndarray]) -> np.ndarray:
    """Where each node (n,) stands among the features, place by place; -1 for targets."""
    number: dict[Any, int] = {}
    for (site, position), units in placed.items():
        for unit in units.tolist():
            number[str(site), position, unit] = len(number)
    keys = circuit.nodes[["site", "position", "index"]].tolist()
    return np.array([number.get(tuple(key), -1) for key in keys])


class _Tested:
    """Effects of single ablations, and what they say of edges."""

    def __init__(
        self,
        circuit: Circuit,
        runs: PlacedFeatures,
        placed: Mapping[Place, np.ndarray],
        rows: np.ndarray,
        on_features: np.ndarray,
        on_metric: np.ndarray,
    ) -> None:
        self.rows, self.on_features, self.on_metric = rows, on_features, on_metric
        self.edges, self.is_target = circuit.edges, circuit.nodes["kind"] == TARGET
        self.changed = runs.changed(placed)
        mean = [runs.acts[place][:, units].mean(0).numpy() for place, units in placed.items()]
        self.mean = np.concatenate(mean)
        self.metric = abs(float(runs.metric().mean()))

    def losses(self, source: int, target: int) -> np.ndarray:
        """Return what prompts lose at a target, as a share of its mean."""
        row = self.rows[source]
        if self.is_target[target]:
            return self.on_metric[row] / max(self.metric, 1e-9)
        column = self.rows[target]
        return self.on_features[row, column] / max(float(self.mean[column]), 1e-9)

    def judged(self, level: float) -> np.ndarray:
        """Return the edges with weights, intervals and status."""
        edges = self.edges.copy()
        pairs = edges[["source", "target"]].tolist()
        changed = [self.changed[self.rows[source]] for source, _ in pairs]
        found = judged_losses([self.losses(*pair) for pair in pairs], changed, level)
        known = np.isfinite(found["weight"])
        signs = (np.sign(edges["weight"]) == np.sign(found["weight"])) | (edges["weight"] == 0)
        edges["status"] = np.where(known, "refuted", "untested")
        edges["status"][known & found["holds"] & signs] = "confirmed"
        for name in ("weight", "low", "high"):
            edges[name][known] = found[name][known]
        edges["score"][known] = np.abs(found["weight"][known])
        return edges


_JUDGED = np.dtype([("weight", "f8"), ("low", "f8"), ("high", "f8"), ("holds", "?")])


def judged_losses(
    losses: Sequence[np.ndarray], changed: Sequence[np.ndarray], level: float
) -> np.ndarray:
    """Return mean losses with intervals, and which of them are discoveries, a row for each.

    Intervals are Student's t over the prompts on which the source changes; the weight is NaN where
    these are too few.
    """
    import scipy.stats

    table = np.zeros(len(losses), _JUDGED)
    rows = [_interval(*each, level) for each in zip(losses, changed, strict=True)]
    p = np.array([row[3] for row in rows])
    for row, (weight, low, high, _) in enumerate(rows):
        table[row] = (weight, low, high, low > 0 or high < 0)
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
    if len(moved) < _LEAST:
        return np.nan, -np.inf, np.inf, np.nan
    mean, error = moved.mean(), moved.std(ddof=1) / np.sqrt(len(moved))
    if error == 0:
        return mean * share, mean * share, mean * share, 0.0
    found = scipy.stats.t(len(moved) - 1)
    half = found.ppf((1 + level) / 2) * error
    p = 2 * found.sf(abs(mean) / error)
    return mean * share, (mean - half) * share, (mean + half) * share, p

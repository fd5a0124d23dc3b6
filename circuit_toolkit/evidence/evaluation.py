"""Does a circuit hold? It alone, and everything but it, while the rest of the model is ablated.

Marks et al., 2025, arXiv 2403.19647: `F(C) = (m(C) - m(empty)) / (m(model) - m(empty))`, where m(C)
is the mean metric with everything outside C ablated, and m(empty) with all of it ablated. The
faithfulness of a circuit is F(C), its completeness F of everything but C.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.arguments import expect, expect_known, whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import edge_mask
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.component_faithfulness import with_edges
from circuit_toolkit.evidence.intervals import bootstrap
from circuit_toolkit.interventions.changes import Change, mean_ablation
from circuit_toolkit.interventions.circuit_changes import resampled_heads
from circuit_toolkit.interventions.runs import intervene
from circuit_toolkit.models import Model
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.patching.placed_features import Place, PlacedFeatures, Units
from circuit_toolkit.progress import Bar
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task
from circuit_toolkit.tasks.task import seen_in

LEAST = 1e-6  # a smaller difference between two metrics is none
_ABOUT = ("ablation", "ablated_positions", "errors", "unit", "size")


class _Ablation(NamedTuple):
    """How circuits of one kind are ablated.

    `about` is what the evidence says of it (`_ABOUT`). `measure` takes (units, whether they are
    kept) and gives the metric of every prompt, (sets, n); `beside` has it for other runs, by the
    name of their F.
    """

    about: tuple[str, str, str | None, str, int]
    circuit: Any
    nothing: Any
    draw: Callable[[np.random.Generator], Any]
    measure: Callable[[list[tuple[Any, bool]]], np.ndarray]
    beside: Mapping[str, np.ndarray] = {}


def evaluate(
    circuit: Circuit,
    model: Model,
    dictionaries: Mapping[Site, Dictionary] | None,
    task: Task,
    acts: Activations | None = None,
    *,
    draws: int = 20,
    n_prompts: int = 128,
    seed: int = 0,
    progress: bool = True,
) -> Circuit:
    """Test a circuit by intervention, and return it with the outcome as evidence.

    Of a circuit of features, features at its sites are set to their means; what the dictionaries
    do not explain is kept. Of one of heads, or of edges between components, what is ablated
    carries what it has on the corrupted prompt.

    Parameters
    ----------
    circuit : Circuit
        Of features, heads (at `head_out`) or components.
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary, or None
        Those that the circuit was learnt on; None for heads and components.
    task : Task
        What the metric is measured on; better one that the circuit was not learnt on. For heads
        and components with corrupted prompts of equal length.
    acts : Activations, optional
        Where the means of features come from; an ablation acts at their positions. By default the
        task is captured, at the positions of the circuit.
    draws : int
        Number of random sets of equal size; of features, as many active ones at each site.
    n_prompts : int
        Prompts of the task to use, the first ones.
    seed : int
        Of the random sets.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Circuit
        With `evidence["ablation"]`:

        `evaluated_on`: `task`, `metric`, `split`, `seed`, `n` (prompts), `model`, and `seen`, the
        number of prompts that the circuit was learnt on (None if unknown). If there are any, the
        split is `training`.
        `ablation` (`mean` or `resample`), `ablated_positions`, `errors` (`kept`; None without
        dictionaries), `unit` (`feature`, `head` or `edge`), `size` (units in the circuit).
        `metric_model`, `metric_empty`, `metric_circuit`, `metric_others`: the mean metric of the
        model, with everything ablated, with only the circuit kept, and with only it ablated.
        `faithfulness`, `completeness`: F of the circuit, 1 is ideal, and of everything but it, 0
        is ideal. `random_faithfulness`, `random_completeness`: lists of the same for random sets,
        drawn by `random_seed`. `faithfulness_interval`, `completeness_interval`: 95 % bootstrap
        intervals over prompts.
        Of a circuit of features at places (`find_circuit`) also `faithfulness_errors_ablated`,
        `completeness_errors_ablated`, and `dictionaries_keep`: F of all features with what the
        dictionaries leave unexplained ablated; and `trivial_faithfulness`, `trivial_completeness`:
        of as many features at each place, those that an ablation changes most in these prompts,
        times the norm of their decoder.

    Raises
    ------
    InputError
        If the circuit is empty, the task has no metric or no corrupted prompts, or the model does
        it no better than with everything ablated.
    """
    expect(circuit, "circuit", "Circuit")
    expect(model, "model", "Model")
    draws, n_prompts = whole(draws, "draws", 1), whole(n_prompts, "n_prompts", 1)
    part = with_metric(task).subset(n_prompts)
    if circuit.settings.get("level") == "components":
        how = _components(circuit, model, part, progress)
    elif {site.kind for site in circuit.features()} == {"head_out"}:
        how = _heads(circuit, model, part, progress)
    else:
        how = _features(circuit, model, dictionaries, task, part, acts, progress)
    record = evaluated_on(circuit.settings, model, part)
    outcome = _outcome(how, model, part, record, draws, seed)
    return circuit.with_evidence({**circuit.evidence, "ablation": outcome})


def _outcome(
    how: _Ablation, model: Model, part: Task, record: dict[str, Any], draws: int, seed: int
) -> dict[str, Any]:
    """Ablate a circuit, everything but it, and as many random sets."""
    plain = how.measure([(how.nothing, False), (how.nothing, True)])
    full, empty = plain.mean(1).tolist()
    expect_better(model, part, how.about[3], full, empty)
    rng = np.random.default_rng(seed)
    sets = [how.circuit, *(how.draw(rng) for _ in range(draws))]
    found = how.measure([(each, kept) for each in sets for kept in (True, False)])
    inside, outside = found.mean(1).reshape(-1, 2).T
    faithfulness, completeness = ((m - empty) / (full - empty) for m in (inside, outside))
    ends = {
        name: bootstrap(np.stack([mine, *plain], 1), share_kept, seed=seed)
        for name, mine in zip(("faithfulness", "completeness"), found[:2], strict=True)
        if len(mine) > 1
    }
    return {
        "evaluated_on": record,
        **dict(zip(_ABOUT, how.about, strict=True)),
        "metric_model": full,
        "metric_empty": empty,
        "metric_circuit": inside[0],
        "metric_others": outside[0],
        "faithfulness": faithfulness[0],
        "completeness": completeness[0],
        "random_faithfulness": faithfulness[1:],
        "random_completeness": completeness[1:],
        "random_seed": seed,
        **{f"{name}_interval": [each.low, each.high] for name, each in ends.items()},
        **{name: (float(m.mean()) - empty) / (full - empty) for name, m in how.beside.items()},
    }


def outcome_at_places(
    mine: Units, runs: PlacedFeatures, record: dict[str, Any], draws: int, seed: int
) -> dict[str, Any]:
    """Test features at places on prompts that were run, ablating to what is at hand."""
    how = _ablation_at_places(mine, runs, progress=False)
    return _outcome(how, runs.model, runs.task, record, draws, seed)


def share_kept(rows: np.ndarray) -> float:
    """F from metrics (n, 3): of a circuit, of the model, and with everything ablated.

    NaN where nothing is lost; if one draw of prompts is so, no interval can be told.
    """
    mine, full, empty = rows.mean(0)
    return float((mine - empty) / (full - empty)) if full != empty else float("nan")


def with_metric(task: Any) -> Task:
    """Return a task, refusing what is none and one that nothing scores."""
    expect(task, "task", "Task")
    if task.metric is None:
        raise InputError(f"Task {task.name!r} has labels alone: there is no metric to keep.")
    return task


def expect_better(model: Model, task: Task, unit: str, full: float, empty: float) -> None:
    """Refuse a task that the model does no better than with everything ablated."""
    if full - empty < LEAST:
        raise InputError(
            f"{model.name} does {task.name!r} no better than with every {unit} ablated (mean "
            f"{task.metric} {full:.3f} and {empty:.3f}): there is nothing that a circuit could be "
            "faithful to."
        )


def evaluated_on(settings: Mapping[str, Any], model: Model, task: Task) -> dict[str, Any]:
    """Return what a metric was measured on; prompts that a circuit knows are training ones."""
    record, seen = task.record(), seen_in(task, settings.get("trained_on"))
    split = "training" if seen else record["split"]
    return {**record, "split": split, "seen": seen, "model": model.name}


def metric_under(
    model: Model,
    task: Task,
    dictionaries: Mapping[Site, Dictionary] | None,
    changes: Sequence[Change],
) -> np.ndarray:
    """Measure the metric of every prompt under changes, shape (n,)."""
    found = intervene(model, task, changes, dictionaries=dictionaries, progress=False).metric
    assert found is not None
    return found.double().numpy()


def _one_by_one(
    metric: Callable[[Any, bool], np.ndarray], progress: bool
) -> Callable[[list[tuple[Any, bool]]], np.ndarray]:
    """Measure each set (units, whether they are kept) in runs of its own, (sets, n)."""
    return lambda sets: np.stack([metric(*each) for each in Bar(sets, "ablating", shown=progress)])


def _features(
    circuit: Circuit,
    model: Model,
    given: Any,
    task: Task,
    part: Task,
    acts: Activations | None,
    progress: bool,
) -> _Ablation:
    """Ablate features at the circuit's sites to their means."""
    features = circuit.features()
    if not features:
        raise InputError("The circuit is empty: choose a smaller strength.")
    if given is None:
        raise InputError("A circuit of features needs the dictionaries that it was learnt on.")
    dictionaries = as_dictionaries(model, given)
    sites = [Site.parse(name) for name in circuit.settings.get("sites") or features]
    for site in sites:
        expect_known(site, dictionaries, f"No dictionary was given for {site} of the circuit")
    known = {site: dictionaries[site] for site in sites}
    several = not isinstance(circuit.settings.get("positions", ""), str)
    if acts is None and (several or circuit.settings.get("ablation") is not None):
        return _placed(circuit, model, known, part, progress)
    if acts is None:
        positions = str(circuit.settings.get("positions", "all"))
        acts = capture(model, known, task, positions, progress=progress)
    expect(acts, "acts", "Activations")
    for site in sites:
        expect_known(site, acts.sites, f"{site} was not captured")
    rows = replace(acts, features={site: acts.features[site] for site in sites})

    def metric(units: Any, kept: bool) -> np.ndarray:
        changes = mean_ablation(rows, units, complement=kept)
        return metric_under(model, part, dictionaries, changes)

    captured = acts.settings.get("positions", "all")
    return _Ablation(
        ("mean", "all" if captured == "mean" else captured, "kept", "feature", _size(features)),
        features,
        {},
        lambda rng: random_features(rows, features, rng),
        _one_by_one(metric, progress),
    )


def _placed(
    circuit: Circuit, model: Model, dictionaries: Any, task: Task, progress: bool
) -> _Ablation:
    """Ablate features at places: where a circuit says sites, positions and what to set them to."""
    said = circuit.settings
    runs = PlacedFeatures.of(model, dictionaries, task, said["positions"], said.get("ablation"))
    return _ablation_at_places(circuit.placed_features(), runs, progress)


def _ablation_at_places(mine: Units, runs: PlacedFeatures, progress: bool) -> _Ablation:
    active = runs.active()

    def draw(rng: np.random.Generator) -> dict[Place, np.ndarray]:
        return {
            place: rng.choice(active[place], min(len(units), len(active[place])), replace=False)
            for place, units in mine.items()
        }

    def metric(units: Any, kept: bool) -> np.ndarray:
        return runs.metric_with(units, kept=kept)

    size = runs.sizes()
    trivial = {at: np.argsort(-size[at], kind="stable")[: len(each)] for at, each in mine.items()}
    return _Ablation(
        (runs.ablation, ", ".join(runs.positions), "kept", "feature", _size(mine)),
        mine,
        {},
        draw,
        _one_by_one(metric, progress),
        {
            name: runs.metric_with(units, kept=kept, errors="ablated")
            for name, units, kept in (
                ("faithfulness_errors_ablated", mine, True),
                ("completeness_errors_ablated", mine, False),
                ("dictionaries_keep", {}, False),
            )
        }
        | {
            f"trivial_{name}": metric(trivial, kept)
            for name, kept in (("faithfulness", True), ("completeness", False))
        },
    )


def _size(features: Mapping[Any, np.ndarray]) -> int:
    return sum(map(len, features.values()))


def _heads(circuit: Circuit, model: Model, task: Task, progress: bool) -> _Ablation:
    """Ablate heads, of all of the model, to their outputs on the corrupted prompts."""
    every = set(np.ndindex(model.n_layers, model.n_heads))
    heads = {(site.layer, int(head)) for site, each in circuit.features().items() for head in each}
    if not heads <= every:
        raise InputError(f"{model.name} has no head {sorted(heads - every)[0]}.")
    _need_corrupted(task)
    listed = sorted(every)

    def draw(rng: np.random.Generator) -> set[tuple[int, ...]]:
        found = heads
        while found == heads and len(heads) < len(listed):  # of one head, it comes up often
            found = {listed[i] for i in rng.choice(len(listed), len(heads), replace=False)}
        return found

    about = ("resample", "all", None, "head", len(heads))
    measure = _one_by_one(lambda *each: heads_ablated(model, task, *each), progress)
    return _Ablation(about, heads, set(), draw, measure)


def heads_ablated(
    model: Model, task: Task, heads: set[tuple[int, ...]], kept: bool = False
) -> np.ndarray:
    """Measure the metric (n,) where heads, or all but those, are as on the corrupted prompt."""
    changes = resampled_heads(model, heads, complement=kept)
    return metric_under(model, task, None, changes)


def _components(circuit: Circuit, model: Model, task: Task, progress: bool) -> _Ablation:
    """Ablate edges between components: they carry what they carry on the corrupted prompt."""
    graph = graph_of(model)
    own = edge_mask(circuit, graph)
    if not own.any():
        raise InputError("The circuit is empty: it has no edges.")
    _need_corrupted(task)
    possible, size = graph.allowed.nonzero(), int(own.sum())

    def draw(rng: np.random.Generator) -> Tensor:
        mask = torch.zeros_like(own)
        mask[tuple(possible[rng.choice(len(possible), size, replace=False)].T)] = True
        return mask

    def measure(sets: list[tuple[Any, bool]]) -> np.ndarray:
        kept = [units if keep else graph.allowed & ~units for units, keep in sets]
        found = with_edges(model, task, dict(enumerate(kept)), progress=progress)
        return np.stack([found[i] for i in range(len(kept))])

    about = ("resample", "all", None, "edge", size)
    return _Ablation(about, own, torch.zeros_like(own), draw, measure)


def _need_corrupted(task: Task) -> None:
    if not task.corrupted:
        raise InputError(
            f"Task {task.name!r} has no corrupted prompts, whose outputs ablated heads and edges "
            "carry. Pass one that has."
        )


def random_features(
    acts: Activations, like: Mapping[Site, np.ndarray], rng: np.random.Generator
) -> dict[Site, np.ndarray]:
    """Draw as many features at each site as there are in `like`, of those that are active.

    Parameters
    ----------
    acts : Activations
        Which features are active at all.
    like : dict of Site to ndarray of int
        Features of a circuit.
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    dict of Site to ndarray of int

    Raises
    ------
    InputError
        If a site was not captured, or fewer features are active there than are to be drawn.
    """
    drawn = {}
    for site, features in like.items():
        expect_known(site, acts.sites, f"{site} was not captured")
        active = np.unique(acts.features[site].indices)
        if len(active) < len(features):
            raise InputError(
                f"Only {len(active)} features of {site} are active, {len(features)} are to be "
                "drawn. Capture more prompts."
            )
        drawn[site] = np.sort(rng.choice(active, size=len(features), replace=False))
    return drawn

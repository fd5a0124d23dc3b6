"""Where the circuits of the explorer come from: a prompt's graph, or a fit over many prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.circuit_lasso.estimator import CircuitLasso
from circuit_toolkit.circuit_lasso.fit import LassoFit
from circuit_toolkit.dictionaries import Dictionary, load_dictionaries
from circuit_toolkit.dictionaries.loading import DEMO, TRAINED_HERE
from circuit_toolkit.errors import InputError, ToolkitError
from circuit_toolkit.features.descriptions.descriptions import FeatureDescriptions
from circuit_toolkit.features.labels import described_labels, feature_labels, named_features
from circuit_toolkit.models import Model
from circuit_toolkit.patching.placed_features import named_positions
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

Dictionaries = dict[Site, Dictionary]


@dataclass(frozen=True, eq=False)
class Learnt:
    """A fit over the prompts of a task, and what it was fitted on."""

    fit: LassoFit
    acts: Activations
    task: Task


def learn(
    model: Model,
    dictionaries: Dictionaries,
    task: Task,
    estimator: CircuitLasso,
    descriptions: FeatureDescriptions | None,
) -> Learnt:
    """Capture a task and fit the path of strengths."""
    if not dictionaries:
        raise InputError("Choose at least one site.")
    acts = capture(model, dictionaries, task, progress=False)
    labels: Mapping[Site, Sequence[str]]
    labels = named_features(model, dictionaries, acts, estimator.positions)
    if descriptions is not None:
        labels = described_labels(descriptions, labels)
    fit = estimator.fit(acts, task, labels, model=model, dictionaries=dictionaries, progress=False)
    return Learnt(fit, acts, task)


def estimator_for(estimator: CircuitLasso, method: str, task: Task, positions: Any) -> CircuitLasso:
    """Return the estimator at a method, and at positions that the task names."""
    known = isinstance(positions, str) or {*positions} <= {*task.positions, "last"}
    where = positions if known else "last"
    return replace(estimator, design=None if where == "mean" else method, positions=where)


def position_choices(task: Task | None, chosen: Any) -> list[tuple[str, Any]]:
    """Return the choices of positions: one token, the mean, or all that a task names."""
    named = tuple(named_positions(task)) if task is not None and task.positions else ("last",)
    every = named if len(named) > 1 else "last"
    return [
        (each if isinstance(each, str) else ", ".join(each), each)
        for each in dict.fromkeys(["last", "mean", every, chosen])
    ]


def few_sites(sites: Sequence[Site]) -> tuple[Site, ...]:
    """Choose two sites: what passes through each is coded anew there, so each adds features."""
    n = len(sites)
    return tuple(sites if n <= 3 else [sites[round(share * n)] for share in (0.45, 0.7)])


def for_graphs(model: Model, dictionaries: Dictionaries) -> Dictionaries:
    """Return what attribution graphs are drawn with: transcoders, the model's own if none is given.

    Without transcoders most of what MLPs do is an error of the graph.
    """
    given = {site: each for site, each in dictionaries.items() if each.kind == "transcoder"}
    if given:
        return given
    if model.name in (DEMO, *TRAINED_HERE):
        try:
            return load_dictionaries(model, kind="transcoder") or dictionaries
        except ToolkitError:
            pass  # none were trained
    return dictionaries


def labels_for(
    acts: Activations, descriptions: FeatureDescriptions | None
) -> Mapping[Site, Sequence[str]]:
    """Name features by the texts on which they are active, or by what their weights say."""
    names = feature_labels(acts)
    return names if descriptions is None else described_labels(descriptions, names)


def pasted_pairs(model: Model, text: str) -> Task:
    """Read prompt pairs, one a line: clean, corrupted, answer, wrong answer, by tabs or bars."""
    lines = [line for line in text.splitlines() if line.strip()]
    rows = [tuple(cell.strip() for cell in line.replace("\t", "|").split("|")) for line in lines]
    for number, row in enumerate(rows, 1):
        if len(row) != 4 or not all(row):
            raise InputError(
                f"Line {number} has {len(row)} parts, it takes four with bars between them: "
                "prompt | corrupted prompt | answer | wrong answer."
            )
    make: Any = Task.from_pairs
    return make(model, [(a, b, c, d) for a, b, c, d in rows], name="pasted")

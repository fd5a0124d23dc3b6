"""Edges of a circuit of heads: paths from one head to a later one, or to the answer.

A path runs through the MLPs between its ends and through no other head (path patching, Wang et al.,
2022, arXiv 2211.00593). Its weight is the share of the metric's change between clean and corrupted
prompts that is lost where the path carries what it has on the corrupted prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from circuit_toolkit.arguments import expect
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET, new_edges
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.evaluation import with_metric
from circuit_toolkit.models import Model
from circuit_toolkit.models.graph import OUTPUT
from circuit_toolkit.patching.paths import path_effects
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

LEAST_SHARE = 0.01  # of the metric's change, that a path carries to be drawn
PATHS = "path patching"


def draw_paths(
    circuit: Circuit, model: Model, task: Task, *, n_prompts: int = 64, progress: bool = True
) -> Circuit:
    """Replace the edges of a circuit of heads by the paths that carry at least 1 % of the change.

    Parameters
    ----------
    circuit : Circuit
        Of heads.
    model : Model
        The model.
    task : Task
        Prompts with corrupted prompts, of which the first `n_prompts` are used.
    n_prompts : int
        How many.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Circuit
        With a path from each head to later ones and to the target, untested; its weight is the
        share of the metric's change, clean minus corrupted, that it carries.

    Raises
    ------
    InputError
        If the circuit is not of heads, or the heads of the model have no inputs of their own.
    """
    expect(circuit, "circuit", "Circuit")
    pairs = possible_paths(circuit)
    shares = path_shares(circuit, model, task, pairs, n_prompts, progress)
    return with_paths(circuit, pairs, shares.mean(1))


def possible_paths(circuit: Circuit) -> list[tuple[int, int]]:
    """Return rows of heads and of what they may reach: later heads and the target."""
    kinds = circuit.nodes["kind"].tolist()
    if len(kinds) < 2 or set(kinds[:-1]) != {"head"} or kinds[-1] != TARGET:
        raise InputError("This needs a circuit of heads with one target.")
    layers = [Site.parse(site).layer for site in circuit.nodes["site"][:-1].tolist()]
    return [
        (a, b)
        for a, layer in enumerate(layers)
        for b, later in enumerate([*layers, np.inf])
        if layer < later
    ]


def with_paths(circuit: Circuit, pairs: Sequence[tuple[int, int]], weights: np.ndarray) -> Circuit:
    """Replace the edges of a circuit by those paths that carry at least 1 % of the change."""
    drawn = [i for i in np.argsort(-abs(weights), kind="stable") if abs(weights[i]) >= LEAST_SHARE]
    source, target = np.array([pairs[i] for i in drawn], int).reshape(-1, 2).T
    edges = new_edges(
        len(drawn),
        source=source,
        target=target,
        weight=weights[drawn],
        score=abs(weights[drawn]),
    )
    evidence = {key: each for key, each in circuit.evidence.items() if key != "edges"}
    return replace(circuit, edges=edges, evidence=evidence)


def path_shares(
    circuit: Circuit,
    model: Model,
    task: Task,
    pairs: Sequence[tuple[int, int]],
    n_prompts: int,
    progress: bool,
) -> np.ndarray:
    """Share of the metric's change that each path carries on each prompt, (paths, n)."""
    names = [*circuit.nodes["label"][:-1].tolist(), OUTPUT]
    paths = [(names[a], names[b]) for a, b in pairs]
    effects, change = path_effects(
        model, with_metric(task), paths, n_prompts=n_prompts, progress=progress
    )
    lost = -float(change.double().mean())
    if lost <= 0:
        raise InputError(
            f"{model.name} does {task.name!r} no better on prompts than on their corrupted prompts."
        )
    return -effects.double().numpy().T / lost

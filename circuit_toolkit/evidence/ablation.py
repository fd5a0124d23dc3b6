"""Does a circuit hold? Its features are ablated in the running model, and so is all else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions import Change, intervene, mean_ablation
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task


def ablation_evidence(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: Task,
    acts: Activations,
    circuit: Circuit,
    *,
    draws: int = 20,
    n_prompts: int = 128,
    seed: int = 0,
) -> Circuit:
    """Test a circuit by intervention, and return it with the outcome.

    Three numbers, each a share of the task's mean metric on clean prompts: what is lost when the
    circuit's features are mean-ablated; what is lost when random sets of equally many active
    features are, site by site as many as in the circuit; and what is kept when all other features
    at the same sites are mean-ablated. Errors of the dictionaries are kept throughout.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Those that the circuit was learnt on.
    task : Task
        What the metric is measured on; better one that the circuit was not learnt on.
    acts : Activations
        Where the means come from; an ablation acts at their positions.
    circuit : Circuit
        What is tested.
    draws : int
        Number of random sets.
    n_prompts : int
        Prompts of the task to use, the first ones.
    seed : int
        Seed of the random sets.

    Returns
    -------
    Circuit
        With `evidence["ablation"]`: `full`, `ablated` (metrics), `loss`, `random_loss` (a list),
        `random_loss_mean`, `kept` (shares), and how they were measured.

    Raises
    ------
    InputError
        If the circuit is empty, the task has no metric, the model does not do the task (its
        metric is not above 0), or the random sets are to be none.
    """
    features = circuit.features()
    if not features:
        raise InputError("The circuit has no features: choose a smaller strength.")
    if draws < 1 or n_prompts < 1:
        raise InputError(f"draws and n_prompts must be at least 1, got {draws} and {n_prompts}.")
    if task.metric is None:
        raise InputError(f"Task {task.name!r} has labels alone: no metric can be taken away.")
    task = task.subset(n_prompts)

    def metric(changes: Sequence[Change]) -> float:
        outcome = intervene(model, task, changes, dictionaries=dictionaries, progress=False)
        assert outcome.metric is not None
        return float(outcome.metric.mean())

    full = metric([])
    if full <= 0:
        raise InputError(
            f"{model.name} does not do {task.name!r}: its mean {task.metric} is {full:.3f}. "
            "There is nothing to take away."
        )
    ablated = metric(mean_ablation(acts, features))
    rng = np.random.default_rng(seed)
    random = [
        1 - metric(mean_ablation(acts, random_features(acts, features, rng))) / full
        for _ in range(draws)
    ]
    kept = metric(mean_ablation(acts, features, complement=True)) / full
    outcome: dict[str, Any] = {
        "metric": task.metric,
        "full": full,
        "ablated": ablated,
        "loss": 1 - ablated / full,
        "random_loss": random,
        "random_loss_mean": float(np.mean(random)),
        "kept": kept,
        "ablation": "mean",
        "positions": acts.settings.get("positions", "all"),
        "n": len(task),
        "n_features": int(sum(map(len, features.values()))),
    }
    return circuit.with_evidence({**circuit.evidence, "ablation": outcome})


def random_features(
    acts: Activations, like: Mapping[Site, np.ndarray], rng: np.random.Generator
) -> dict[Site, np.ndarray]:
    """Draw as many features at each site as there are in `like`, of those that fire at all.

    Parameters
    ----------
    acts : Activations
        Which features fire.
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
        If a site was not captured, or fewer features fire there than are to be drawn.
    """
    drawn = {}
    for site, features in like.items():
        if site not in acts.features:
            raise InputError(f"{site} was not captured, only {', '.join(map(str, acts.sites))}.")
        active = np.unique(acts.features[site].indices)
        if len(active) < len(features):
            raise InputError(
                f"Only {len(active)} features of {site} fire, {len(features)} are to be drawn. "
                "Capture more prompts."
            )
        drawn[site] = np.sort(rng.choice(active, size=len(features), replace=False))
    return drawn

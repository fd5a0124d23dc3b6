"""Does a set of heads carry a task? All others, or the set, carry their corrupted outputs.

As O'Neill and Bui, 2024, arXiv 2405.12522, test what they found, with shares of the gap between
prompts and corrupted prompts, and with random sets of heads as the yardstick.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions import intervene, resample
from circuit_toolkit.models.model import Model
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

Head = tuple[int, int]  # layer and head


def head_evidence(
    model: Model,
    task: Task,
    circuit: Circuit,
    draws: int = 20,
    *,
    n_prompts: int = 64,
    seed: int = 0,
) -> Circuit:
    """Test a circuit over heads by intervention, and return it with the outcome.

    Embedding and MLPs are computed from what is there. All shares are of the gap: the metric on
    the prompts minus that on their corrupted prompts.

    Parameters
    ----------
    model : Model
        The model.
    task : Task
        With corrupted prompts and a metric; better one that the circuit was not found on.
    circuit : Circuit
        Whose nodes are heads, such as `HeadCodesFit.predict` gives.
    draws : int
        Number of random sets of as many heads.
    n_prompts : int
        Prompts of the task to use, the first ones.
    seed : int
        Of the random sets.

    Returns
    -------
    Circuit
        With `evidence["ablation"]`: `full`, `corrupted`, `ablated` (metrics); `loss`, what
        is lost when the circuit's heads carry their corrupted prompts' outputs, and `kept`, what is
        left when all others do; `random_loss`, `random_kept` (lists, with `_mean`), the same of
        random sets; `n_heads`.

    Raises
    ------
    InputError
        If the circuit holds no head or something else, the task has no metric or no corrupted
        prompts of equal length, or the model does it no better than its corrupted prompts.
    """
    features = circuit.features()
    kinds = {site.kind for site in features}
    if kinds != {"head_out"}:
        found = ", ".join(sorted(kinds)) or "nothing"
        raise InputError(f"The circuit must be one of heads, at head_out; it holds {found}.")
    if draws < 1 or n_prompts < 1:
        raise InputError(f"draws and n_prompts must be at least 1, got {draws} and {n_prompts}.")
    if task.metric is None or not task.corrupted:
        raise InputError(
            f"Task {task.name!r} has no metric or no corrupted prompts: nothing can be replaced."
        )
    task = task.subset(n_prompts)
    every = set(np.ndindex(model.n_layers, model.n_heads))
    heads = {(site.layer, int(head)) for site, chosen in features.items() for head in chosen}
    if not heads <= every:
        raise InputError(f"{model.name} has no head {sorted(heads - every)[0]}.")

    def metric(replaced: Collection[Head]) -> float:
        by_layer: dict[int, list[int]] = {}
        for layer, head in sorted(replaced):
            by_layer.setdefault(layer, []).append(head)
        changes = [
            resample(Site("head_out", layer), heads=chosen) for layer, chosen in by_layer.items()
        ]
        values = intervene(model, task, changes, progress=False).metric
        assert values is not None
        return float(values.mean())

    full = metric(())
    logits = intervene(model, list(task.corrupted), [], progress=False).logits
    twins = float(task.score(logits, range(len(task), 2 * len(task))).mean())
    if full <= twins:
        raise InputError(
            f"{model.name} does {task.name!r} no better than its corrupted prompts ({full:.3f} and "
            f"{twins:.3f}): nothing can be lost."
        )

    def lost(replaced: Collection[Head]) -> float:
        return (full - metric(replaced)) / (full - twins)

    rng, listed = np.random.default_rng(seed), sorted(every)
    random_loss, random_kept = [], []
    for _ in range(draws):
        drawn = {listed[i] for i in rng.choice(len(listed), len(heads), replace=False)}
        random_loss.append(lost(drawn))
        random_kept.append(1 - lost(every - drawn))
    loss = lost(heads)
    outcome = {
        "metric": task.metric,
        "share_of": "the gap between prompts and corrupted prompts",
        "full": full,
        "corrupted": twins,
        "ablated": full - loss * (full - twins),
        "loss": loss,
        "random_loss": random_loss,
        "random_loss_mean": float(np.mean(random_loss)),
        "kept": 1 - lost(every - heads),
        "random_kept": random_kept,
        "random_kept_mean": float(np.mean(random_kept)),
        "ablation": "resample",
        "positions": "all",
        "n": len(task),
        "n_heads": len(heads),
    }
    return circuit.with_evidence({**circuit.evidence, "ablation": outcome})

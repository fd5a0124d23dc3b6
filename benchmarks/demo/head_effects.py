"""What replacing every head by itself, on every prompt, does to the metric of a task.

Its output is replaced by that on the corrupted prompt, with all that follows from it (activation
patching; Zhang and Nanda, 2023, arXiv 2309.16042); the same on the way straight to the logits alone
(path patching; Wang et al., 2022, arXiv 2211.00593); and by its mean (mean ablation).
"""

from __future__ import annotations

import time

import numpy as np

from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.benchmark.heads.effects import HeadEffects
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.intervals import bootstrap
from circuit_toolkit.interventions import intervene, intervene_each, put
from circuit_toolkit.models.graph import OUTPUT, graph_of
from circuit_toolkit.models.model import Model
from circuit_toolkit.patching.effects import edges_out_of, patching_effects
from circuit_toolkit.tasks import Task


def head_effects(
    model: Model,
    task: Task,
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> HeadEffects:
    """Replace every head by itself, and say what that does to the metric."""
    if task.metric is None:
        raise InputError(f"Task {task.name!r} has labels alone: no metric says what a head does.")
    task = task if n_prompts is None else task.subset(n_prompts)
    if not task.corrupted:
        raise InputError(f"Task {task.name!r} has no corrupted prompts to take outputs from.")
    rows = range(2 * len(task))
    clean, corrupted = (
        float(task.score(intervene(model, list(texts), [], progress=False).logits, which).mean())
        for texts, which in ((task.clean, rows[: len(task)]), (task.corrupted, rows[len(task) :]))
    )
    gap = clean - corrupted
    if gap <= 0:
        raise InputError(
            f"{model.name} does {task.name!r} no better than its corrupted prompts "
            f"(by {gap:.3f}), so no head can be needed for it."
        )
    graph, shape = graph_of(model), (model.n_layers, model.n_heads)
    heads = [f"a{layer}.h{head}" for layer, head in np.ndindex(shape)]
    used: dict[str, float] = {}
    effects: dict[str, np.ndarray] = {}
    sets = {
        "resample": [edges_out_of(graph, head) for head in heads],
        "direct": [[(head, OUTPUT)] for head in heads],
    }
    for kind, edges in sets.items():
        began = time.process_time()
        found = patching_effects(model, task, edges, batch_size=batch_size, progress=progress)
        effects[kind], used[kind] = found.numpy(), time.process_time() - began
    began = time.process_time()
    effects["mean"] = _mean_ablation(model, task, progress)
    used["mean"] = time.process_time() - began
    tables = {kind: [bootstrap(column) for column in values.T] for kind, values in effects.items()}
    ends = (
        {kind: np.reshape([each[i] for each in found], shape) for kind, found in tables.items()}
        for i in range(3)
    )
    settings = {
        "model": model.name,
        "task": task.name,
        "metric": task.metric,
        "n_prompts": len(task),
        "clean": clean,
        "cpu_seconds": {kind: round(value, 2) for kind, value in used.items()},
    }
    return HeadEffects(*ends, gap=gap, settings=settings)


def _mean_ablation(model: Model, task: Task, progress: bool) -> np.ndarray:
    """Change of the metric by mean ablation of every head, (n, heads)."""
    prompts = list(task.clean)
    acts = capture(model, "head_out", prompts, "mean", progress=progress)
    shape = (model.n_heads, model.width)
    changes = [
        [put(site, mean.reshape(shape)[[head]], heads=[head])]
        for site, mean in acts.means().items()
        for head in range(model.n_heads)
    ]
    outcomes = intervene_each(model, prompts, [[], *changes], progress=progress)
    metrics = [task.score(each.logits, range(len(task))).numpy() for each in outcomes]
    return np.stack([metric - metrics[0] for metric in metrics[1:]], 1)

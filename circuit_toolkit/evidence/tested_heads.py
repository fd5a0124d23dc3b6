"""From a task to a tested circuit of heads: rank them, keep as few as hold, test every path.

Heads are ranked without training anything (`attribution.heads`); nested circuits, the best heads
first, are kept alone and ablated until one is faithful and complete. Its edges are paths
(`head_paths`), found on the prompts of the task and confirmed on others.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from circuit_toolkit.arguments import expect, number, one_of, whole
from circuit_toolkit.attribution.heads import (
    ATTRIBUTION,
    HEAD_SCORES,
    HeadScore,
    best_score,
    head_scores,
)
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import head_circuit
from circuit_toolkit.circuit.evidence import NECESSARY, SUFFICIENT
from circuit_toolkit.evidence.confirmed_edges import confirm_edges
from circuit_toolkit.evidence.evaluation import (
    evaluate,
    expect_better,
    heads_ablated,
    with_metric,
)
from circuit_toolkit.evidence.head_paths import draw_paths
from circuit_toolkit.models import Model
from circuit_toolkit.progress import Bar
from circuit_toolkit.tasks import Task
from circuit_toolkit.tasks.task import trained_on


def find_heads(
    model: Model,
    task: Task,
    held_out: Task | None = None,
    *,
    by: HeadScore | None = None,
    faithfulness: float = SUFFICIENT,
    completeness: float = NECESSARY,
    max_heads: int = 24,
    n_prompts: int = 64,
    random_sets: int = 10,
    seed: int = 0,
    progress: bool = True,
) -> Circuit:
    """Find the smallest circuit of attention heads that holds, and test it with its paths.

    Parameters
    ----------
    model : Model
        The model.
    task : Task
        Prompts with corrupted prompts, to find heads on.
    held_out : Task, optional
        Other prompts, to test the circuit and its paths on. Without them it stays untested.
    by : {"attribution patching", "change towards the answer"}, optional
        What ranks the heads, see `head_scores`; by default the first, or the second where heads
        have no inputs of their own, since one norm takes the keys of all (OLMo-2).
    faithfulness, completeness : float
        Heads are added, the best first, until F of them alone is at least the first, and F of all
        others at most the second, on `task`: heads outside carry what they have on the corrupted
        prompt.
    max_heads : int
        Where no circuit up to this size holds, the one of this size is returned.
    n_prompts : int
        Prompts of each task to use, the first ones.
    random_sets : int
        Random circuits of the same size to compare with.
    seed : int
        Of the random circuits.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    Circuit
        Of heads; its edges are paths that carry at least 1 % of the metric's change, see
        `draw_paths`. `evidence["size"]` has the curve over `sizes`; with held-out prompts
        `evidence["ablation"]` (`evaluate`) and `evidence["edges"]` (`confirm_edges`) say how it
        fared, and `circuit.verdict` in words.

    Raises
    ------
    InputError
        If the task has no metric or no corrupted prompts, or the model does it no better with all
        heads as they are than with the corrupted ones.
    """
    expect(model, "model", "Model")
    began = time.perf_counter()
    part = with_metric(task).subset(whole(n_prompts, "n_prompts", 1))
    goal = number(faithfulness, "faithfulness", 0, 1), number(completeness, "completeness", 0, 1)
    one_of(by, "by", None, *HEAD_SCORES)
    by = by or best_score(model)
    scores = head_scores(model, part, by, progress=progress)
    curve = head_curve(model, part, scores, goal, whole(max_heads, "max_heads", 1), progress)
    settings = {
        "method": f"heads by {by}",
        "model": model.name,
        "task": task.name,
        "target": task.metric,
        "n_prompts": len(part),
        "trained_on": trained_on(part),
        "scope": "dataset",
        "chosen_by": f"faithfulness {goal[0]:g}, completeness {goal[1]:g}",
    }
    circuit = head_circuit(scores, settings, n_heads=curve["size"])
    circuit = circuit.with_evidence({"size": curve})
    has_paths = best_score(model) == ATTRIBUTION  # its heads have inputs of their own
    if has_paths:
        circuit = draw_paths(circuit, model, part, n_prompts=n_prompts, progress=progress)
    if held_out is not None:
        if has_paths:
            circuit = confirm_edges(
                circuit, model, None, held_out, n_prompts=n_prompts, progress=progress
            )
        circuit = evaluate(
            *(circuit, model, None, held_out),
            draws=random_sets,
            n_prompts=n_prompts,
            seed=seed,
            progress=progress,
        )
    seconds = round(time.perf_counter() - began, 1)
    return replace(circuit, settings={**circuit.settings, "seconds": seconds})


def head_curve(
    model: Model,
    task: Task,
    scores: np.ndarray,
    goal: tuple[float, float],
    most: int,
    progress: bool = False,
) -> dict[str, Any]:
    """Add heads, the best first, until they are faithful and complete; say at which size."""
    order = [divmod(i, scores.shape[1]) for i in np.argsort(-scores, axis=None, kind="stable")]
    order = [(int(layer), int(head)) for layer, head in order][: np.count_nonzero(scores)]
    full, empty = (
        float(heads_ablated(model, task, set(), kept=kept).mean()) for kept in (False, True)
    )
    expect_better(model, task, "head", full, empty)
    found: dict[int, tuple[float, float]] = {}

    def holds(size: int) -> bool:
        kept, rest = (
            heads_ablated(model, task, set(order[:size]), kept=kept).mean()
            for kept in (True, False)
        )
        F, C = ((float(m) - empty) / (full - empty) for m in (kept, rest))
        found[size] = round(F, 4), round(C, 4)
        return goal[0] <= F and goal[1] >= C

    largest, before = min(most, len(order)), 0
    size = largest
    for coarse in Bar([*_coarse(largest)], "adding heads", shown=progress):
        if holds(coarse):
            between = (size for size in range(before + 1, coarse) if holds(size))
            size = next(between, coarse)
            break
        before = coarse
    sizes = sorted(found)
    return {
        "unit": "head",
        "size": size,
        "reached": goal[0] <= found[size][0] and goal[1] >= found[size][1],
        "sizes": sizes,
        "faithfulness": [found[size][0] for size in sizes],
        "completeness": [found[size][1] for size in sizes],
        "n": len(task),
    }


def _coarse(largest: int) -> list[int]:
    """Sizes to try first: 1, 2, 3, 4, 6, 8, 12, 16, ... and the largest."""
    sizes, size = [1], 2
    while size <= largest:
        sizes += [size, size * 3 // 2]
        size *= 2
    return sorted({size for size in sizes if size < largest} | {largest})

"""Which heads a task needs, read off what they write and off gradients; nothing is trained.

The change of a head's output from the corrupted prompt to the clean one, along the unembedding of
the answer minus the wrong words, takes a hundredth of a second and sees only what a head tells the
logits itself, at the last token. Attribution patching takes one backward pass and sees also what
reaches the answer through other components, at any token.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.arguments import expect, one_of
from circuit_toolkit.attribution.edges import attribution_patching
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.models.model import Model
from circuit_toolkit.models.weights import norm_weight
from circuit_toolkit.tasks import Task

HeadScore = Literal["change towards the answer", "attribution patching"]
TOWARDS, ATTRIBUTION = HEAD_SCORES = ("change towards the answer", "attribution patching")


def head_scores(
    model: Model,
    task: Task,
    by: HeadScore = "change towards the answer",
    *,
    acts: Activations | None = None,
    progress: bool = True,
) -> np.ndarray:
    """Score every head of a model on a task.

    Parameters
    ----------
    model : Model
        The model.
    task : Task
        Prompts with corrupted prompts, answers and a metric.
    by : {"change towards the answer", "attribution patching"}
        The change of what a head writes at the last token, clean minus corrupted, along the
        unembedding of the answers minus that of the wrong words, as a share of the size of its
        output; or the change of what it writes at all tokens times the gradient of the metric
        (Nanda, 2023), the mean of absolute values over prompts.
    acts : Activations, optional
        `capture(model, "head_out", task, "last")`, where it is there already; of several
        positions the first is taken.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    ndarray, shape (L, H)
        0 or more; of attribution patching in units of the metric.

    Raises
    ------
    InputError
        If the task has no metric or no corrupted prompts, the heads have no inputs of their own
        (attribution patching), or the unembedding does not read the stream (the change).

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> model = ct.load_model("demo")
    >>> head_scores(model, ct.tasks.greater_than(model, n=16), progress=False).shape
    (6, 8)
    """
    expect(model, "model", "Model")
    expect(task, "task", "Task")
    one_of(by, "by", *HEAD_SCORES)
    if task.metric is None or not task.corrupted:
        raise InputError(f"Task {task.name!r} needs answers and corrupted prompts to score heads.")
    if by == ATTRIBUTION:
        circuit = attribution_patching(model, task, average="mean of absolutes", progress=progress)
        return scores_of_heads(circuit, (model.n_layers, model.n_heads))
    if acts is None:
        acts = capture(model, "head_out", task, "last", progress=progress)
    found = towards_answer(model, task, head_outputs(acts, model.n_heads))
    if found is None:
        raise InputError(
            f"The unembedding of {model.name} does not read what heads write. Use "
            f"by={ATTRIBUTION!r}."
        )
    return found


def best_score(model: Model) -> HeadScore:
    """Return attribution patching, or the change where heads of a family have no own inputs."""
    try:
        graph_of(model)
    except InputError:
        return TOWARDS
    return ATTRIBUTION


def head_outputs(acts: Activations, n_heads: int) -> np.ndarray:
    """Return what heads write at each position, as a LayerNorm sees it, (n, P, L, H, D)."""
    where = acts.settings["positions"]
    several = 1 if isinstance(where, str) else len(where)
    layers = [x.toarray() for x in acts.features.values()]
    outputs = np.stack([x.reshape(len(x), several, n_heads, -1) for x in layers], 2)
    return outputs - outputs.mean(4, keepdims=True)


def towards_answer(model: Model, task: Task, outputs: np.ndarray) -> np.ndarray | None:
    """Return the share of an output, at the first position, that changes towards the answer."""
    outputs = outputs[:, 0]
    head = model.hf.get_output_embeddings()
    rows = getattr(head, "weight", None)
    if task.metric is None or rows is None or rows.shape[1] != outputs.shape[3]:
        return None
    norm = model.hf.get_submodule(model.architecture.final_norm)
    with torch.no_grad():
        scale = norm_weight(norm, model.architecture)[0] if hasattr(norm, "weight") else 1.0
        read = (rows * scale).float().cpu().numpy()  # (V, D)
    b = len(task)
    direction = np.stack(
        [
            read[list(right)].mean(0) - read[list(wrong)].mean(0)
            for right, wrong in zip(task.answers, task.wrong, strict=True)
        ]
    )
    along = np.einsum("blhd,bd->lh", outputs[:b] - outputs[b:], direction) / b
    size = np.linalg.norm(outputs, axis=3).mean(0)
    return np.divide(np.abs(along), size, out=np.zeros_like(along), where=size > 0)


def scores_of_heads(circuit: Circuit, shape: tuple[int, int]) -> np.ndarray:
    """Scores of the heads of a circuit over components, (L, H)."""
    scores = dict(zip(circuit.nodes["label"].tolist(), circuit.nodes["score"], strict=True))
    each = [scores[f"a{layer}.h{head}"] for layer, head in np.ndindex(shape)]
    return np.reshape(each, shape).astype(float)

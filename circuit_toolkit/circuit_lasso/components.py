"""CircuitLasso over heads and MLPs, from activations as they come: no swap, no backward pass.

Yin et al., 2026, arXiv 2606.16939 (the component setting): the output of every component is
regressed on those of all components before it. What correlates with a parent and what is one look
alike here; `randomised_lasso` tells them apart.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.arguments import number, whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit_lasso.randomised_edges import ranked_circuit
from circuit_toolkit.models.components import run_components
from circuit_toolkit.models.graph import Graph, graph_of
from circuit_toolkit.models.model import Model
from circuit_toolkit.regression.paths.lasso import lasso_at
from circuit_toolkit.tasks.prompt_pairs import PromptPairs, expect_pairs, rows_of, tokenized_pairs

_DIRECTIONS = 8  # principal ones of an output, as published


def component_lasso(
    model: Model,
    task: PromptPairs,
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    strength: float = 0.05,
    confirm: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> Circuit:
    """Find a circuit by regressing every component on all before it, on clean prompts.

    As published, each output is read along its first 8 principal directions, in standard
    deviations, and the score of an edge is the Frobenius norm of its block of coefficients. Every
    token makes a row; heads see the mean over the prompt beside it, since they read other tokens.

    Parameters
    ----------
    model : Model
        The model.
    task : PromptPairs
        Its clean prompts are read, and nothing else; a `Task` is one.
    n_prompts : int, optional
        How many to use, the first ones; by default all.
    batch_size : int, optional
        Prompts that run at once; by default what fits into half a gigabyte.
    strength : float
        Penalty, as a share of the smallest at which a target has no sources, in (0, 1].
    confirm : bool
        Whether to patch edges one by one, as `randomised_lasso` does; the published method does
        not.
    seed : int
        Decides which prompts are swapped where edges are patched.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Circuit
        Over components; scores are dependencies, not effects. Weights are scores, or those of
        `randomised_lasso` with `confirm`.

    Raises
    ------
    InputError
        If an argument is of the wrong kind, or out of range.

    Warns
    -----
    ConvergenceWarning
        If a regression is not solved.
    """
    started, n_prompts = time.perf_counter(), expect_pairs(model, task, n_prompts)
    strength = number(strength, "strength", 0, 1, open_low=True)
    graph, sizes = graph_of(model), {"n_prompts": n_prompts, "batch_size": batch_size}
    X, part = _outputs(model, task, graph, n_prompts, batch_size, progress)
    scores = torch.from_numpy(_strengths(graph, X, part, strength))
    settings: dict[str, Any] = {"method": "component lasso", "strength": strength}
    return ranked_circuit(
        model,
        task,
        scores,
        scores,
        settings | {"seed": whole(seed, "seed", 0)},
        started,
        sizes | {"progress": progress},
        confirm_above=0.0 if confirm else None,
    )


def _outputs(
    model: Model,
    task: PromptPairs,
    graph: Graph,
    n_prompts: int | None,
    batch_size: int | None,
    progress: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Read outputs along their principal directions: scaled values (n, p), and whose each is.

    A column is of a writer (its number of W), of a writer's mean over the prompt (W more), or of
    the target (2 W).
    """
    pairs = tokenized_pairs(model, task, n_prompts, corrupted=False)
    own: list[list[Tensor]] = [[] for _ in graph.writers]
    mean: list[list[Tensor]] = [[] for _ in graph.writers]
    logits = []
    with torch.no_grad():
        size = pairs.fitting(model) if batch_size is None else batch_size
        for part in pairs.batches(size, progress, "reading"):
            batch = rows_of(pairs.clean, part)
            got = run_components(model, batch)
            mask = batch.mask.bool().cpu()
            logits.append(got.logits.cpu()[mask])
            outputs = got.outputs.cpu()
            seen = mask[:, None, :, None]
            means = (outputs * seen).sum(2, keepdim=True) / seen.sum(2, keepdim=True)
            means = means.expand_as(outputs)
            for writer in range(len(own)):
                own[writer].append(outputs[:, writer][mask])
                mean[writer].append(means[:, writer][mask])
    blocks, sides = [], []
    for values, others in zip(own, mean, strict=True):
        basis = _directions(torch.cat(values))
        blocks.append(torch.cat(values).double() @ basis)
        sides.append(torch.cat(others).double() @ basis)
    target = torch.cat(logits)
    parts = [*blocks, *sides, target.double() @ _directions(target)]
    every = torch.cat(parts, 1).numpy()
    centred = every - every.mean(0)
    # What is left of a constant is rounding.
    centred[:, np.abs(centred).max(0) <= 1e-13 * np.abs(every).max(0)] = 0
    scale = np.sqrt(np.square(centred).mean(0))
    centred /= np.where(scale > 0, scale, 1.0)
    return centred, np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts])


def _directions(x: Tensor) -> Tensor:
    """Principal directions (D, k) of (n, D) with above a millionth of its variance; any length."""
    x = x.double() - x.double().mean(0)
    wide = len(x) < x.shape[1]  # a vocabulary is too wide for the matrix of its own products
    values, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)  # ascending
    k = max(1, min(_DIRECTIONS, int((values > 1e-6 * values[-1]).sum())))
    return x.T @ vectors[:, -k:] if wide else vectors[:, -k:]


def _strengths(graph: Graph, X: np.ndarray, part: np.ndarray, strength: float) -> np.ndarray:
    """Strength of every edge, from regressions of what each reader writes."""
    W, (n, p) = len(graph.writers), X.shape
    if n > p:  # fewer rows of the same products
        X = np.asarray(np.linalg.qr(X, mode="r"))
    found = np.zeros(tuple(graph.allowed.shape))
    for slot, readers in enumerate(graph.slots):
        upstream, heads = graph.n_upstream(slot), slot % 2 == 0 and slot < 2 * graph.n_layers
        sees = (part < upstream) | (heads & (part >= W) & (part < W + upstream))
        sources = np.flatnonzero(sees)
        last = readers.stop == len(graph.readers)
        first = 2 * W if last else readers.start + 1  # reader j is writer j + 1
        count = readers.stop - readers.start
        targets = np.flatnonzero((part >= first) & (part < first + count))
        x, y = X[:, sources], X[:, targets]
        B = lasso_at(x, y, strength * np.abs(x.T @ y / len(X)).max(0))
        into = (part[targets][:, None] - first == np.arange(count)).astype(float)
        out_of = (part[sources] % W == np.arange(upstream)[:, None]).astype(float)
        found[:upstream, readers] = np.sqrt(out_of @ np.square(B) @ into)
    return found

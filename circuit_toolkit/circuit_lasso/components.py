"""CircuitLasso over heads and MLPs, from activations as they come: no swap, no backward pass.

Yin et al., 2026, arXiv 2606.16939 (the component setting): the output of every component is
regressed on those of all components before it. What correlates with a parent and what is one look
alike here; `randomised_lasso` tells them apart.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.arguments import number, whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import component_circuit
from circuit_toolkit.circuit_lasso.randomised_edges import component_relevance, threshold
from circuit_toolkit.models.components import run_components
from circuit_toolkit.models.graph import Graph, graph_of
from circuit_toolkit.models.model import Model
from circuit_toolkit.regression.paths.lasso import lasso_at
from circuit_toolkit.tasks.prompt_pairs import PromptPairs, expect_pairs, rows_of, tokenized_pairs
from circuit_toolkit.tasks.task import trained_on

_SHUFFLES = 5  # of the rows of targets, to find the operating point
_FALSE_EDGES = 1.0  # that it lets in where rows are shuffled


def component_lasso(
    model: Model,
    task: PromptPairs,
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    relevance: bool = False,
    strength: float = 0.05,
    seed: int = 0,
    progress: bool = True,
) -> Circuit:
    """Find a circuit by regressing every component on all before it, on clean prompts.

    As published, each output is read along its first 8 principal directions, in standard
    deviations, and the score of an edge is the Frobenius norm of its block of coefficients. With
    `relevance` (an addition, better on known circuits) there are 16 directions in the units of the
    stream, the strength of an edge is the root of the share of the reader's variance that the
    writer explains, and its score the relevance that it propagates from the target, shared out by
    strength squared. Every token makes a row; heads see the mean over the prompt beside it, since
    they read other tokens.

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
    relevance : bool
        Whether edges are scored by relevance.
    strength : float
        Penalty, as a share of the smallest at which a target has no sources, in (0, 1].
    seed : int
        Decides the order of shuffled rows, by which the operating point is found.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Circuit
        Over components; scores are dependencies, not effects, weights are strengths.
        `settings["threshold"]` is the operating point: one edge of shuffled rows reaches it.

    Raises
    ------
    InputError
        If an argument is of the wrong kind, or out of range.

    Warns
    -----
    ConvergenceWarning
        If a regression is not solved.
    """
    n_prompts = expect_pairs(model, task, n_prompts)
    strength = number(strength, "strength", 0, 1, open_low=True)
    graph, start = graph_of(model), time.perf_counter()
    X, part = _outputs(model, task, graph, n_prompts, batch_size, not relevance, progress)
    rng = np.random.default_rng(whole(seed, "seed", 0))
    order = [np.arange(len(X)), *(rng.permutation(len(X)) for _ in range(_SHUFFLES))]
    strengths = _strengths(graph, X, part, [X[rows] for rows in order], strength, relevance)
    scores = torch.from_numpy(strengths)
    if relevance:
        scores = component_relevance(graph, scores)[0]
    settings = {
        "method": "CircuitLasso over components" + ", scored by relevance" * relevance,
        "model": model.name,
        "task": task.name,
        "n_prompts": min(n_prompts or len(task.clean), len(task.clean)),
        "trained_on": trained_on(task, n_prompts),
        "relevance": relevance,
        "strength": strength,
        "seed": seed,
        "threshold": threshold(scores[1:, graph.allowed], _FALSE_EDGES),
        "seconds": time.perf_counter() - start,
    }
    return component_circuit(graph, scores[0], settings, weights=strengths[0])


def _outputs(
    model: Model,
    task: PromptPairs,
    graph: Graph,
    n_prompts: int | None,
    batch_size: int | None,
    as_published: bool,
    progress: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Read outputs along their principal directions: centred values (n, p), and whose each is.

    A column is of a writer (its number of W), of a writer's mean over the prompt (W more), or of
    the target (2 W).
    """
    most = 8 if as_published else 16
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
        basis = _directions(torch.cat(values), most)
        blocks.append(torch.cat(values).double() @ basis)
        sides.append(torch.cat(others).double() @ basis)
    target = torch.cat(logits)
    parts = [*blocks, *sides, target.double() @ _directions(target, most)]
    every = torch.cat(parts, 1).numpy()
    centred = every - every.mean(0)
    # What is left of a constant is rounding.
    centred[:, np.abs(centred).max(0) <= 1e-13 * np.abs(every).max(0)] = 0
    if as_published:
        scale = np.sqrt(np.square(centred).mean(0))
        centred /= np.where(scale > 0, scale, 1.0)
    return centred, np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts])


def _directions(x: Tensor, most: int) -> Tensor:
    """Principal directions (D, k) of rows (n, D) with more than a millionth of the variance."""
    x = x.double() - x.double().mean(0)
    values, vectors = torch.linalg.eigh(x.T @ x)  # ascending
    k = max(1, min(most, int((values > 1e-6 * values[-1]).sum())))
    return vectors[:, -k:]


def _strengths(
    graph: Graph,
    X: np.ndarray,
    part: np.ndarray,
    Ys: list[np.ndarray],
    strength: float,
    by_variance: bool,
) -> np.ndarray:
    """Strength of every edge for every Y; each reader takes its part of one Gram matrix."""
    W = len(graph.writers)
    gram, products = X.T @ X / len(X), [X.T @ Y / len(X) for Y in Ys]
    found = np.zeros((len(Ys), *graph.allowed.shape))
    for slot, readers in enumerate(graph.slots):
        upstream, heads = graph.n_upstream(slot), slot % 2 == 0 and slot < 2 * graph.n_layers
        sees = (part < upstream) | (heads & (part >= W) & (part < W + upstream))
        sources = np.flatnonzero(sees)
        last = readers.stop == len(graph.readers)
        first = 2 * W if last else readers.start + 1  # reader j is writer j + 1
        count = readers.stop - readers.start
        targets = np.flatnonzero((part >= first) & (part < first + count))
        of = np.concatenate([part[targets] - first + k * count for k in range(len(Ys))])
        G = gram[np.ix_(sources, sources)]
        C = np.concatenate([each[np.ix_(sources, targets)] for each in products], 1)
        B = lasso_at(G, C, strength * np.abs(C).max(0))
        into = (of[:, None] == np.arange(count * len(Ys))).astype(float)  # columns to readers
        owner, squares = part[sources] % W, []
        for writer in range(upstream):
            mine = np.flatnonzero(owner == writer)
            block = B[mine]
            inner = G[np.ix_(mine, mine)] @ block if by_variance else block
            squares.append((block * inner).sum(0) @ into)
        if by_variance:
            variance = np.tile(gram[targets, targets], len(Ys)) @ into
            squares = squares / np.where(variance > 0, variance, 1.0)
        sizes = np.sqrt(np.maximum(squares, 0))  # (upstream, K * count)
        found[:, :upstream, readers] = sizes.reshape(upstream, len(Ys), count).swapaxes(0, 1)
    return found

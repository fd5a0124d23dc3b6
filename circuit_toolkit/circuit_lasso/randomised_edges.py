"""Randomised CircuitLasso: causal circuits over heads and MLPs from forward passes alone.

Observed activations cannot tell what a component uses from what correlates with that. So outputs
are swapped at random, all at once (`edge_design`), and sparse regression on the bits tells them
apart. Two designs: `direct` finds which components depend on which, asks in some further runs
what each does to the outputs on its own, and propagates relevance from the target; `edge` finds
the mean effect of every edge on the target, as edge patching does one edge at a time.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.arguments import expect, one_of, whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import component_circuit
from circuit_toolkit.circuit_lasso.edge_design import Design, Swap, experiment
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.graph import Graph, graph_of
from circuit_toolkit.models.model import Model
from circuit_toolkit.regression.solvers.nonnegative import nonnegative_lasso, shuffled_effects
from circuit_toolkit.tasks.prompt_pairs import PromptPairs, expect_pairs
from circuit_toolkit.tasks.task import trained_on

SPARE = 0.1  # share of relevance that does not ask what components do alone: it ranks the rest
# How far a component alone has to move the outputs to count half, as a share of what the most
# effective one does. Between .25 and .4 little depends on it.
NECESSITY = 0.3
_FALSE_EDGES = 1.0  # that the operating point lets in where responses are shuffled
_SHUFFLES = 200


def randomised_lasso(
    model: Model,
    task: PromptPairs,
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    design: Design = "direct",
    swap: Swap = "prompt",
    draws: int | None = None,
    operating_point: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> Circuit:
    """Find a circuit by swapping outputs at random and regressing responses on what was swapped.

    Parameters
    ----------
    model : Model
        The model.
    task : PromptPairs
        Prompts, and what is read off the logits; a `Task` is one. Corrupted prompts are only used
        by `swap="corrupted"`.
    n_prompts : int, optional
        How many to use, the first ones; by default all.
    batch_size : int, optional
        Prompts that run at once; by default what fits into half a gigabyte.
    design : {"direct", "edge"}
        `direct` (a bit for each component, half of them swapped): scores are shares of the
        target's response, propagated from component to component; best where the whole circuit is
        asked for. `edge` (a bit for each edge, some ten swapped at once): scores are mean effects
        on the target, in units of `task.change`; best for what edge patching would find.
    swap : {"prompt", "corrupted"}
        Swap for the output on another prompt of the same length, or on the corrupted prompt.
    draws : int, optional
        Runs of a prompt; by default as many as make 1,000 runs in all (direct), or five for each
        edge and at least 2,000, but no more than swap every edge on every prompt once (edge).
    operating_point : bool
        Leave out edges below the operating point.
    seed : int
        Decides all that is random.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Circuit
        Over components; weights are coefficients of the regressions. `settings["threshold"]` is
        the operating point, which one edge of shuffled responses reaches on average.

    Raises
    ------
    InputError
        If an argument is of the wrong kind or out of range, corrupted prompts differ in length, or
        no two prompts are of one length.

    Notes
    -----
    In the direct design the score of an edge is its relevance, where parents count by what they do
    to the outputs on their own (`component_weights`), mixed with a share `SPARE` of its relevance
    without that: what is there but redundant ranks below all that matters. Scores are shares, so
    its operating point asks for more than luck would give one edge if none had an effect (about
    half of all relevance in a model of two layers, a third in one of four), not for significance.
    In the edge design it asks that an edge stands out from the scatter of whole responses; in a
    language model that is true of the strongest dozen, and many weaker ones have effects. Outputs
    keep their positions when they are swapped, so an edge that carries position alone is not seen.
    """
    n_prompts = expect_pairs(model, task, n_prompts)
    one_of(design, "design", "direct", "edge")
    graph, start = graph_of(model), time.perf_counter()
    n = min(n_prompts or len(task.clean), len(task.clean))
    direct, n_edges = design == "direct", len(graph.edges)
    rho = 0.5 if direct else min(0.05, 10 / n_edges)
    if draws is None:
        draws = -(-(1000 if direct else max(2000, 5 * n_edges)) // n)
        draws = draws if direct else min(draws, round(1 / rho))  # every edge on every prompt
    draws = whole(draws, "draws", 1)
    data = experiment(
        model,
        task,
        design,
        n_prompts=n_prompts,
        batch_size=batch_size,
        swap=swap,
        rho=rho,
        draws=draws,
        alone=min(50 * len(graph.writers), n * draws) if direct and NECESSITY else 0,
        seed=whole(seed, "seed", 0),
        progress=progress,
    )
    allowed = graph.allowed if direct else None
    X, Y = data.bits, data.responses
    found = nonnegative_lasso(X, Y, allowed=allowed)
    rng = torch.Generator().manual_seed(seed)
    null = shuffled_effects(X, Y, allowed=allowed, shuffles=_SHUFFLES, generator=rng)
    if direct:
        strengths, scores = found, component_relevance(graph, found)[0]
        if data.alone is not None:
            weights = component_weights(data.alone, NECESSITY)
            needed = component_relevance(graph, found * weights[:, None])[0]
            scores = (1 - SPARE) * needed + SPARE * scores
        # where all components do alike
        chance = component_relevance(graph, null)[0][:, graph.allowed]
    else:
        strengths, scores = torch.zeros(2, *graph.allowed.shape)
        strengths[graph.allowed] = scores[graph.allowed] = found[:, 0]
        chance = null[:, :, 0]
    settings = {
        "method": "randomised CircuitLasso over components",
        "model": model.name,
        "task": task.name,
        "n_prompts": n,
        "trained_on": trained_on(task, n_prompts),
        "design": design,
        "swap": swap,
        "rho": rho,
        "draws": draws,
        "seed": seed,
        "threshold": threshold(chance, _FALSE_EDGES),
        "seconds": time.perf_counter() - start,
    }
    circuit = component_circuit(graph, scores, settings, weights=strengths)
    return at_operating_point(circuit) if operating_point else circuit


def threshold(chance: Tensor, false_edges: float) -> float:
    """Return the score that so many edges reach, on average, where there are no effects."""
    share = min(false_edges / chance.shape[1], 1.0)
    return float(np.quantile(chance.numpy(), 1 - share))


def at_operating_point(circuit: Circuit) -> Circuit:
    """Keep the edges that reach the operating point of the method that found them."""
    expect(circuit, "circuit", "Circuit")
    point = circuit.settings.get("threshold")
    if point is None:
        raise InputError(
            f"{circuit.settings.get('method', 'This circuit')!r} has no operating point of its "
            "own: choose how many edges to keep."
        )
    kept = circuit.edges[(circuit.edges["score"] >= point) & (circuit.edges["score"] > 0)]
    return replace(circuit, edges=kept, settings=circuit.settings | {"operating_point": True})


def component_relevance(graph: Graph, strengths: Tensor) -> tuple[Tensor, Tensor]:
    """Share out relevance 1 of the target over its parents, theirs over theirs, and so on."""
    share = strengths.double().square() * graph.allowed
    share = share / share.sum(-2, keepdim=True).clamp(min=torch.finfo(torch.double).tiny)
    relevance = torch.zeros_like(share[..., 0, :])
    relevance[..., -1] = 1.0
    for reader in range(len(graph.readers) - 2, -1, -1):  # it writes as writer reader + 1
        relevance[..., reader] = (share[..., reader + 1, :] * relevance).sum(-1)
    return share * relevance[..., None, :], relevance


def component_weights(alone: Tensor, half: float) -> Tensor:
    """Return how far components count, by what each of them does to the outputs on its own."""
    largest = alone.amax(-1, keepdim=True)
    effect = torch.where(largest > 0, alone / largest.clamp(min=torch.finfo(alone.dtype).tiny), 1e9)
    return effect.square() / (effect.square() + half**2)

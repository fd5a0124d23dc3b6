"""Randomised CircuitLasso: causal circuits over heads and MLPs from forward passes alone.

Observed activations cannot tell what a component uses from what correlates with that. So outputs
are swapped at random, all at once (`designs`), and sparse regression on the bits tells them
apart. Two designs: `direct` finds which components depend on which, asks in some further runs
what each does to the outputs on its own, and carries relevance back from the target; `edge` finds
the mean effect of every edge on the target, as edge patching does one edge at a time.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import component_circuit
from circuit_toolkit.circuit_lasso.edge_design import direct_design, edge_design
from circuit_toolkit.circuit_lasso.swaps import Swap
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.graph import Graph, graph_of
from circuit_toolkit.models.model import Model
from circuit_toolkit.regression.solvers.nonnegative import chance_level, nonnegative_lasso
from circuit_toolkit.tasks.prompt_pairs import PromptPairs

Design = Literal["direct", "edge"]
SPARE = 0.1  # share of relevance that does not ask what components do alone: it ranks the rest


def randomised_lasso(
    model: Model,
    task: PromptPairs,
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    design: Design = "direct",
    swap: Swap = "prompt",
    rho: float | None = None,
    draws: int | None = None,
    alpha: float = 0.0,
    necessity: float = 0.3,
    false_edges: float = 1.0,
    shuffles: int = 200,
    operating_point: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> Circuit:
    """Find a circuit by swapping outputs at random and regressing responses on what was swapped.

    Parameters
    ----------
    model : Model
        The model.
    task : PromptPairs
        Prompts, and what is read off the logits; a `Task` is one. Twins are only used by
        `swap="corrupted"`.
    n_prompts : int, optional
        How many to use, the first ones; by default all.
    batch_size : int, optional
        Prompts that run at once; by default what fits into half a gigabyte.
    design : {"direct", "edge"}
        `direct` (a bit for each component): scores are shares of the target's response, carried
        back from component to component; best where the whole circuit is asked for. `edge` (a bit
        for each edge): scores are mean effects on the target, in units of `contrast.change`; best
        for what edge patching would find.
    swap : {"prompt", "corrupted"}
        Swap for the output on another prompt of the same length, or on the corrupted prompt.
    rho : float, optional
        Probability of a swap; by default 0.5 (direct), or what swaps 10 edges at once but at most
        0.05 (edge).
    draws : int, optional
        Runs of a prompt; by default as many as make 1,000 runs in all (direct), or five for each
        edge and at least 2,000, but no more than swap every edge on every prompt once (edge).
    alpha : float
        Penalty of the lasso, as a share of the smallest at which nothing is found.
    necessity : float
        In the direct design, how far a component alone has to move the outputs to count half, as
        a share of what the most effective one does; see `component_weights`. Between 0.25
        and 0.4 little depends on it. 0 counts all alike and saves the runs that tell.
    false_edges : float
        How many edges shuffled responses may put into the graph at its operating point, on
        average; see `at_operating_point`. In the direct design scores are shares, so that this
        asks for more than luck would give one edge if none had an effect (about half of all
        relevance in a model of two layers, a third in one of four), not for significance. In the
        edge design it asks that an edge stands out from the scatter of whole responses; in a
        language model that is true of the strongest dozen, and many weaker ones have effects.
    shuffles : int
        How often responses are shuffled to find that out.
    operating_point : bool
        Leave out edges below the operating point.
    seed : int
        Decides all that is random.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Circuit
        Over components. `settings["threshold"]` is the operating point, weights are coefficients
        of the regressions.

    Raises
    ------
    InputError
        If a setting is out of range, corrupted prompts differ in length, or no two prompts are of
        one length.

    Notes
    -----
    In the direct design the score of an edge is its relevance in `carry_back` with strengths
    S_ij times the weight of component i, mixed with a share `SPARE` of its relevance without
    weights: that ranks what is there but redundant, below all that matters. Outputs keep their
    positions when they are swapped, so an edge that carries position alone is not seen.
    """
    if design not in ("direct", "edge"):
        raise InputError(f"design must be 'direct' or 'edge', got {design!r}.")
    if false_edges <= 0 or shuffles < 1 or necessity < 0:
        raise InputError(
            "false_edges must be above 0, shuffles at least 1 and necessity 0 or more, got "
            f"{false_edges}, {shuffles}, {necessity}."
        )
    graph, start = graph_of(model), time.perf_counter()
    n = min(n_prompts or len(task.clean), len(task.clean))
    direct, options = design == "direct", {}
    usual = 0.5 if direct else min(0.05, 10 / len(graph.edges))
    rows = 1000 if direct else max(2000, 5 * len(graph.edges))
    rho = usual if rho is None else rho
    if draws is None:
        draws = -(-rows // n)
        if not direct and 0 < rho < 1:
            draws = min(draws, round(1 / rho))  # then every edge was swapped on every prompt
    if direct and necessity:
        options["alone"] = min(50 * len(graph.writers), n * draws)
    data = (direct_design if direct else edge_design)(
        model,
        task,
        n_prompts=n_prompts,
        batch_size=batch_size,
        swap=swap,
        rho=rho,
        draws=draws,
        seed=seed,
        progress=progress,
        **options,
    )
    allowed = graph.allowed if direct else None
    X, Y = data.bits, data.responses
    found = nonnegative_lasso(X, Y, allowed=allowed, alpha=alpha)
    rng = torch.Generator().manual_seed(seed)
    null = chance_level(X, Y, allowed=allowed, alpha=alpha, shuffles=shuffles, generator=rng)
    if direct:
        strengths, scores = found, propagate_relevance(graph, found)[0]
        if data.alone is not None:
            weights = component_weights(data.alone, necessity)
            needed = propagate_relevance(graph, found * weights[:, None])[0]
            scores = (1 - SPARE) * needed + SPARE * scores
        chance = propagate_relevance(graph, null)[0][
            :, graph.allowed
        ]  # where all components do alike
    else:
        strengths, scores = torch.zeros(2, *graph.allowed.shape)
        strengths[graph.allowed] = scores[graph.allowed] = found[:, 0]
        chance = null[:, :, 0]
    settings = {
        "method": "randomised CircuitLasso",
        "model": model.name,
        "task": task.name,
        "n_prompts": n,
        "design": design,
        "swap": swap,
        "rho": rho,
        "draws": draws,
        "alpha": alpha,
        "necessity": necessity if design == "direct" else None,
        "false_edges": false_edges,
        "shuffles": shuffles,
        "seed": seed,
        "threshold": threshold(chance, false_edges),
    }
    settings["seconds"] = time.perf_counter() - start
    circuit = component_circuit(graph, scores, settings, weights=strengths)
    return at_operating_point(circuit) if operating_point else circuit


def threshold(chance: Tensor, false_edges: float) -> float:
    """Return the score that so many edges reach, on average, where there are no effects."""
    share = min(false_edges / chance.shape[1], 1.0)
    return float(np.quantile(chance.numpy(), 1 - share))


def at_operating_point(circuit: Circuit) -> Circuit:
    """Keep the edges that reach the operating point of the method that found them."""
    point = circuit.settings.get("threshold")
    if point is None:
        raise InputError(
            f"{circuit.settings.get('method', 'This circuit')!r} has no operating point of its "
            "own: choose how many edges to keep."
        )
    kept = circuit.edges[(circuit.edges["score"] >= point) & (circuit.edges["score"] > 0)]
    return replace(circuit, edges=kept, settings=circuit.settings | {"operating_point": True})


def propagate_relevance(graph: Graph, strengths: Tensor) -> tuple[Tensor, Tensor]:
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

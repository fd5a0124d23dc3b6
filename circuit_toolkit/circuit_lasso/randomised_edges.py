"""Circuits over heads and MLPs from forward passes alone: rank edges, then confirm them.

Observed activations cannot tell what a component uses from what correlates with that. So outputs
are swapped at random, all at once (`edge_design`), and sparse regression on the bits tells them
apart. `randomised_lasso` finds which components depend on which, asks in some further runs what
each does to the outputs on its own, and propagates relevance from the target; `edge_lasso` finds
the mean effect of every edge on the target, as edge patching does one edge at a time. The edges
that lead either ranking are then patched one by one (`patching.confirmation`).
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.arguments import expect, whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import component_circuit
from circuit_toolkit.circuit_lasso.edge_design import Swap, experiment
from circuit_toolkit.circuit_lasso.screened_edges import (
    LARGE,
    SCREENED,
    gradient_effects,
    screened_circuit,
)
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.graph import Graph, graph_of
from circuit_toolkit.models.model import Model
from circuit_toolkit.patching.confirmation import ERROR, SMALLEST, patched_alone
from circuit_toolkit.regression.solvers.nonnegative import nonnegative_lasso
from circuit_toolkit.tasks.prompt_pairs import PromptPairs, expect_pairs
from circuit_toolkit.tasks.task import trained_on

SPARE = 0.1  # share of relevance that does not ask what components do alone: it ranks the rest
# How far a component alone has to move the outputs to count half, as a share of what the most
# effective one does. Between .25 and .4 little depends on it.
NECESSITY = 0.3
MOST = 0.5  # of relevance: such an edge holds even where others make up for it when it is patched


def randomised_lasso(
    model: Model,
    task: PromptPairs,
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    swap: Swap = "prompt",
    draws: int | None = None,
    confirm: bool = True,
    screened: int | None = None,
    operating_point: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> Circuit:
    """Find a circuit by swapping outputs at random, then confirm its edges by patching each alone.

    Half of all components are swapped in every run, and the change of each component is regressed
    on what was swapped before it. The score of an edge is its relevance: the share of the target's
    response that runs through it, propagated from component to component, where parents count by
    what they do to the outputs on their own (`component_weights`), mixed with a share `SPARE` of
    its relevance without that: what is there but redundant ranks below all that matters.

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
    swap : {"prompt", "corrupted"}
        Swap for the output on another prompt of the same length, or on the corrupted prompt.
    draws : int, optional
        Runs of a prompt; by default as many as make 1,000 runs in all, or 400 of a large model.
    confirm : bool
        Whether to patch edges one by one.
    screened : int, optional
        For large models, with `swap="corrupted"`: how many edges are patched alone, three quarters
        of them those that lead by gradients (`eap`, mean of absolutes), the others by relevance.
        Their scores are mean effects; of all other edges what gradients say. 0 for none; by default
        200 where the model has more than 2,500 edges and edges are confirmed.
    operating_point : bool
        Leave out all edges that are not confirmed.
    seed : int
        Decides all that is random.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Circuit
        Over components. The weight of a tested edge is the mean square of its effect
        (`task.change`), as a share of that of swapping everything, with its interval; other edges
        have weight 0. Without `confirm` weights are coefficients of the regressions.

    Raises
    ------
    InputError
        If an argument is of the wrong kind or out of range, corrupted prompts differ in length, or
        no two prompts are of one length.

    Notes
    -----
    Edges with less than 2 % of relevance (a share of squares) are not tested. The others are, in
    the order of their relevance, on up to 200 prompts, until five in a row fail. An edge is
    confirmed if patching it alone makes more than 2 % of the squared change that patching all
    makes, at an error level of 5 % over all edges of the model (Bonferroni), by its scatter over
    prompts; or if most of the relevance runs through it, and its end changes when its start is
    swapped, at the same level: then it does much where all is swapped at random, and others only
    make up for it where it alone is. Outputs keep their positions when they are swapped, so an edge
    that carries position alone is not seen.
    """
    started, n_prompts = time.perf_counter(), expect_pairs(model, task, n_prompts)
    graph, n = graph_of(model), min(n_prompts or len(task.clean), len(task.clean))
    if screened is None:
        large = len(graph.edges) > LARGE and swap == "corrupted" and confirm
        screened = SCREENED if large else 0
    if whole(screened, "screened", 0) and swap != "corrupted":
        raise InputError(f"screened={screened} needs swap='corrupted', got {swap!r}.")
    runs = 400 if screened else 1000
    draws = whole(-(-runs // n) if draws is None else draws, "draws", 1)
    seed, sizes = whole(seed, "seed", 0), dict[str, Any](n_prompts=n_prompts, progress=progress)
    sizes["batch_size"] = batch_size
    alone = min(50 * len(graph.writers), n * draws) if NECESSITY and not screened else 0
    gradients, effects = gradient_effects(model, task, sizes) if screened else (None, None)
    data = experiment(
        model, task, "direct", swap=swap, draws=draws, alone=alone, seed=seed, **sizes
    )
    found = nonnegative_lasso(data.bits, data.responses, allowed=graph.allowed)
    scores = component_relevance(graph, found)[0]
    effects = data.alone if effects is None else effects
    if effects is not None:
        weights = component_weights(effects, NECESSITY)
        needed = component_relevance(graph, found * weights[:, None])[0]
        scores = (1 - SPARE) * needed + SPARE * scores
    settings = {"method": "randomised lasso", "swap": swap, "draws": draws, "seed": seed}
    if gradients is not None:
        settings |= _told(model, task, n)
        circuit = screened_circuit(
            model, task, gradients, scores, screened, settings, sizes, started
        )
        return at_operating_point(circuit) if operating_point else circuit
    above = SMALLEST if confirm else None
    sure = (scores > MOST) & dependent(data.bits, data.responses, len(graph.edges))
    circuit = ranked_circuit(model, task, scores, found, settings, started, sizes, above, sure)
    return at_operating_point(circuit) if operating_point else circuit


def edge_lasso(
    model: Model,
    task: PromptPairs,
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    swap: Swap = "corrupted",
    draws: int | None = None,
    confirm: bool = True,
    operating_point: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> Circuit:
    """Estimate all effects of edge patching at once, by swapping a few edges at random in each run.

    Best where the strongest edges of edge patching are asked for; `randomised_lasso` where the
    whole circuit is.

    Parameters
    ----------
    model, task, n_prompts, batch_size, swap, confirm, operating_point, seed, progress
        As for `randomised_lasso`.
    draws : int, optional
        Runs of a prompt; by default as many as make five for each edge and at least 2,000, but no
        more than swap every edge on every prompt once.

    Returns
    -------
    Circuit
        As that of `randomised_lasso`; scores are mean effects on the target, in units of
        `task.change`.

    Raises
    ------
    InputError
        As for `randomised_lasso`.
    """
    started, n_prompts = time.perf_counter(), expect_pairs(model, task, n_prompts)
    graph, n = graph_of(model), min(n_prompts or len(task.clean), len(task.clean))
    rho = min(0.05, 10 / len(graph.edges))
    if draws is None:
        draws = min(-(-max(2000, 5 * len(graph.edges)) // n), round(1 / rho))
    draws = whole(draws, "draws", 1)
    seed, sizes = whole(seed, "seed", 0), dict[str, Any](n_prompts=n_prompts, progress=progress)
    sizes["batch_size"] = batch_size
    data = experiment(model, task, "edge", swap=swap, rho=rho, draws=draws, seed=seed, **sizes)
    scores = torch.zeros(graph.allowed.shape)
    scores[graph.allowed] = nonnegative_lasso(data.bits, data.responses)[:, 0]
    settings = {"method": "edge lasso", "swap": swap, "rho": rho, "draws": draws, "seed": seed}
    above = 0.0 if confirm else None
    circuit = ranked_circuit(model, task, scores, scores, settings, started, sizes, above)
    return at_operating_point(circuit) if operating_point else circuit


def ranked_circuit(
    model: Model,
    task: PromptPairs,
    scores: Tensor,
    weights: Tensor,
    settings: dict[str, Any],
    started: float,
    sizes: dict[str, Any],
    confirm_above: float | None,
    sure: Tensor | None = None,
) -> Circuit:
    """Make a circuit of scores; test edges above a score, if one is given; some hold for sure."""
    n = min(sizes["n_prompts"] or len(task.clean), len(task.clean))
    settings = settings | _told(model, task, n)
    graph = graph_of(model)
    circuit = component_circuit(graph, scores, settings, weights=weights)
    edges = circuit.edges.copy()
    if confirm_above is not None:
        order = np.argsort(-edges["score"], kind="stable")
        order = order[edges["score"][order] > confirm_above]
        ends = edges[["source", "target"]][order].tolist()
        ranked = [(graph.writers[source], graph.readers[target - 1]) for source, target in ends]
        swapped = settings.get("swap") == "corrupted"
        seed, m = settings["seed"], len(graph.edges)
        holds = np.zeros(len(order), dtype=bool)
        if sure is not None:
            holds = sure.numpy()[edges["source"], edges["target"] - 1][order]
        found = patched_alone(
            model, task, ranked, m, sure=holds, corrupted=swapped, seed=seed, **sizes
        )
        tested, held = order[: len(found)], (found[:, 1] > SMALLEST) | holds[: len(found)]
        edges["weight"] = 0
        edges["weight"][tested], edges["low"][tested], edges["high"][tested] = found.T
        edges["status"][tested] = np.where(held, "confirmed", "refuted")
        settings |= {"tested": len(found), "confirmed": int(held.sum())}
    settings["seconds"] = time.perf_counter() - started
    return replace(circuit, edges=edges, settings=circuit.settings | settings)


def _told(model: Model, task: PromptPairs, n: int) -> dict[str, Any]:
    """Say of what model, task and prompts a circuit is."""
    told = {"model": model.name, "task": task.name, "n_prompts": n}
    return told | {"trained_on": trained_on(task, n)}


def at_operating_point(circuit: Circuit) -> Circuit:
    """Keep the edges that were confirmed: the graph that a method itself draws."""
    expect(circuit, "circuit", "Circuit")
    if not has_operating_point(circuit):
        raise InputError(
            f"{circuit.settings.get('method', 'This circuit')!r} has no operating point of its "
            "own: choose how many edges to keep."
        )
    return replace(circuit, edges=circuit.edges[circuit.edges["status"] == "confirmed"])


def has_operating_point(circuit: Circuit) -> bool:
    """Whether edges were tested, even if none was worth a test."""
    return "confirmed" in circuit.settings


def dependent(bits: Tensor, responses: Tensor, tests: int) -> Tensor:
    """Whether responses (n, R) grow with each bit (n, W), the others held: t in least squares."""
    from scipy.stats import t

    X = torch.cat([torch.ones(len(bits), 1), bits], 1).double()
    inverse, Y = torch.linalg.pinv(X.T @ X), responses.double()
    B = inverse @ X.T @ Y  # (1 + W, R)
    free = max(len(X) - X.shape[1], 1)
    scatter = (Y - X @ B).square().sum(0) / free
    errors = (inverse.diagonal().clamp(min=0)[:, None] * scatter).sqrt()
    return (t.isf(ERROR / tests, free) * errors < B)[1:]


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

"""Circuits over components (heads and MLPs): what a method needs, and scores as a `Circuit`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.arguments import number, whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET, new_edges, new_nodes
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.graph import EMBED, OUTPUT, Graph
from circuit_toolkit.sites import Site

Average = Literal["absolute mean", "mean of absolutes"]


def component_circuit(
    graph: Graph,
    scores: Tensor | np.ndarray,
    settings: Mapping[str, Any],
    *,
    node_scores: Tensor | np.ndarray | None = None,
    weights: Tensor | np.ndarray | None = None,
) -> Circuit:
    """Turn scores of edges into a circuit with a node for every component."""
    S = np.asarray(scores, dtype=float)
    if S.shape != tuple(graph.allowed.shape):
        raise InputError(f"scores must have shape {tuple(graph.allowed.shape)}, got {S.shape}.")
    S = np.where(graph.allowed.numpy(), S, 0.0)
    W = S if weights is None else np.asarray(weights, dtype=float)
    if node_scores is None:
        out, into = S.max(1), np.r_[0.0, S.max(0)[:-1]]  # as writer, as reader
        node_scores = np.maximum(out, into)
    kinds, sites, indices = zip(*map(place, graph.writers), strict=True)
    writers = new_nodes(
        len(graph.writers),
        kind=kinds,
        site=[str(site) for site in sites],
        index=indices,
        score=np.asarray(node_scores),
        label=graph.writers,
    )
    end = new_nodes(1, TARGET, score=S[:, -1].max(), label=str(settings.get("task", OUTPUT)))
    rows, columns = S.nonzero()
    edges = new_edges(
        len(rows),
        source=rows,
        target=columns + 1,  # reader j is writer j + 1
        weight=W[rows, columns],
        score=S[rows, columns],
    )
    return Circuit(np.concatenate([writers, end]), edges, {"level": "components", **settings})


def chosen_heads(
    scores: np.ndarray, threshold: float | None = None, n_heads: int | None = None
) -> np.ndarray:
    """Return the numbers of heads that reach a share of the highest score, or of the n highest."""
    if (threshold is None) == (n_heads is None):
        raise InputError("Pass either threshold, a share of the highest score, or n_heads.")
    flat = np.ravel(scores)
    if threshold is not None:
        threshold = number(threshold, "threshold", 0, 1)
        return np.flatnonzero((flat >= threshold * flat.max()) & (flat.max() > 0))
    n_heads = whole(n_heads, "n_heads", 0)
    if n_heads > len(flat):
        raise InputError(f"There are {len(flat)} heads: n_heads={n_heads}.")
    return np.sort(np.argsort(-flat, kind="stable")[:n_heads])


def head_nodes(
    heads: Sequence[tuple[int, int]], scores: Sequence[float], target: str
) -> np.ndarray:
    """Make the table of nodes of a circuit over heads."""
    nodes = new_nodes(
        len(heads),
        "head",
        site=[str(Site("head_out", layer)) for layer, _ in heads],
        index=[head for _, head in heads],
        score=scores,
        label=[f"a{layer}.h{head}" for layer, head in heads],
    )
    return np.concatenate([nodes, new_nodes(1, TARGET, label=target)])


def head_circuit(
    scores: np.ndarray,
    settings: Mapping[str, Any],
    threshold: float | None = None,
    *,
    n_heads: int | None = None,
) -> Circuit:
    """Return heads chosen by their scores (L, H), each with an untested edge to the target."""
    kept = chosen_heads(scores, threshold, n_heads)
    heads, mine = [divmod(i, scores.shape[1]) for i in kept.tolist()], scores.ravel()[kept]
    nodes = head_nodes(heads, mine.tolist(), str(settings.get("target") or TARGET))
    n = len(heads)
    edges = new_edges(n, source=np.arange(n), target=n, weight=mine, score=mine)
    chosen = {"level": "heads", "threshold": threshold, "n_heads": n_heads}
    return Circuit(nodes, edges, {**settings, **chosen})


def edge_scores(circuit: Circuit, graph: Graph) -> np.ndarray:
    """Read the scores of all possible edges off a circuit over components."""
    found = np.zeros(tuple(graph.allowed.shape))
    found[_ends(circuit, graph)] = circuit.edges["score"]
    return found


def edge_mask(circuit: Circuit, graph: Graph) -> Tensor:
    """Mark the edges of a circuit over components among all possible ones."""
    found = torch.zeros_like(graph.allowed)
    found[_ends(circuit, graph)] = True
    return found


def _ends(circuit: Circuit, graph: Graph) -> tuple[list[int], list[int]]:
    """Writer and reader of each edge."""
    names = [*circuit.nodes["label"][:-1].tolist(), OUTPUT]
    edges = circuit.edges
    return (
        [graph.writer(names[i]) for i in edges["source"].tolist()],
        [graph.reader(names[i]) for i in edges["target"].tolist()],
    )


def place(name: str) -> tuple[str, Site, int]:
    """Return the kind, the site and the number of a component."""
    if name == EMBED:
        return "embedding", Site("resid_pre", 0), 0
    head = re.fullmatch(r"a(\d+)\.h(\d+)", name)
    if head:
        return "head", Site("head_out", int(head[1])), int(head[2])
    return "mlp", Site("mlp_out", int(name[1:])), 0


def averaged(effects: Tensor, average: Average) -> Tensor:
    """Average effects over prompts to scores."""
    if average == "absolute mean":
        return effects.mean(0).abs()
    if average == "mean of absolutes":
        return effects.abs().mean(0)
    raise InputError(f"average must be 'absolute mean' or 'mean of absolutes', got {average!r}.")

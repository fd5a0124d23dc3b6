"""Influence on the targets, pruning by it, and the two scores of a graph.

Ameisen et al., "Circuit Tracing: Revealing Computational Graphs in Language Models", 2025. All
functions take an adjacency matrix whose row i holds what enters node i, (N, N); nodes are in order
of computation, so there is no circle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp


def normalised(adjacency: sp.csr_array) -> sp.csr_array:
    """Return absolute weights, those that enter a node as shares of their sum."""
    shares = abs(adjacency)
    total = np.asarray(shares.sum(1, dtype=float))
    scale = np.divide(1, total, out=np.zeros_like(total), where=total > 0)
    shares.data *= np.repeat(scale, np.diff(shares.indptr)).astype(shares.dtype)
    return shares


def node_influence(shares: sp.csr_array, weights: np.ndarray) -> np.ndarray:
    """Return the influence of each node on the targets, (N,), along paths of any length.

    `shares` are normalised, `weights` (N,) those of the targets, such as their probabilities:
    w A + w A² + ... for the rows w.
    """
    return along_paths(weights, lambda step: shares.T @ step)


def along_paths(start: np.ndarray, back: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Sum what is passed back along paths of any length, one edge and more, in a graph."""
    step, total = start, np.zeros(len(start))
    while step.any():  # it ends: no path is longer than the number of sites
        step = back(step)
        total += step
    return total


def edge_influence(shares: sp.csr_array, weights: np.ndarray) -> sp.csr_array:
    """Return the influence of each edge on the targets, where `shares` has an entry."""
    through = node_influence(shares, weights) + weights
    found = shares.copy()
    found.data *= np.repeat(through, np.diff(found.indptr)).astype(found.dtype)
    return found


class Kept(NamedTuple):
    """What is left after pruning."""

    nodes: np.ndarray  # (N,) bool
    edges: sp.csr_array  # (N, N) influence of the edges that are left
    influence: np.ndarray  # (N,) of all nodes, before pruning


def pruned(
    adjacency: sp.csr_array,
    weights: np.ndarray,
    always: np.ndarray,
    has_inputs: np.ndarray,
    node_share: float,
    edge_share: float,
) -> Kept:
    """Keep the fewest nodes, then the fewest edges, that have a share of all influence.

    `always` (N,) stay, which are tokens and targets; the others need an edge out, and those that
    have inputs an edge in.
    """
    influence = node_influence(normalised(adjacency), weights)
    nodes = always | (influence >= _threshold(influence, node_share))
    kept = sp.diags_array(nodes.astype(adjacency.dtype))
    edges = sp.coo_array(edge_influence(normalised(sp.csr_array(kept @ adjacency @ kept)), weights))
    target, source = edges.coords
    there = edges.data >= _threshold(edges.data, edge_share)
    there &= edges.data > 0
    target, source, data = target[there], source[there], edges.data[there]
    n, before = len(nodes), -1
    while before != len(data):
        before = len(data)
        nodes &= always | (np.bincount(source, minlength=n) > 0)
        nodes &= always | ~has_inputs | (np.bincount(target, minlength=n) > 0)
        there = nodes[target] & nodes[source]
        target, source, data = target[there], source[there], data[there]
    return Kept(nodes, sp.csr_array((data, (target, source)), shape=edges.shape), influence)


def _threshold(values: np.ndarray, share: float) -> float:
    """Return the smallest of the fewest values that have a share of their sum; of 1 all have it."""
    if not len(values) or share == 1:
        return 0.0
    ordered = np.sort(values)[::-1]
    total = np.cumsum(ordered, dtype=float)
    at = np.searchsorted(total, share * total[-1])
    return float(ordered[min(int(at), len(ordered) - 1)])


class GraphScores(NamedTuple):
    """How much of a graph runs through features, as published."""

    replacement: float  # influence of tokens over that of tokens and errors
    completeness: float  # share of what enters nodes that is no error, weighted by their influence


def graph_scores(
    adjacency: sp.csr_array, weights: np.ndarray, tokens: np.ndarray, errors: np.ndarray
) -> GraphScores:
    """Score a graph; `tokens` and `errors` (N,) say which nodes are these."""
    shares = normalised(adjacency)
    influence = node_influence(shares, weights)
    of_tokens, of_errors = influence[tokens].sum(), influence[errors].sum()
    explained = 1 - np.asarray(shares @ errors.astype(float))
    through = influence + weights
    return GraphScores(
        _ratio(of_tokens, of_tokens + of_errors), _ratio((explained * through).sum(), through.sum())
    )


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0

"""Influence, pruning and scores against their definitions on dense matrices."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp

from circuit_toolkit.attribution.graph.pruning import (
    edge_influence,
    graph_scores,
    node_influence,
    normalised,
    pruned,
)

N_TOKENS, N_INNER, N_TARGETS = 4, 30, 3
N = N_TOKENS + N_INNER + N_TARGETS


@pytest.fixture
def graph():
    """A random graph: tokens, then features and errors (every third), then targets."""
    rng = np.random.default_rng(0)
    kind = np.array(["token"] * N_TOKENS + ["feature"] * N_INNER + ["target"] * N_TARGETS)
    kind[N_TOKENS : N_TOKENS + N_INNER : 3] = "error"
    dense = np.tril(rng.standard_normal((N, N)) ** 3, -1) * (rng.random((N, N)) < 0.4)
    dense[np.isin(kind, ("token", "error"))] = 0
    dense[:, kind == "target"] = 0
    weights = np.zeros(N)
    weights[-N_TARGETS:] = 0.6, 0.25, 0.1
    return dense, weights, kind


def shares_of(dense):
    total = np.abs(dense).sum(1, keepdims=True)
    return np.divide(np.abs(dense), total, out=np.zeros_like(dense), where=total > 0)


def influence_of(dense, weights):
    return weights @ (np.linalg.inv(np.eye(N) - shares_of(dense)) - np.eye(N))


def test_influence_is_the_sum_over_all_paths(graph):
    dense, weights, _ = graph
    shares = normalised(sp.csr_array(dense))
    np.testing.assert_allclose(shares.toarray(), shares_of(dense), rtol=1e-12)
    expected = influence_of(dense, weights)
    # double precision, a few dozen terms
    np.testing.assert_allclose(node_influence(shares, weights), expected, rtol=1e-10)
    walked = np.zeros(N)  # the same path by path
    net = nx.from_numpy_array(shares_of(dense).T, create_using=nx.DiGraph)
    for node in range(N_TOKENS):
        for target in range(N - N_TARGETS, N):
            for path in nx.all_simple_edge_paths(net, node, target, cutoff=N):
                sizes = [net.edges[edge]["weight"] for edge in path]
                walked[node] += weights[target] * np.prod(sizes)
    np.testing.assert_allclose(walked[:N_TOKENS], expected[:N_TOKENS], rtol=1e-10)
    edges = edge_influence(shares, weights).toarray()
    np.testing.assert_allclose(edges, shares_of(dense) * (expected + weights)[:, None], rtol=1e-10)
    # what runs through the edges out of a node is its influence
    np.testing.assert_allclose(edges.sum(0), expected, rtol=1e-10)


@pytest.mark.parametrize("node_share", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("edge_share", [0.3, 0.98, 1.0])
def test_pruning_keeps_the_fewest_that_have_the_share(graph, node_share, edge_share):
    dense, weights, kind = graph
    always, has_inputs = np.isin(kind, ("token", "target")), np.isin(kind, ("feature", "target"))
    given = sp.csr_array(dense), weights, always, has_inputs
    kept = pruned(*given, node_share, edge_share)

    def fewest(values, share):
        order = np.argsort(-values.ravel())
        n = int(np.searchsorted(np.cumsum(values.ravel()[order]), share * values.sum())) + 1
        mask = np.zeros(values.size, bool)
        mask[order[:n]] = True
        return mask.reshape(values.shape) & (values > 0)

    influence = influence_of(dense, weights)
    np.testing.assert_allclose(kept.influence, influence, rtol=1e-10)
    nodes = fewest(influence, node_share - 1e-12) | always
    cut = dense * nodes[:, None] * nodes
    through = shares_of(cut) * (influence_of(cut, weights) + weights)[:, None]
    edges = fewest(through, edge_share - 1e-12)
    for _ in range(N):
        nodes &= always | edges.any(0)
        nodes &= always | ~has_inputs | edges.any(1)
        edges &= nodes[:, None] & nodes
    np.testing.assert_array_equal(kept.nodes, nodes)
    np.testing.assert_array_equal(kept.edges.toarray() > 0, edges)
    np.testing.assert_allclose(kept.edges.toarray()[edges], through[edges], rtol=1e-10)


def test_scores_are_as_published(graph):
    dense, weights, kind = graph
    is_token, is_error = kind == "token", kind == "error"
    influence = influence_of(dense, weights)
    found = graph_scores(sp.csr_array(dense), weights, is_token, is_error)
    of_tokens, of_errors = influence[is_token].sum(), influence[is_error].sum()
    assert found.replacement == pytest.approx(of_tokens / (of_tokens + of_errors), rel=1e-10)
    explained = 1 - shares_of(dense)[:, is_error].sum(1)
    through = influence + weights
    assert found.completeness == pytest.approx(explained @ through / through.sum(), rel=1e-10)
    # nothing is left unexplained: both are 1; everything is: the first is 0
    without = dense * ~is_error
    perfect = graph_scores(sp.csr_array(without), weights, is_token, is_error)
    assert perfect == pytest.approx((1, 1))
    assert graph_scores(sp.csr_array(dense * ~is_token), weights, is_token, is_error)[0] == 0


def test_nothing_enters_anything():
    empty = sp.csr_array((3, 3))
    weights, mask = np.array([0, 0, 1.0]), np.array([True, False, True])
    kept = pruned(empty, weights, mask, ~mask, 0.8, 0.98)
    assert kept.nodes.tolist() == [True, False, True] and not kept.edges.nnz
    assert graph_scores(empty, weights, mask, ~mask) == (0, 1)

"""Relevance: shared out and never lost, as a slow loop does it."""

import numpy as np
import pytest
import scipy.sparse as sp

from circuit_toolkit.circuit_lasso.drawing import propagate_relevance

SIZES = (7, 5, 6, 4)


def made_up(seed=0, density=0.5):
    rng = np.random.default_rng(seed)
    strengths = [
        sp.csc_array(rng.random((a, b)) * (rng.random((a, b)) < density))
        for a, b in zip(SIZES, SIZES[1:], strict=False)
    ]
    direct = [rng.random(size) * (rng.random(size) < density) for size in SIZES]
    return strengths, direct


def slow(strengths, direct):
    """Node relevance and edges by dictionaries and loops."""
    total = sum(x for part in direct for x in part)
    nodes = [[x / total for x in part] for part in direct]
    edges = [np.zeros(S.shape) for S in strengths]
    for i in reversed(range(len(strengths))):
        S = strengths[i].toarray()
        for j in range(S.shape[1]):
            whole = sum(S[:, j])
            for k in range(S.shape[0]):
                if S[k, j]:
                    edges[i][k, j] = nodes[i + 1][j] * S[k, j] / whole
                    nodes[i][k] += edges[i][k, j]
    return nodes, edges


@pytest.mark.parametrize("seed", range(5))
def test_it_agrees_with_a_slow_loop(seed):
    strengths, direct = made_up(seed)
    carried = propagate_relevance(strengths, direct)
    nodes, edges = slow(strengths, direct)
    for ours, theirs in zip(carried.nodes, nodes, strict=True):
        np.testing.assert_allclose(ours, theirs)
    for ours, theirs in zip(carried.edges, edges, strict=True):
        np.testing.assert_allclose(ours.toarray(), theirs)


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_relevance_is_conserved(density):
    strengths, direct = made_up(3, density)
    carried = propagate_relevance(strengths, direct)
    assert sum(part.sum() for part in carried.direct) == pytest.approx(1)
    for i, S in enumerate(strengths):
        has_sources = np.asarray(S.sum(axis=0)).ravel() > 0
        into = np.asarray(carried.edges[i].sum(axis=0)).ravel()
        np.testing.assert_allclose(into, np.where(has_sources, carried.nodes[i + 1], 0))
    for i, node in enumerate(carried.nodes):  # what a feature has is what it passes on
        out = carried.direct[i].copy()
        if i < len(strengths):
            out += np.asarray(carried.edges[i].sum(axis=1)).ravel()
        np.testing.assert_allclose(node, out)


def test_what_the_target_does_not_use_has_none():
    strengths, direct = made_up(1)
    direct = [np.zeros(size) for size in SIZES]
    direct[-1][2] = 4.0
    carried = propagate_relevance(strengths, direct)
    assert carried.nodes[-1].tolist() == [0, 0, 1, 0]
    feeds = strengths[-1][:, [2]].toarray().ravel()
    np.testing.assert_allclose(carried.nodes[-2], feeds / feeds.sum())
    assert all((flow.data > 0).all() for flow in carried.edges)


def test_nothing_in_nothing_back():
    strengths, direct = made_up(1)
    carried = propagate_relevance(strengths, [0 * part for part in direct])
    assert not any(part.any() for part in (*carried.nodes, *carried.direct))
    assert not any(flow.nnz for flow in carried.edges)
    alone = propagate_relevance([], [np.array([3.0, 1.0])])
    assert alone.nodes[0].tolist() == [0.75, 0.25] and alone.edges == ()


def test_scale_does_not_matter():
    strengths, direct = made_up(2)
    one = propagate_relevance(strengths, direct)
    two = propagate_relevance([10 * S for S in strengths], [5 * part for part in direct])
    for a, b in zip(one.nodes, two.nodes, strict=True):
        np.testing.assert_allclose(a, b)


def test_what_is_given_stays_as_it_was():
    strengths, direct = made_up(2)
    copies = [part.copy() for part in direct]
    propagate_relevance(strengths, direct)
    for part, copy in zip(direct, copies, strict=True):
        np.testing.assert_array_equal(part, copy)

"""Observed activations: strengths are those of the regressions, relevance is shared out."""

import numpy as np
import pytest
import torch

from circuit_toolkit.circuit.components import edge_scores
from circuit_toolkit.circuit_lasso.components import component_lasso
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.components import run_components
from circuit_toolkit.models.graph import graph_of
from tests.attribution.prompt_pairs import TwoTokens
from tests.circuit_lasso.linear import linear_model, values

EVERY = [
    {},
    {"form": "paper"},
    {"positions": "last"},
    {"scaling": "component"},
    {"stability": 2},
]


def test_what_enters_the_target_sums_to_one_and_parents_of_a_chain_are_found():
    model = linear_model()
    graph = graph_of(model)
    for options in EVERY:
        if options.get("form") == "paper":
            options = options | {"relevance": True}
        scores = edge_scores(component_lasso(model, values(), **options), graph)
        assert scores[:, -1].sum() == pytest.approx(1)
        assert scores[graph.writer("m0"), -1] > 0.5, options
        twins = [scores[graph.writer(name), graph.reader("m0")] for name in ("a0.h0", "a0.h1")]
        assert sum(twins) > 0.5, options  # to whichever of the two the lasso gives it


def test_heads_are_explained_by_what_stands_at_other_tokens():
    """The head writes the mean over three tokens: one of them is a third of its variance."""
    model = linear_model()
    graph = graph_of(model)
    circuit = component_lasso(model, values(), strength=0.001)
    weights = {(edge["source"], edge["target"]): edge["weight"] for edge in circuit.edges}
    edge = graph.writer("embed"), graph.writer("a0.h0")
    # The root of the share of variance: 1 but for the penalty, against .58 from the token alone.
    assert weights[edge] > 0.95


@pytest.mark.parametrize("options", EVERY, ids=str)
def test_edges_are_possible_ones_and_batches_do_not_matter(tiny, options):
    one = component_lasso(tiny, TwoTokens(), shuffles=1, **options)
    two = component_lasso(tiny, TwoTokens(), batch_size=3, shuffles=1, **options)
    a, b = (edge_scores(circuit, graph_of(tiny)) for circuit in (one, two))
    assert not a[~graph_of(tiny).allowed.numpy()].any() and (a > 0).any()
    if options in ({}, {"form": "paper"}):  # with fewer rows a lasso is free to choose
        np.testing.assert_allclose(a, b, atol=0.05 * a.max())
    assert {"form", "score", "penalty", "threshold", "seconds"} <= set(one.settings)


@pytest.mark.parametrize("scaling", ["none", "component", "standard"])
def test_strengths_are_those_of_scikit_learns_lasso(tiny, scaling):
    """What m0 writes, on what embed and the heads before it write."""
    from sklearn.linear_model import Lasso

    graph, batch = graph_of(tiny), tiny.tokenize(TwoTokens().clean)
    with torch.no_grad():
        outputs = run_components(tiny, batch).outputs.double()
    names = ["embed", "a0.h0", "a0.h1", "a0.h2", "a0.h3", "m0"]

    def directions(name):
        rows = outputs[:, graph.writer(name)][batch.mask.bool()].numpy()
        rows = rows - rows.mean(0)
        return rows @ np.linalg.svd(rows, full_matrices=False)[2][:4].T

    def scale_of(rows):
        each = {"none": np.ones(rows.shape[1]), "standard": rows.std(0)}
        return each.get(scaling, np.sqrt(rows.var(0).sum()))

    *parts, target = map(directions, names)
    X = np.concatenate([part / scale_of(part) for part in parts], 1)
    Y, owner = target / scale_of(target), np.repeat(range(5), 4)
    columns = []
    for y in Y.T:
        alpha = 0.2 * np.abs(X.T @ y).max() / len(X)
        lasso = Lasso(alpha=alpha, fit_intercept=False, tol=1e-12, max_iter=10**6)
        columns.append(lasso.fit(X, y).coef_)
    blocks = [np.array(columns).T[owner == i] for i in range(5)]
    norms = [np.linalg.norm(block) for block in blocks]
    said = [X[:, owner == i] @ block * scale_of(target) for i, block in enumerate(blocks)]
    shares = [np.linalg.norm(part) / np.linalg.norm(target) for part in said]
    options = {"strength": 0.2, "scaling": scaling, "directions": 4, "relevance": False}
    for score, want in (("variance", shares), ("frobenius", norms)):
        found = component_lasso(tiny, TwoTokens(), score=score, shuffles=1, **options)
        got = edge_scores(found, graph)[:5, graph.reader("m0")]
        # Principal directions of float32 outputs that are run in another batch.
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
    assert max(shares) > 0.2


def test_the_papers_form_is_its_options_and_relevance_is_carried_back(tiny):
    graph = graph_of(tiny)
    paper = component_lasso(tiny, TwoTokens(), form="paper", shuffles=1)
    options = {"score": "frobenius", "relevance": False, "scaling": "standard", "directions": 8}
    named = component_lasso(tiny, TwoTokens(), shuffles=1, **options)
    assert (edge_scores(paper, graph) == edge_scores(named, graph)).all()
    assert paper.settings["threshold"] == named.settings["threshold"]
    assert {key: paper.settings[key] for key in options} == options
    ours = component_lasso(tiny, TwoTokens(), shuffles=1)
    plain = component_lasso(tiny, TwoTokens(), shuffles=1, relevance=False)
    share = np.square(edge_scores(plain, graph)[:, -1])
    np.testing.assert_allclose(edge_scores(ours, graph)[:, -1], share / share.sum(), atol=1e-6)


def test_with_stability_strengths_are_weighted_by_how_often_an_edge_is_found(tiny):
    graph, task = graph_of(linear_model()), values(60)
    options = {"relevance": False, "shuffles": 1, "strength": 0.5}
    plain = edge_scores(component_lasso(linear_model(), task, **options), graph)
    found = component_lasso(linear_model(), task, stability=8, **options)
    weighted = edge_scores(found, graph)
    share = weighted[plain > 0] / plain[plain > 0]
    np.testing.assert_allclose(8 * share, np.round(8 * share), atol=1e-4)  # float32 scores
    assert share.max() == pytest.approx(1) and (weighted[plain == 0] == 0).all()
    assert weighted[graph.writer("m0"), -1] == pytest.approx(plain[graph.writer("m0"), -1])


def test_settings_are_checked(tiny):
    for bad in (
        {"form": "norm"},
        {"score": "size"},
        {"positions": "first"},
        {"scaling": "rank"},
        {"penalty": "ridge"},
        {"stability": -1},
        {"directions": 0},
        {"shuffles": 0},
        {"strength": 0.0},
        {"false_edges": 0},
    ):
        with pytest.raises(InputError, match=next(iter(bad))):
            component_lasso(tiny, TwoTokens(), **bad)

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

FORMS = [{}, {"relevance": True}]


def test_what_enters_the_target_sums_to_one_and_parents_of_a_chain_are_found():
    model = linear_model()
    graph = graph_of(model)
    scores = edge_scores(component_lasso(model, values(), relevance=True), graph)
    assert scores[:, -1].sum() == pytest.approx(1)
    assert scores[graph.writer("m0"), -1] > 0.5
    alike = [scores[graph.writer(name), graph.reader("m0")] for name in ("a0.h0", "a0.h1")]
    assert sum(alike) > 0.5  # to whichever of the two the lasso gives it
    plain = edge_scores(component_lasso(model, values()), graph)
    assert plain[:, -1].argmax() == graph.writer("m0")


def test_heads_are_explained_by_what_stands_at_other_tokens():
    """The head writes the mean over three tokens: one of them is a third of its variance."""
    model = linear_model()
    graph = graph_of(model)
    circuit = component_lasso(model, values(), strength=0.001, relevance=True)
    weights = {(edge["source"], edge["target"]): edge["weight"] for edge in circuit.edges}
    edge = graph.writer("embed"), graph.writer("a0.h0")
    # The root of the share of variance: 1 but for the penalty, against .58 from the token alone.
    assert weights[edge] > 0.95


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_edges_are_possible_ones_and_batches_do_not_matter(tiny, options):
    one = component_lasso(tiny, TwoTokens(), **options)
    two = component_lasso(tiny, TwoTokens(), batch_size=3, **options)
    a, b = (edge_scores(circuit, graph_of(tiny)) for circuit in (one, two))
    assert not a[~graph_of(tiny).allowed.numpy()].any() and (a > 0).any()
    np.testing.assert_allclose(a, b, atol=0.05 * a.max())  # few rows leave a lasso some choice
    assert {"relevance", "strength", "threshold", "seconds"} <= set(one.settings)


@pytest.mark.parametrize("relevance", [False, True])
def test_strengths_are_those_of_scikit_learns_lasso(tiny, relevance):
    """What m0 writes, on what embed and the heads before it write."""
    from sklearn.linear_model import Lasso

    graph, batch = graph_of(tiny), tiny.tokenize(TwoTokens().clean)
    with torch.no_grad():
        outputs = run_components(tiny, batch).outputs.double()
    names = ["embed", "a0.h0", "a0.h1", "a0.h2", "a0.h3", "m0"]

    def directions(name):
        rows = outputs[:, graph.writer(name)][batch.mask.bool()].numpy()
        rows = rows - rows.mean(0)
        return rows @ np.linalg.svd(rows, full_matrices=False)[2][: 16 if relevance else 8].T

    def scale_of(rows):
        return np.ones(rows.shape[1]) if relevance else rows.std(0)

    *parts, target = map(directions, names)
    X = np.concatenate([part / scale_of(part) for part in parts], 1)
    Y, owner = target / scale_of(target), np.repeat(range(5), [part.shape[1] for part in parts])
    columns = []
    for y in Y.T:
        alpha = 0.2 * np.abs(X.T @ y).max() / len(X)
        lasso = Lasso(alpha=alpha, fit_intercept=False, tol=1e-12, max_iter=10**6)
        columns.append(lasso.fit(X, y).coef_)
    blocks = [np.array(columns).T[owner == i] for i in range(5)]
    norms = [np.linalg.norm(block) for block in blocks]
    said = [X[:, owner == i] @ block * scale_of(target) for i, block in enumerate(blocks)]
    shares = [np.linalg.norm(part) / np.linalg.norm(target) for part in said]
    found = component_lasso(tiny, TwoTokens(), strength=0.2, relevance=relevance)
    got = np.zeros(graph.allowed.shape)
    edges = found.edges
    got[edges["source"], edges["target"] - 1] = edges["weight"]
    # Principal directions of float32 outputs that are run in another batch.
    want = shares if relevance else norms
    np.testing.assert_allclose(got[:5, graph.reader("m0")], want, rtol=1e-3, atol=1e-4)
    assert max(shares) > 0.2
    if not relevance:  # the published score is the strength itself
        assert (edges["weight"] == edges["score"]).all()


def test_relevance_is_shared_out_by_strength_squared(tiny):
    graph, found = graph_of(tiny), component_lasso(tiny, TwoTokens(), relevance=True)
    last = found.edges[found.edges["target"] == len(graph.writers)]
    share = np.square(last["weight"].astype(float))
    np.testing.assert_allclose(last["score"], share / share.sum(), atol=1e-6)
    assert found.settings["method"] == "CircuitLasso over components, scored by relevance"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": 0.0}, r"strength must be in \(0, 1\]"),
        ({"strength": "weak"}, "strength must be"),
        ({"n_prompts": 0}, "n_prompts must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"seed": None}, "seed must be a whole number"),
        ({"task": ["a text"]}, "task must be a Task"),
        ({"model": TwoTokens()}, "model must be a Model"),
    ],
)
def test_wrong_arguments_are_refused(tiny, arguments, message):
    with pytest.raises(InputError, match=message):
        component_lasso(**({"model": tiny, "task": TwoTokens()} | arguments))

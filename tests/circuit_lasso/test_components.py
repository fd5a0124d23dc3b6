"""Observed activations: strengths are those of the regressions, relevance is shared out."""

import numpy as np
import pytest
import torch

from circuit_toolkit.circuit.components import edge_scores
from circuit_toolkit.circuit_lasso.components import (
    _directions,
    _outputs,
    _strengths,
    component_lasso,
)
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.components import run_components
from circuit_toolkit.models.graph import graph_of
from tests.attribution.prompt_pairs import TwoTokens
from tests.circuit_lasso.linear import linear_model, values


def test_parents_of_a_chain_are_found():
    model = linear_model()
    graph = graph_of(model)
    scores = edge_scores(component_lasso(model, values()), graph)
    assert scores[:, -1].argmax() == graph.writer("m0")
    alike = [scores[graph.writer(name), graph.reader("m0")] for name in ("a0.h0", "a0.h1")]
    # to whichever of the two the lasso gives it
    assert sum(alike) > 10 * scores[0, graph.reader("m0")]


def test_heads_are_explained_by_what_stands_at_other_tokens():
    """The head writes the mean over three tokens: one of them is a third of its variance."""
    model = linear_model()
    graph = graph_of(model)
    found = edge_scores(component_lasso(model, values(), strength=0.001), graph)
    # Two directions, each of one standard deviation, are told but for the penalty by two of the
    # embedding's means, whose own deviation is about .58 of that of a token's.
    assert found[graph.writer("embed"), graph.reader("a0.h0")] > 1.3


def test_edges_can_be_confirmed_by_patching():
    model = linear_model()
    plain, tested = (component_lasso(model, values(), confirm=c) for c in (False, True))
    assert set(plain.edges["status"]) == {"untested"} and "confirmed" not in plain.settings
    table = tested.edge_table().query("status == 'confirmed'")
    kept = set(zip(table["source"], table["target"], strict=True))
    assert kept == {("embed", "a0.h0"), ("a0.h0", "m0"), ("m0", "target:values")}


def test_edges_are_possible_ones_and_batches_do_not_matter(tiny):
    one = component_lasso(tiny, TwoTokens())
    two = component_lasso(tiny, TwoTokens(), batch_size=3)
    a, b = (edge_scores(circuit, graph_of(tiny)) for circuit in (one, two))
    assert not a[~graph_of(tiny).allowed.numpy()].any() and (a > 0).any()
    np.testing.assert_allclose(a, b, atol=0.05 * a.max())  # few rows leave a lasso some choice
    assert {"strength", "seed", "seconds"} <= set(one.settings)


def test_strengths_are_those_of_scikit_learns_lasso(tiny):
    """What m0 writes, on what embed and the heads before it write."""
    from sklearn.linear_model import Lasso

    graph, batch = graph_of(tiny), tiny.tokenize(TwoTokens().clean)
    with torch.no_grad():
        outputs = run_components(tiny, batch).outputs.double()
    names = ["embed", "a0.h0", "a0.h1", "a0.h2", "a0.h3", "m0"]

    def directions(name):
        rows = outputs[:, graph.writer(name)][batch.mask.bool()].numpy()
        rows = rows - rows.mean(0)
        return rows @ np.linalg.svd(rows, full_matrices=False)[2][:8].T

    *parts, target = map(directions, names)
    X = np.concatenate([part / part.std(0) for part in parts], 1)
    Y, owner = target / target.std(0), np.repeat(range(5), [part.shape[1] for part in parts])
    columns = []
    for y in Y.T:
        alpha = 0.2 * np.abs(X.T @ y).max() / len(X)
        lasso = Lasso(alpha=alpha, fit_intercept=False, tol=1e-12, max_iter=10**6)
        columns.append(lasso.fit(X, y).coef_)
    blocks = [np.array(columns).T[owner == i] for i in range(5)]
    norms = [np.linalg.norm(block) for block in blocks]
    found = component_lasso(tiny, TwoTokens(), strength=0.2)
    got = np.zeros(graph.allowed.shape)
    edges = found.edges
    got[edges["source"], edges["target"] - 1] = edges["weight"]
    # Principal directions of float32 outputs that are run in another batch.
    np.testing.assert_allclose(got[:5, graph.reader("m0")], norms, rtol=1e-3, atol=1e-4)
    assert max(norms) > 0.2
    assert (edges["weight"] == edges["score"]).all()


def test_rows_that_are_there_several_times_change_nothing(tiny):
    """More rows than columns are solved on as many rows as columns."""
    graph = graph_of(tiny)
    X, part = _outputs(tiny, TwoTokens(), graph, None, None, progress=False)
    assert len(X) < X.shape[1]
    again = np.tile(X, (1 + X.shape[1] // len(X), 1))
    found = [_strengths(graph, each, part, 0.1) for each in (X, again)]
    # Both are certified to 1e-7 of the penalty.
    np.testing.assert_allclose(*found, atol=1e-5)


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


@pytest.mark.parametrize("shape", [(9, 40), (40, 9)])
def test_directions_are_principal_whether_rows_or_columns_are_more(shape):
    x = torch.randn(shape, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    along = (x - x.mean(0)) @ _directions(x)
    U = torch.linalg.svd(x - x.mean(0), full_matrices=False)[0][:, : along.shape[1]]
    # Each column is a left singular vector, the least first, but for its length and sign.
    cosines = (along / along.norm(dim=0) * U.flip(1)).sum(0).abs()
    torch.testing.assert_close(cosines, torch.ones_like(cosines), rtol=0, atol=1e-10)

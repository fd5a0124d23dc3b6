"""Edges of large models: candidates are measured, all others keep what gradients say."""

import numpy as np
import pytest
import torch

from circuit_toolkit.attribution.edges import edge_attributions
from circuit_toolkit.circuit.components import edge_scores
from circuit_toolkit.circuit_lasso import randomised_edges
from circuit_toolkit.circuit_lasso.randomised_edges import randomised_lasso
from circuit_toolkit.circuit_lasso.screened_edges import candidates
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.patching.confirmation import SMALLEST, shares
from circuit_toolkit.patching.effects import effects_and_whole
from circuit_toolkit.tasks.prompt_pairs import tokenized_pairs
from tests.attribution.prompt_pairs import TwoTokens

SIZE, DRAWS = 12, 20


def test_candidates_are_measured_and_others_keep_their_gradients(tiny):
    task, graph = TwoTokens(), graph_of(tiny)
    found = randomised_lasso(tiny, task, swap="corrupted", screened=SIZE, draws=DRAWS)
    scores = edge_scores(found, graph)
    gradients = edge_attributions(tiny, task).abs().mean(0).double()
    flat = gradients[graph.allowed]
    leading = flat.argsort(descending=True)[: round(0.75 * SIZE)].tolist()
    status = dict(zip(zip(*_ends(found), strict=True), found.edges["status"], strict=True))
    tested = [i for i, edge in enumerate(graph.edges) if status[edge] != "untested"]
    assert len(tested) == SIZE == found.settings["tested"] and set(leading) <= set(tested)
    pairs = tokenized_pairs(tiny, task)
    each, whole = effects_and_whole(tiny, task, pairs, [[graph.edges[i]] for i in tested], "change")
    mine = scores[graph.allowed.numpy()]
    np.testing.assert_allclose(mine[tested], each.mean(0), rtol=1e-4, atol=1e-4)
    rest = np.setdiff1d(np.arange(len(mine)), tested)
    np.testing.assert_allclose(mine[rest], flat[rest], rtol=1e-4, atol=1e-5)
    ratio = shares(each.double().numpy(), whole.double().numpy(), len(graph.edges))
    held = [status[graph.edges[i]] == "confirmed" for i in tested]
    assert held == (ratio[:, 1] > SMALLEST).tolist()
    assert found.settings["screened"] == SIZE and found.settings["draws"] == DRAWS


def _ends(circuit):
    labels = np.array([*circuit.nodes["label"][:-1], "logits"])
    return labels[circuit.edges["source"]].tolist(), labels[circuit.edges["target"]].tolist()


def test_relevance_names_what_gradients_do_not(tiny):
    graph = graph_of(tiny)
    gradients, relevance = torch.zeros(2, *graph.allowed.shape).unbind()
    order = torch.randperm(len(graph.edges), generator=torch.Generator().manual_seed(0))
    gradients[graph.allowed] = order.float()
    relevance[graph.allowed] = order.flip(0).float()
    got = candidates(graph, gradients, relevance, 8)
    assert got[:6].tolist() == order.argsort(descending=True)[:6].tolist()
    others = [i for i in order.flip(0).argsort(descending=True).tolist() if i not in got[:6]]
    assert got[6:].tolist() == others[:2]


def test_large_models_are_screened_by_default(tiny, monkeypatch):
    monkeypatch.setattr(randomised_edges, "LARGE", 50)
    monkeypatch.setattr(randomised_edges, "SCREENED", 9)
    found = randomised_lasso(tiny, TwoTokens(), swap="corrupted", draws=4)
    assert found.settings["screened"] == 9
    for options in ({"swap": "prompt"}, {"swap": "corrupted", "confirm": False}):
        task = TwoTokens()
        assert "screened" not in randomised_lasso(tiny, task, draws=4, **options).settings
    with pytest.raises(InputError, match="needs swap='corrupted'"):
        randomised_lasso(tiny, TwoTokens(), screened=5)

"""Random swaps find what a linear model uses, what patching finds, and nothing in noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuit_toolkit.circuit.components import edge_scores
from circuit_toolkit.circuit_lasso import randomised_edges
from circuit_toolkit.circuit_lasso.components import component_lasso
from circuit_toolkit.circuit_lasso.edge_design import experiment
from circuit_toolkit.circuit_lasso.randomised_edges import (
    at_operating_point,
    component_relevance,
    component_weights,
    dependent,
    edge_lasso,
    randomised_lasso,
    ranked_circuit,
)
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.components import run_components
from circuit_toolkit.models.graph import Graph, graph_of
from circuit_toolkit.patching import confirmation
from circuit_toolkit.patching.effects import (
    activation_patching,
    edge_patching,
    effects_and_whole,
    patching_effects,
)
from circuit_toolkit.regression.solvers.nonnegative import nonnegative_lasso
from tests.attribution.prompt_pairs import TwoTokens
from tests.circuit_lasso.linear import linear_model, values


def table(circuit, model):
    graph = graph_of(model)
    scores = edge_scores(circuit, graph)
    return {(a, b): scores[graph.writer(a), graph.reader(b)] for a, b in graph.edges}


@pytest.mark.parametrize("swap", ["prompt", "corrupted"])
@pytest.mark.parametrize("method", [randomised_lasso, edge_lasso])
def test_edges_of_a_linear_model_are_found_and_no_others(method, swap):
    model, task = linear_model(), values()
    found = method(model, task, swap=swap, operating_point=True)
    kept = {edge for edge, score in table(found, model).items() if score}
    assert kept == {("embed", "a0.h0"), ("a0.h0", "m0"), ("m0", "logits")}
    every = table(method(model, task, swap=swap), model)
    true = min(every[edge] for edge in kept)
    assert all(score < 0.1 * true for edge, score in every.items() if edge not in kept)


def test_a_linear_models_effects_are_analytic():
    model, task = linear_model(), values(1000)
    clean = run_components(model, model.tokenize(task.clean))
    twins = run_components(model, model.tokenize(task.corrupted))
    graph = graph_of(model)
    difference = (twins.outputs - clean.outputs)[:, graph.writer("a0.h0")]  # (n, T, D)
    expected = float((difference @ linear_reads(model)).flatten(1).norm(dim=1).mean())
    data = experiment(model, task, "direct", swap="corrupted", rho=0.2, draws=3)
    S = nonnegative_lasso(data.bits, data.responses, allowed=graph.allowed)
    got = float(S[graph.writer("a0.h0"), graph.reader("m0")])
    assert got == pytest.approx(expected, rel=0.1)  # 600 swaps


def linear_reads(model):
    """What the MLP makes of a step along each dimension, (8, 2)."""
    mlp = model.hf.blocks[0].mlp
    with torch.no_grad():
        return (mlp(torch.eye(8)) - mlp(torch.zeros(8)))[:, 6:]


def test_what_is_ignored_moves_nothing_at_all():
    model = linear_model()
    graph, data = graph_of(model), experiment(linear_model(), values(), "direct")
    others = [graph.writer(name) for name in ("embed", "a0.h1")]
    alone = (data.bits[:, graph.writer("a0.h0")] == 0) & (data.bits[:, others].sum(1) > 0)
    assert alone.sum() > 50
    assert data.responses[alone, graph.reader("m0")].abs().max() == 0
    assert data.responses[~alone, graph.reader("m0")].max() > 0.1


def test_observation_cannot_tell_twins_apart_and_random_swaps_can():
    seen, swapped = [], []
    for name in ("a0.h0", "a0.h1"):
        model = linear_model(name)
        observed = table(component_lasso(model, values()), model)
        seen.append([observed["a0.h0", "m0"], observed["a0.h1", "m0"]])
        found = table(randomised_lasso(model, values()), model)
        swapped.append([found["a0.h0", "m0"], found["a0.h1", "m0"]])
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-3, atol=1e-4)
    (a, b), (c, d) = swapped
    assert a > 0.9 and d > 0.9 and b < 0.01 and c < 0.01


def test_edge_design_estimates_what_edge_patching_measures(tiny):
    task = TwoTokens()
    exact = edge_scores(
        edge_patching(tiny, task, response="change", swap="corrupted"), graph_of(tiny)
    )
    data = experiment(tiny, task, "edge", swap="corrupted", rho=1 / 40, draws=160)
    found = np.zeros_like(exact)
    found[graph_of(tiny).allowed] = nonnegative_lasso(data.bits, data.responses)[:, 0]
    allowed = graph_of(tiny).allowed.numpy()
    strongest = exact >= np.sort(exact[allowed])[-5]
    np.testing.assert_allclose(found[strongest], exact[strongest], rtol=0.35)
    assert np.corrcoef(found[allowed], exact[allowed])[0, 1] > 0.95


def test_draws_of_the_edge_design_swap_every_edge_once(tiny):
    data = experiment(tiny, TwoTokens(), "edge", swap="corrupted", rho=0.25, draws=4)
    for prompt in range(4):
        assert (data.bits[data.prompts == prompt].sum(0) == 1).all()


def test_a_prompt_alone_in_its_length_is_left_as_it_is(tiny):
    data = experiment(tiny, TwoTokens(), "direct", draws=3)  # prompt 1 is longer than the others
    alone = data.prompts == 1
    assert data.bits[alone].sum() == 0 and data.responses[alone].max() < 1e-5
    assert data.bits[~alone].sum() > 0
    other = TwoTokens(clean=TwoTokens().clean[:2], corrupted=TwoTokens().corrupted[:2])
    with pytest.raises(InputError, match="No two prompts of 'two tokens' are of one length"):
        experiment(tiny, other, "direct")


def test_runs_of_the_edge_design_are_those_of_edge_patching(tiny):
    graph, task = graph_of(tiny), TwoTokens()
    data = experiment(tiny, task, "edge", swap="corrupted", rho=0.25, draws=4)
    sets = [[graph.edges[edge] for edge in row.nonzero().flatten()] for row in data.bits]
    exact = patching_effects(tiny, task, sets, response="change")  # (4, 16): all prompts
    expected = exact[data.prompts, torch.arange(len(sets))]
    torch.testing.assert_close(data.responses[:, 0], expected, rtol=1e-4, atol=1e-4)


def test_components_swapped_alone_do_what_node_patching_measures(tiny):
    writers, task = graph_of(tiny).writers, TwoTokens()
    data = experiment(tiny, task, "direct", n_prompts=1, swap="corrupted", alone=len(writers))
    exact = activation_patching(tiny, task, n_prompts=1, response="change")
    expected = torch.tensor(exact.nodes["score"][:-1].astype(float))
    torch.testing.assert_close(data.alone, expected, rtol=1e-4, atol=1e-4)
    assert float(data.alone.max()) > 0.01
    assert experiment(tiny, task, "direct", swap="corrupted").alone is None


def unread_model():
    """Let the MLP read a0.h1 as well, ten times as strongly, to write what no logit reads."""
    model = linear_model()
    mlp = model.hf.blocks[0].mlp
    with torch.no_grad():
        mlp[0].weight.zero_()
        mlp[0].weight[0, 2:4] = torch.tensor([1.0, -1.0])
        mlp[0].weight[1, 4:6] = torch.tensor([10.0, 10.0])
        mlp[2].weight.zero_()
        mlp[2].weight[6, 0] = mlp[2].weight[7, 1] = 1.0
        model.hf.unembed.weight.zero_()
        model.hf.unembed.weight[0, 6] = 1.0
    return model


def test_what_moves_a_component_but_no_output_is_left_out(monkeypatch):
    model, task = unread_model(), values()
    true = {("embed", "a0.h0"), ("a0.h0", "m0"), ("m0", "logits")}
    found = randomised_lasso(model, task)
    kept = table(at_operating_point(found), model)
    assert {edge for edge, score in kept.items() if score} == true
    every = table(found, model)
    assert every["a0.h0", "m0"] > 0.85  # 1 but for what is spared for the rest
    assert 0 < every["a0.h1", "m0"] < 0.1  # ranked, since it is there
    monkeypatch.setattr(randomised_edges, "NECESSITY", 0)
    alike = randomised_lasso(model, task, confirm=False)
    assert table(alike, model)["a0.h1", "m0"] > 0.9  # about 100 to 1 in squares
    assert table(alike, model)["a0.h0", "m0"] < 0.1


def test_components_count_by_what_they_do_alone():
    alone = torch.tensor([4.0, 1.2, 0.0, 2.4])
    got = component_weights(alone, 0.3)
    torch.testing.assert_close(got, torch.tensor([1 / 1.09, 0.5, 0.0, 0.8]))
    torch.testing.assert_close(component_weights(1e-6 * alone, 0.3), got)
    assert (component_weights(torch.zeros(3), 0.3) == 1).all()


def test_batches_change_nothing_but_the_draws(tiny, monkeypatch):
    monkeypatch.setattr(randomised_edges, "NECESSITY", 0)
    options = {"swap": "corrupted", "draws": 60, "confirm": False}
    first = randomised_lasso(tiny, TwoTokens(), **options)
    second = randomised_lasso(tiny, TwoTokens(), batch_size=3, **options)
    a, b = (edge_scores(circuit, graph_of(tiny)) for circuit in (first, second))
    assert np.abs(a - b).max() < 0.2  # of 1; 240 runs


def test_relevance_is_shared_out_and_kept():
    graph = Graph(2, 2)
    S = torch.rand(graph.allowed.shape, generator=torch.Generator().manual_seed(0)) * graph.allowed
    S[:, graph.reader("a1.h0")] = 0  # nothing enters this one
    edges, relevance = component_relevance(graph, S)
    assert edges[:, -1].sum() == pytest.approx(1)
    for reader, name in enumerate(graph.readers[:-1]):
        out = float(edges[graph.writer(name)].sum())
        assert float(relevance[reader]) == pytest.approx(out)
        into = float(edges[:, reader].sum())
        assert into == pytest.approx(0 if name == "a1.h0" else out)
    ratio = edges[0, -1] / edges[1, -1]
    assert float(ratio) == pytest.approx(float((S[0, -1] / S[1, -1]) ** 2))
    both = component_relevance(graph, torch.stack([S, 2 * S]))[0]
    torch.testing.assert_close(both[0], both[1])


def test_shuffled_responses_give_an_empty_circuit(monkeypatch):
    """Relevance is shared out even so, and most of it may fall to one edge."""
    model, task = linear_model(), values(100)
    rng = np.random.default_rng(0)

    def shuffled_experiment(*args, **options):
        data = experiment(*args, **options)
        order = torch.from_numpy(rng.permutation(len(data.responses)))
        return replace(data, responses=data.responses[order])

    def shuffled_effects(model, task, pairs, sets, *args, **options):
        _, whole = effects_and_whole(model, task, pairs, sets, *args, **options)
        small = [0.1 * rng.permutation(whole.numpy()) for _ in sets]
        return torch.from_numpy(np.stack(small, 1)), whole

    monkeypatch.setattr(randomised_edges, "experiment", shuffled_experiment)
    monkeypatch.setattr(confirmation, "effects_and_whole", shuffled_effects)
    found = [randomised_lasso(model, task, seed=seed) for seed in range(10)]
    assert all(each.settings["tested"] for each in found)
    assert max(each.edges["score"].max() for each in found) > randomised_edges.MOST
    assert sum(each.settings["confirmed"] for each in found) <= 1  # of 10, 5 % of which may err


def test_what_others_make_up_for_is_kept_where_most_relevance_runs_through_it():
    """Patched alone it does nothing; what is swapped at random shows that it is used."""
    scores = torch.zeros(Graph(1, 2).allowed.shape)
    graph, model, task = Graph(1, 2), linear_model(), values()
    edge = graph.writer("a0.h1"), graph.reader("m0")
    scores[edge], sizes = 0.9, {"n_prompts": None, "batch_size": None, "progress": False}
    kept = []
    for sure in (None, scores > 0.5):
        found = ranked_circuit(model, task, scores, scores, {"seed": 0}, 0.0, sizes, 0.02, sure)
        kept.append(len(at_operating_point(found).edges))
        assert found.edges["weight"][0] == 0  # in truth m0 ignores it
    assert kept == [0, 1]


def test_dependence_is_that_of_least_squares():
    from scipy.stats import linregress

    rng = np.random.default_rng(0)
    bits = (rng.random((60, 5)) < 0.4).astype(float)
    responses = rng.random((60, 3)) + 0.25 * bits[:, :3]
    got = dependent(torch.tensor(bits), torch.tensor(responses), 2)
    for i in range(5):
        rest = np.c_[np.ones(60), np.delete(bits, i, 1)]  # Frisch and Waugh: take the others out
        for j in range(3):
            x, y = (v - rest @ np.linalg.lstsq(rest, v)[0] for v in (bits[:, i], responses[:, j]))
            said = linregress(x, y)
            error = said.stderr * (58 / 54) ** 0.5  # five coefficients more
            assert bool(got[i, j]) == (said.slope / error > 2.005)  # t(54), 2.5 %
    assert got[0, 0] and 0 < got.sum() < 10


def test_seeds_decide_everything(tiny):
    tables = [
        edge_scores(randomised_lasso(tiny, TwoTokens(), draws=20, seed=seed), graph_of(tiny))
        for seed in (0, 0, 1)
    ]
    assert (tables[0] == tables[1]).all() and (tables[0] != tables[2]).any()


def test_settings_are_kept_and_checked(tiny):
    found = randomised_lasso(tiny, TwoTokens(), draws=5)
    for key in ("method", "swap", "draws", "seed", "seconds", "tested", "confirmed"):
        assert key in found.settings
    assert found.settings["method"] == "randomised lasso"
    cut = at_operating_point(found)
    assert len(cut.edges) == found.settings["confirmed"] and len(cut.nodes) == len(found.nodes)
    for bad, text in (
        ({"swap": "zero"}, "swap must be"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"n_prompts": "all"}, "n_prompts must be a whole number"),
    ):
        with pytest.raises(InputError, match=text):
            randomised_lasso(tiny, TwoTokens(), **bad)
    with pytest.raises(InputError, match="model must be a Model.*another order"):
        randomised_lasso(found, tiny)
    with pytest.raises(InputError, match="circuit must be a Circuit"):
        at_operating_point(tiny)
    exact = edge_patching(tiny, TwoTokens(), n_prompts=1)
    with pytest.raises(InputError, match="no operating point"):
        at_operating_point(exact)

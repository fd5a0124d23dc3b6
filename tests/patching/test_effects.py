"""Exact patching is what a GPT-2 written out head by head does, and adds up as it must."""

import numpy as np
import pytest
import torch

from circuit_toolkit.benchmark.trivial_baselines import empty_circuit, random_circuit
from circuit_toolkit.circuit.components import edge_scores
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.components import run_components
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.patching.effects import (
    activation_patching,
    edge_patching,
    patching_effects,
)
from circuit_toolkit.tasks.prompt_pairs import tokenized_pairs
from tests.attribution.prompt_pairs import CLEAN, TwoTokens
from tests.models.test_components import head_by_head
from tests.tiny import tiny_hf

TOL = 2e-4  # float32: logits of size 100, differences of them times up to 4


@pytest.fixture(scope="module")
def graph(tiny):
    return graph_of(tiny)


def written_out(tiny, number, edges):
    """Change of the metric on one prompt, by runs of the written-out model."""
    task, module = TwoTokens(), tiny_hf()
    ids = [tiny.tokenize([texts[number]]).ids[0] for texts in (task.clean, task.corrupted)]
    with torch.no_grad():
        theirs, _ = head_by_head(module, ids[1], {})
        _, before = head_by_head(module, ids[0], {})
        added: dict[str, torch.Tensor] = {}
        for reader in dict.fromkeys(reader for _, reader in edges):  # in order of computation
            fresh, _ = head_by_head(module, ids[0], added)
            added[reader] = sum(theirs[w] - fresh[w] for w, r in edges if r == reader)
        _, after = head_by_head(module, ids[0], added)
    metric = [task.metric_of(logits[None], [number]) for logits in (after, before)]
    return float(metric[0] - metric[1])


SETS = [
    [("embed", "a0.h1")],
    [("m0", "m2")],
    [("a1.h2", "logits")],
    [("a0.h1", "a2.h3")],
    [("embed", "a0.h0"), ("a0.h0", "a1.h1")],  # the second sees what the first has changed
    [("embed", "a0.h0"), ("embed", "m0"), ("m0", "m1"), ("a0.h0", "m1"), ("m1", "logits")],
]


def test_sets_of_edges_are_what_the_written_out_model_gives(tiny):
    got = patching_effects(tiny, TwoTokens(), SETS)
    want = [[written_out(tiny, n, edges) for edges in SETS] for n in range(len(CLEAN))]
    assert np.abs(want).min() > 5 * TOL
    assert (got - torch.tensor(want)).abs().max() <= TOL


def test_all_edges_out_of_a_node_are_the_node(tiny, graph):
    """Its module's output is replaced by a hook that knows nothing of edges."""
    task, hf = TwoTokens(), tiny.hf
    pairs = tokenized_pairs(tiny, task)
    theirs = run_components(tiny, pairs.corrupted).outputs
    mine = run_components(tiny, pairs.clean)
    before = task.metric_of(mine.logits, range(4))
    found = activation_patching(tiny, task, average="absolute mean")
    scores = dict(zip(graph.writers, found.nodes["score"][:-1].tolist(), strict=True))
    modules = {
        "embed": hf.transformer.drop,  # token and position
        "m1": hf.transformer.h[1].mlp,
        "a1.h2": hf.transformer.h[1].attn.c_proj,  # its output holds all heads
        "a0.h0": hf.transformer.h[0].attn.c_proj,
    }
    for name, module in modules.items():
        number = graph.writer(name)
        change = theirs[:, number] - mine.outputs[:, number]
        handle = module.register_forward_hook(lambda _m, _i, out, change=change: out + change)
        try:
            after = run_components(tiny, pairs.clean).logits
        finally:
            handle.remove()
        want = float((task.metric_of(after, range(4)) - before).mean().abs())
        assert scores[name] == pytest.approx(want, abs=TOL), name
    assert len(found.edges) == 0 and found.settings["method"] == "node patching"


def test_all_edges_at_once_are_the_other_prompt(tiny, graph):
    task = TwoTokens()
    got = patching_effects(tiny, task, [graph.edges, []])
    pairs = tokenized_pairs(tiny, task)
    clean, corrupted = (
        task.metric_of(run_components(tiny, batch).logits, range(4))
        for batch in (pairs.clean, pairs.corrupted)
    )
    assert (got[:, 0] - (corrupted - clean)).abs().max() <= TOL
    assert got[:, 1].abs().max() <= TOL  # nothing was patched


def test_a_circuit_holds_every_edge_alone(tiny, graph):
    task = TwoTokens()
    effects = patching_effects(tiny, task, [[edge] for edge in graph.edges])
    for average, want in [
        ("mean of absolutes", effects.abs().mean(0)),
        ("absolute mean", effects.mean(0).abs()),
    ]:
        found = edge_patching(tiny, task, average=average, batch_size=7)
        got = edge_scores(found, graph)[graph.allowed.numpy()]
        assert np.abs(got - want.numpy()).max() <= TOL
    assert found.settings["n_prompts"] == 4 and found.settings["seconds"] > 0
    weight = {(a, b): w for a, b, w, *_ in found.edges.tolist()}
    edge = (graph.writer("m0"), graph.reader("m2") + 1)
    mean = float(effects[:, graph.edges.index(("m0", "m2"))].mean())
    assert weight[edge] == pytest.approx(mean, abs=TOL)


def test_some_edges_are_as_they_are_among_all(tiny, graph):
    edges = [("a0.h1", "m2"), ("embed", "logits"), ["m0", "a1.h2"]]
    every, some = (
        edge_scores(edge_patching(tiny, TwoTokens(), edges=each), graph) for each in (None, edges)
    )
    at = tuple(np.array([(graph.writer(a), graph.reader(b)) for a, b in edges]).T)
    assert np.abs(some[at] - every[at]).max() <= TOL and (every[at] > 10 * TOL).all()
    assert np.count_nonzero(some) == 3


@pytest.mark.parametrize("edges", ["a0.h1", [("m0", "m1", "m2")], [("m0", 1)], 3])
def test_edges_that_are_no_pairs_of_names_are_refused(tiny, edges):
    with pytest.raises(InputError, match="pairs of names of components"):
        edge_patching(tiny, TwoTokens(), edges=edges)


def test_change_is_the_tasks_own(tiny):
    measured = patching_effects(tiny, TwoTokens(), SETS)
    changed = patching_effects(tiny, TwoTokens(), SETS, response="change", n_prompts=3)
    assert changed.shape == (3, len(SETS))
    assert (changed - measured[:3].abs()).abs().max() <= TOL


def test_another_prompt_of_the_same_length(tiny):
    texts = (CLEAN[0], CLEAN[2], CLEAN[3], CLEAN[1], CLEAN[1])
    task = TwoTokens(clean=texts, corrupted=texts[::-1][2:] + texts[:2])
    with pytest.raises(InputError, match="different length"):
        tokenized_pairs(tiny, task)
    task = TwoTokens(clean=texts, corrupted=texts)
    partners = tokenized_pairs(tiny, task).partners(seed=0)
    assert sorted(partners.tolist()) == [0, 1, 2, 3, 4]
    assert set(partners[:3].tolist()) == {0, 1, 2} and (partners != torch.arange(5)).all()
    got = patching_effects(tiny, task, SETS, swap="other", seed=0)
    swapped = TwoTokens(clean=texts, corrupted=tuple(texts[i] for i in partners))
    assert (got - patching_effects(tiny, swapped, SETS)).abs().max() <= TOL
    assert got[:3].abs().max() > 0.01 and got[3:].abs().max() <= TOL  # twice the same text
    with pytest.raises(InputError, match="only one of"):
        edge_patching(tiny, TwoTokens(), swap="other")


def test_random_and_empty_circuits(tiny, graph):
    one, same, other = (random_circuit(tiny, TwoTokens(), seed=seed) for seed in (0, 0, 1))
    assert (edge_scores(one, graph) == edge_scores(same, graph)).all()
    scores = edge_scores(one, graph)[graph.allowed.numpy()]
    assert len(one.edges) == len(graph.edges) == len(np.unique(scores))
    assert 0.4 < scores.mean() < 0.6 and (scores != edge_scores(other, graph)[graph.allowed]).any()
    assert len(empty_circuit(tiny, TwoTokens()).edges) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sets": [[("m2", "a0.h1")]]}, "a0.h1 is not computed after m2"),
        ({"sets": [[("m0", "m1")] * 2]}, "twice"),
        ({"sets": [[("m7", "m1")]]}, "no component"),
        ({"swap": "zero"}, "swap must be"),
        ({"response": "loss"}, "response"),
        ({"n_prompts": 0}, "n_prompts"),
        ({"batch_size": -1}, "batch_size"),
    ],
)
def test_what_cannot_be_is_refused(tiny, options, message):
    with pytest.raises(InputError, match=message):
        patching_effects(tiny, TwoTokens(), **({"sets": SETS} | options))
    with pytest.raises(InputError, match="corrupted prompt for each"):
        patching_effects(tiny, TwoTokens(corrupted=()), SETS)


@pytest.mark.parametrize("name", ["siit/18", "siit/3"])
def test_edges_of_known_circuits_cost_the_accuracy_that_the_benchmark_states(shared_data, name):
    from circuit_toolkit.benchmark.interpbench.cases import read_case

    case = read_case(shared_data / "known_circuits" / name)
    stated = case.config["circuit"]["single_edge_ablation"]

    class Accuracy(TwoTokens):
        def metric_of(self, logits, rows):
            return case.task.metric_of(logits, rows)

        def change(self, logits, reference, rows):
            return case.task.correct(logits, rows)

    task = Accuracy(clean=case.task.clean, corrupted=case.task.corrupted)
    sets = [[tuple(edge.split("->"))] for edge in stated["edges"]]
    got = patching_effects(
        case.model, task, sets, n_prompts=stated["pairs"], response="change"
    ).mean(0)
    want = [accuracy for accuracy, _ in stated["edges"].values()]
    assert (100 * got).tolist() == pytest.approx(want, abs=0.006)  # stated with two digits
    assert min(want) < 70

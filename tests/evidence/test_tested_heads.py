"""Circuits of heads: the smallest that holds, with paths that are those of path patching."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import circuit_toolkit as ct
from circuit_toolkit.attribution.heads import best_score, head_scores
from circuit_toolkit.circuit.components import head_circuit, head_nodes
from circuit_toolkit.circuit.tables import new_edges
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.head_paths import LEAST_SHARE, draw_paths
from circuit_toolkit.evidence.tested_heads import find_heads, head_curve
from circuit_toolkit.models import load_model
from circuit_toolkit.patching.paths import path_effects, path_patching
from tests.families import WORDS, random_model, word_tokenizer


@pytest.fixture(scope="module")
def tasks(demo):
    make = ct.tasks.agreement
    return make(demo, n=32, seed=0), make(demo, n=32, seed=1, test=True)


@pytest.fixture(scope="module")
def found(demo, tasks):
    return find_heads(demo, *tasks, random_sets=4, progress=False)


def test_the_smallest_circuit_holds_on_held_out_prompts_with_every_path_tested(found):
    assert found.verdict == "sufficient and necessary"
    size, ablation = found.evidence["size"], found.evidence["ablation"]
    assert size["reached"] and size["size"] == len(found.nodes) - 1 == ablation["size"]
    both = zip(size["faithfulness"], size["completeness"], strict=True)
    holds = [F >= 0.8 and C <= 0.2 for F, C in both]
    assert holds == [False] * (size["size"] - 1) + [True]
    assert set(found.edges["status"]) == {"confirmed"}
    assert (found.edges["low"] > 0).all() and (found.edges["high"] >= found.edges["weight"]).all()
    on = found.evidence["edges"]["evaluated_on"]
    assert on["split"] == "held-out" and on["seen"] == 0 and on["n"] == 32
    lines = found.summary()
    n = size["size"]
    assert f"size: {n} heads, the smallest that holds on 32 training prompts" in lines
    assert any(line.startswith("edges, each path patched alone on 32 held-out") for line in lines)


def test_heads_are_those_of_the_scores(demo, tasks, found):
    scores = head_scores(demo, tasks[0], "attribution patching", progress=False)
    best = np.argsort(-scores.ravel())[: len(found.nodes) - 1]
    names = {"a{}.h{}".format(*divmod(int(i), demo.n_heads)) for i in best}
    assert set(found.nodes["label"][:-1]) == names


def test_a_path_is_that_of_path_patching_through_all_mlps(demo, tasks):
    task, mlps = tasks[0], [f"m{layer}" for layer in range(demo.n_layers)]
    paths = [("a3.h3", "a5.h2"), ("a3.h3", "logits"), ("a0.h7", "a3.h3"), ("a5.h2", "a3.h3")]
    effects, change = path_effects(demo, task, paths, batch_size=20, progress=False)
    for (sender, receiver), effect in zip(paths, effects.T, strict=True):
        one = path_patching(demo, task, sender, receiver, through=mlps, progress=False)
        np.testing.assert_allclose(effect, one.effect, atol=1e-4)  # float32, metric of size 10
    whole = ct.intervene(demo, list(task.corrupted), [], progress=False)
    after = task.score(whole.logits, range(len(task), 2 * len(task)))
    before = ct.intervene(demo, task, [], progress=False).metric
    np.testing.assert_allclose(change, after - before, atol=1e-4)


def test_paths_that_carry_little_are_not_drawn_and_a_wrong_sign_is_refuted(demo, tasks):
    scores = head_scores(demo, tasks[0], progress=False)
    circuit = head_circuit(scores, {"target": "logit_difference"}, n_heads=8)
    assert set(circuit.edges["status"]) == {"untested"} and len(circuit.edges) == 8
    drawn = draw_paths(circuit, demo, tasks[0], progress=False)
    assert 3 <= len(drawn.edges) < 8 * 7 / 2 + 8
    assert (abs(drawn.edges["weight"]) >= LEAST_SHARE).all()
    turned = drawn.edges.copy()
    turned["weight"][0] *= -1
    tested = ct.confirm_edges(
        replace(drawn, edges=turned), demo, None, tasks[1], n_prompts=32, progress=False
    )
    assert tested.edges["status"][0] == "refuted"
    assert tested.evidence["edges"]["refuted"] >= 1
    assert tested.evidence["edges"]["confirmed"] >= len(drawn.edges) - 2


def test_a_random_set_of_heads_is_never_the_circuit(demo, tasks):
    one = ct.Circuit(head_nodes([(3, 3)], [1.0], "target"), new_edges(0), {"level": "heads"})
    held = ct.evaluate(one, demo, None, tasks[1], draws=60, n_prompts=8, progress=False)
    ablation = held.evidence["ablation"]  # of 60 sets of 1 of 48 one or two would be the circuit
    assert max(ablation["random_faithfulness"]) < ablation["faithfulness"]


def test_without_held_out_prompts_it_stays_untested(demo, tasks):
    circuit = find_heads(demo, tasks[0], by="change towards the answer", progress=False)
    assert circuit.verdict == "untested" and set(circuit.edges["status"]) == {"untested"}
    assert circuit.settings["method"] == "heads by change towards the answer"


def test_where_no_circuit_holds_the_largest_is_returned(demo, tasks):
    circuit = find_heads(
        demo, tasks[0], faithfulness=1, completeness=0, max_heads=2, progress=False
    )
    assert not circuit.evidence["size"]["reached"] and len(circuit.nodes) == 3
    assert "size: 2 heads, none up to this size holds on 32 training prompts" in circuit.summary()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, t: find_heads(m, t, by="codes"), "by must be one of"),
        (lambda m, t: find_heads(m, t, max_heads=0), "max_heads must be at least 1"),
        (lambda m, t: find_heads(m, replace(t, corrupted=())), "corrupted prompts to score heads"),
        (lambda m, t: head_scores(m, t, by="size"), "by must be one of"),
        (
            lambda m, t: find_heads(m, replace(t, clean=t.corrupted, corrupted=t.clean)),
            "no better than with every head ablated",
        ),
    ],
)
def test_what_cannot_be_is_refused(demo, tasks, call, message):
    with pytest.raises(InputError, match=message):
        call(demo, tasks[0])


def test_only_circuits_of_heads_have_paths(demo, tasks):
    features = ct.Circuit(
        np.concatenate([head_nodes([(0, 0)], [1.0], "x")[-1:]]), new_edges(0), {"level": "heads"}
    )
    with pytest.raises(InputError, match="circuit of heads with one target"):
        draw_paths(features, demo, tasks[0])


def test_heads_that_share_keys_have_paths():
    model = load_model(random_model("llama"), word_tokenizer())
    texts = [(f"{WORDS[i]} cat sat", f"{WORDS[i + 7]} cat sat") for i in range(6)]
    for one, other in ((0, 1), (1, 0)):  # the model is random: it does one of the two
        pairs = [(each[one], each[other], "the", "a") for each in texts]
        task = ct.Task.from_pairs(model, pairs)
        try:
            circuit = find_heads(model, task, task, random_sets=2, progress=False)
        except InputError as error:
            assert "no better than" in str(error)
            continue
        assert circuit.settings["method"] == "heads by attribution patching"
        assert len(circuit.edges) and circuit.evidence["edges"]
        assert set(circuit.edges["status"]) <= {"confirmed", "refuted", "untested"}
        assert circuit.verdict != "untested"
        return
    raise AssertionError("neither way was done")


def test_heads_without_inputs_of_their_own_are_found_without_paths():
    """One norm over the keys of all heads: no gradients to own inputs, and no paths."""
    model = load_model(random_model("qwen3"), word_tokenizer())
    model.hf.model.layers[0].self_attn.k_norm.weight = torch.nn.Parameter(torch.ones(24))
    assert best_score(model) == "change towards the answer"
    with pytest.raises(InputError, match="one norm takes the keys of all heads together"):
        path_effects(model, ct.tasks.ioi(ct.load_model("demo"), n=2), [("a0.h0", "a1.h0")])


@pytest.mark.parametrize(
    ("enough", "most", "size", "tried"),
    [
        (1, 24, 1, [1]),
        (5, 24, 5, [1, 2, 3, 4, 5, 6]),  # 6 holds, then the sizes below it
        (10, 24, 10, [1, 2, 3, 4, 6, 8, 9, 10, 12]),
        (9, 5, 5, [1, 2, 3, 4, 5]),  # none up to the largest holds
    ],
)
def test_the_smallest_size_that_holds_is_found_by_coarse_steps_then_fine(
    demo, tasks, monkeypatch, enough, most, size, tried
):
    def ablated(model, task, heads, kept=False):
        holds = len(heads) >= enough
        return np.array([1.0 if holds == kept else 0.0]) if heads else np.array([float(not kept)])

    monkeypatch.setattr("circuit_toolkit.evidence.tested_heads.heads_ablated", ablated)
    scores = np.arange(1.0, 49).reshape(6, 8)
    curve = head_curve(demo, tasks[0], scores, (0.8, 0.2), most)
    assert (curve["size"], curve["sizes"]) == (size, tried)
    assert curve["reached"] is (enough <= most)

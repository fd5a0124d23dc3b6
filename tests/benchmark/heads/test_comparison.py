"""Scores of heads against the truth, as scikit-learn has them, and methods side by side."""

from __future__ import annotations

import numpy as np
import pytest

import circuit_toolkit as ct
from circuit_toolkit.attribution.edges import attribution_patching
from circuit_toolkit.benchmark.heads.comparison import (
    compare_heads,
    head_agreement,
    head_edges,
    pair_auc,
)
from circuit_toolkit.circuit.components import component_circuit
from circuit_toolkit.errors import InputError
from circuit_toolkit.head_codes import HeadCodes
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.patching.effects import activation_patching
from tests.tiny import task_it_does

SHAPE = (3, 4)


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(0).random(SHAPE) < 0.4


def test_agreement_is_that_of_sklearn(truth):
    from sklearn import metrics

    each = np.random.default_rng(1).integers(0, 5, (4, *SHAPE)).astype(float)  # with ties
    found = head_agreement(each, truth)
    auc = [metrics.roc_auc_score(truth.ravel(), one.ravel()) for one in each]
    ap = [metrics.average_precision_score(truth.ravel(), one.ravel()) for one in each]
    assert found["node_auc"] == pytest.approx(np.mean(auc))
    assert found["node_auc_spread"] == pytest.approx(np.std(auc))
    assert found["node_ap"] == pytest.approx(np.mean(ap))
    assert found["node_ap_spread"] == pytest.approx(np.std(ap))


@pytest.mark.parametrize("budget", [None, 2, 7])
def test_precision_recall_and_f1_are_the_real_ones(truth, budget):
    from sklearn import metrics

    scores = np.random.default_rng(2).random(SHAPE)
    k = int(truth.sum()) if budget is None else budget
    chosen = scores.ravel() >= np.sort(scores.ravel())[-k]
    found = head_agreement(scores, truth, budget)
    flat = truth.ravel()
    assert found["precision"] == pytest.approx(metrics.precision_score(flat, chosen))
    assert found["recall"] == pytest.approx(metrics.recall_score(flat, chosen))
    assert found["f1"] == pytest.approx(metrics.f1_score(flat, chosen))


def test_any_rising_map_of_the_scores_leaves_the_agreement(truth):
    scores = np.random.default_rng(3).random(SHAPE)
    assert head_agreement(scores, truth) == head_agreement(np.exp(3 * scores), truth)


@pytest.mark.parametrize("value", [True, False])
def test_a_truth_that_tells_nothing_apart_is_refused(value):
    with pytest.raises(InputError, match="nothing can be told apart"):
        head_agreement(np.zeros(SHAPE), np.full(SHAPE, value))


def test_another_models_truth_is_refused(truth):
    with pytest.raises(InputError, match=r"\(3, 5\)"):
        head_agreement(np.zeros((3, 5)), truth)


def test_the_strongest_edges_between_heads_by_hand(tiny):
    graph = graph_of(tiny)
    strong = {("a0.h1", "a1.h2.v"): 3.0, ("a0.h0", "a2.h3.q"): 2.0, ("m0", "a1.h0.k"): 9.0}
    names = set(graph.readers)
    if not {"a1.h2.v", "a2.h3.q"} <= names:  # heads read once, not by query, key and value
        strong = {(a, b.rsplit(".", 1)[0]): score for (a, b), score in strong.items()}
    scores = np.zeros(graph.allowed.shape)
    for (a, b), score in strong.items():
        scores[graph.writer(a), graph.reader(b)] = score
    circuit = component_circuit(graph, scores, {})
    found = head_edges(circuit, *SHAPE, strongest=5)
    assert sorted(np.argwhere(found).tolist()) == [[0, 11], [1, 6]]  # the MLP's is none of heads
    one = head_edges(circuit, *SHAPE, strongest=1)
    assert np.argwhere(one).tolist() == [[1, 6]]


@pytest.fixture(scope="module")
def task() -> ct.Task:
    names = ("Mary", "Tom", "Anna", "Paul", "Lucy", "John")
    texts = [f"when {a} and {b} went to the store, {a} gave a drink to" for a in names for b in "x"]
    texts = [text.replace(" x ", f" {names[(i + 1) % 6]} ") for i, text in enumerate(texts)]
    twins = [text.replace("store", "park").replace("drink", "ring") for text in texts]
    return task_it_does(texts, twins)


@pytest.fixture(scope="module")
def compared(tiny, task):
    truth = np.zeros(SHAPE, dtype=bool)
    truth[0, 1] = truth[2, 3] = True
    edges = np.zeros((12, 12), dtype=bool)
    edges[1, 11] = True
    codes = HeadCodes(n_features=12, n_train=3, n_seeds=2, steps=5)
    return compare_heads(tiny, task, truth, codes, edges=edges), truth, edges


def test_methods_stand_side_by_side_with_what_they_use(compared):
    found, truth, edges = compared
    rows = {row["method"]: row for row in found.rows}
    assert set(rows) == set(found.scores)
    assert rows["activation patching"]["uses"] == "interventions"
    assert rows["attribution patching"]["uses"] == "gradients"
    assert {row["uses"] for name, row in rows.items() if "patching" not in name} == {"activations"}
    for name, scores in found.scores.items():
        assert head_agreement(scores, truth)["node_auc"] == rows[name]["node_auc"]
    assert rows["head codes"]["edge_auc"] == pair_auc(found.fit, edges)
    assert rows["layer index"]["edge_auc"] is None
    np.testing.assert_array_equal(found.scores["head codes"], found.fit.per_seed)
    assert found.table()["node_auc"].is_monotonic_decreasing


def test_baselines_are_what_they_are_called(tiny, task, compared):
    found, *_ = compared
    acts = ct.capture(tiny, "head_out", task, "last", progress=False)
    x = np.stack([m.toarray().reshape(12, 4, -1) for m in acts.features.values()], 1)
    x = x - x.mean(3, keepdims=True)  # (prompts, L, H, D)
    moved = x[:6] - x[6:]
    pairs = np.linalg.norm(moved, axis=3).mean(0)
    np.testing.assert_allclose(found.scores["difference of pairs"][0], pairs, rtol=1e-5)
    means = np.linalg.norm(moved.mean(0), axis=2)
    np.testing.assert_allclose(found.scores["difference of means"][0], means, rtol=1e-4, atol=1e-6)
    rows = tiny.hf.lm_head.weight.detach() * tiny.hf.transformer.ln_f.weight.detach()
    along = np.zeros((6, 3, 4))
    for i in range(6):
        right, wrong = (rows[each[i][0]].numpy() for each in (task.answers, task.wrong))
        along[i] = moved[i] @ (right - wrong)
    share = np.abs(along.mean(0)) / np.linalg.norm(x, axis=3).mean(0)
    np.testing.assert_allclose(found.scores["change towards the answer"][0], share, rtol=1e-4)
    assert found.scores["layer index"][0].tolist() == [[0] * 4, [1] * 4, [2] * 4]
    for name, circuit in (
        ("activation patching", activation_patching(tiny, task)),
        (
            "attribution patching",
            attribution_patching(tiny, task, average="mean of absolutes"),
        ),
    ):
        by_label = dict(zip(circuit.nodes["label"], circuit.nodes["score"], strict=True))
        expected = [[by_label[f"a{layer}.h{head}"] for head in range(4)] for layer in range(3)]
        np.testing.assert_allclose(found.scores[name][0], expected, rtol=1e-5)


def test_interventions_can_be_left_out(tiny, task, compared):
    _, truth, _ = compared
    codes = HeadCodes(n_features=12, n_train=3, n_seeds=1, steps=2)
    found = compare_heads(tiny, task, truth, codes, interventions=False)
    assert not [row for row in found.rows if row["uses"] != "activations"]

"""Scores of structure are what scikit-learn says, and what can be counted by hand."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from circuit_toolkit.benchmark.metrics import (
    at_budget,
    average_precision,
    hamming,
    oracle_threshold,
    roc_auc,
)
from circuit_toolkit.benchmark.truth import against, truth_of
from circuit_toolkit.circuit.components import component_circuit
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.intervals import bootstrap, paired
from circuit_toolkit.models.graph import Graph

GRAPH = Graph(1, 2)
UNIVERSE = [
    ("embed", "a0.h0"), ("embed", "a0.h1"), ("embed", "m0"), ("a0.h0", "m0"), ("a0.h1", "m0"),
    ("a0.h0", "logits"), ("a0.h1", "logits"), ("m0", "logits"),
]  # fmt: skip
TRUE = [("embed", "a0.h1"), ("a0.h1", "m0"), ("m0", "logits")]


def compared(scores, **settings):
    """Scores of a circuit with these scores of edges, against the truth."""
    matrix = np.zeros(tuple(GRAPH.allowed.shape))
    for (writer, reader), score in scores.items():
        matrix[GRAPH.writer(writer), GRAPH.reader(reader)] = score
    truth = truth_of(GRAPH, TRUE, universe=UNIVERSE)
    return against(component_circuit(GRAPH, matrix, settings), truth)


def drawn(n, ties, seed):
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.3
    truth[:2] = True, False
    scores = rng.integers(0, 5, n).astype(float) if ties else rng.random(n)
    return truth, scores


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("n", [2, 7, 60])
def test_rankings_agree_with_sklearn(n, ties):
    for seed in range(20):
        truth, scores = drawn(n, ties, seed)
        assert roc_auc(truth, scores) == pytest.approx(roc_auc_score(truth, scores))
        assert average_precision(truth, scores) == pytest.approx(
            average_precision_score(truth, scores)
        )


@pytest.mark.parametrize("ties", [True, False])
def test_distances_agree_with_trying_all_thresholds(ties):
    for seed in range(20):
        truth, scores = drawn(12, ties, seed)
        levels = [*np.unique(scores), 0.0]
        ways = {level: int((truth != (scores > level)).sum()) for level in levels}
        share, best = oracle_threshold([truth], [scores])
        threshold = share * scores.max()
        chosen = scores / scores.max() > share
        assert best == min(ways.values()) == hamming(truth, chosen)
        assert threshold == pytest.approx(max(at for at, found in ways.items() if found == best))


def test_a_common_threshold_is_one_share_of_the_largest_score_for_all():
    truth = [np.array([True, False, False]), np.array([True, True, False])]
    scores = [np.array([10.0, 4.0, 1.0]), np.array([1.0, 0.5, 0.1])]
    assert oracle_threshold(truth, scores) == (0.4, 0.0)  # .5 is above, .4 is not
    scores[1] = np.array([1.0, 0.4, 0.1])  # now the two cannot both be right
    assert oracle_threshold(truth, scores)[1] == 0.5


def test_budgets_take_ties_by_their_mean():
    truth = np.array([True, False, True, False, True])
    scores = np.array([3.0, 2.0, 2.0, 2.0, 0.0])
    for budget, extra in [(1, 0), (2, 1), (3, 2), (4, 3)]:
        ways = [{0, *more} for more in combinations((1, 2, 3), extra)]
        hits = np.mean([truth[list(way)].sum() for way in ways])
        got = at_budget(truth, scores, budget)
        assert got.precision == pytest.approx(hits / budget)
        assert got.recall == pytest.approx(hits / 3)
    assert at_budget(truth, scores, 9) == at_budget(truth, scores, 4)  # 0 is never chosen
    assert at_budget(truth, scores, 0) == (1.0, 0.0, 0.0)
    assert at_budget(truth, np.array([0, 1.0, 0, 0, 0]), 1) == (0.0, 0.0, 0.0)


def test_perfect_scores():
    got = compared({edge: 1.0 + i for i, edge in enumerate(TRUE)})
    assert [got[name] for name in ("edge_auroc", "edge_ap", "node_auroc", "node_ap")] == [1] * 4
    assert got["shd_best"] == 0 and got["shd_empty"] == 3
    assert got["shd"] is None and got["n_edges"] is None  # no operating point was said


def test_an_empty_graph_is_a_trivial_baseline():
    got = compared({})
    assert got["edge_auroc"] == got["node_auroc"] == 0.5
    assert got["edge_ap"] == pytest.approx(3 / 8) and got["node_ap"] == pytest.approx(2 / 3)
    assert got["shd"] == got["shd_best"] == got["shd_empty"] == 3 and got["n_edges"] == 0


def test_the_opposite_of_the_truth():
    got = compared({edge: 1.0 for edge in UNIVERSE if edge not in TRUE})
    assert got["edge_auroc"] == 0 and got["shd_best"] == 3


def test_nodes_score_by_their_strongest_edge():
    # True nodes a0.h1 and m0 get 3, both below a0.h0 with 4.
    got = compared({("a0.h0", "logits"): 4.0, ("a0.h1", "m0"): 3.0})
    assert got["node_auroc"] == 0


def test_rankings_without_two_classes_are_nan():
    assert np.isnan(roc_auc(np.array([True, True]), np.ones(2)))
    assert np.isnan(average_precision(np.array([False]), np.ones(1)))


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"\('m0', 'm9'\) is true, but no edge that counts"):
        truth_of(GRAPH, [("m0", "m9")], universe=UNIVERSE)
    with pytest.raises(InputError, match="no edge"):
        truth_of(GRAPH, [], universe=UNIVERSE)
    with pytest.raises(InputError, match="one shape"):
        roc_auc(np.ones(8, bool), np.ones(7))
    with pytest.raises(InputError, match="0 or more"):
        average_precision(np.ones(8, bool), -np.ones(8))
    with pytest.raises(InputError, match="budget"):
        at_budget(np.ones(2, bool), np.ones(2), -1)


def test_bootstrap_of_a_mean_is_near_the_normal_interval():
    values = np.random.default_rng(1).normal(2, 3, 400)
    got = bootstrap(values, draws=4000)
    error = values.std() / 400**0.5
    assert got.value == pytest.approx(values.mean())
    assert got.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert got.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert bootstrap(values, draws=50, seed=3) == bootstrap(values, draws=50, seed=3)


def test_bootstrap_takes_whole_rows():
    prompts = np.random.default_rng(0).random((30, 8))  # effects of 8 edges
    truth = np.arange(8) < 3
    got = bootstrap(prompts, lambda rows: roc_auc(truth, rows.mean(0)), draws=100)
    assert got.low <= got.value <= got.high and got.value == roc_auc(truth, prompts.mean(0))
    constant = bootstrap(np.ones(5))
    assert constant == (1, 1, 1)
    with pytest.raises(InputError, match="at least one row"):
        bootstrap(np.empty((0, 3)))


def test_two_methods_on_the_same_cases():
    got = paired(np.arange(6) + 1.0, np.arange(6.0))
    assert got.difference == (1, 1, 1) and got.p_value == pytest.approx(2 / 2**6)
    even = paired(np.array([1.0, 2, 3, 4]), np.array([2.0, 1, 4, 3]))
    assert even.difference.value == 0 and even.p_value == 1
    rng = np.random.default_rng(0)
    ps = [paired(rng.normal(size=40), rng.normal(size=40), draws=200).p_value for _ in range(200)]
    assert np.mean(np.array(ps) <= 0.2) == pytest.approx(0.2, abs=0.09)  # three standard errors
    with pytest.raises(InputError, match="one shape"):
        paired(np.ones(3), np.ones(4))

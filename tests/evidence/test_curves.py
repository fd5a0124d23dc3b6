"""Curves have the ends that their definition gives them, and equal interventions in between."""

from dataclasses import replace

import numpy as np
import pytest

from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.attribution.features import feature_attribution
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.component_faithfulness import KeptEdges
from circuit_toolkit.evidence.curves import FRACTIONS, FaithfulnessCurve, faithfulness
from circuit_toolkit.interventions import intervene, mean_ablation
from circuit_toolkit.sites import Site
from tests.tiny import FEATURES, TEXTS, residual_sites, task_it_does

SITES = residual_sites()


@pytest.fixture(scope="module")
def task():
    return task_it_does([text for text in TEXTS if " " in text])


@pytest.fixture(scope="module")
def saes(tiny_saes):
    return {site: tiny_saes[site] for site in SITES}


@pytest.fixture(scope="module")
def acts(tiny, task, saes):
    return capture(tiny, saes, task, progress=False)


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(0)
    return {site: rng.random(FEATURES) for site in SITES}


def firing(acts):
    return sum(len(np.unique(matrix.indices)) for matrix in acts.features.values())


def test_all_features_are_faithful_and_none_are_not(tiny, saes, task, acts, scores):
    total = firing(acts)
    curve = faithfulness(scores, tiny, saes, task, acts, sizes=[0, 20, total], draws=2)
    np.testing.assert_allclose(curve.faithfulness[[0, -1]], [0, 1], atol=1e-4)
    np.testing.assert_allclose(curve.completeness[0], 1, atol=1e-4)
    np.testing.assert_allclose(curve.random_faithfulness[:, [0, -1]], [[0, 1]] * 2, atol=1e-4)
    np.testing.assert_allclose(curve.completeness[-1], 0, atol=1e-4)
    assert np.abs(curve.faithfulness[1]) > 0.01 and curve.fractions[-1] == 1


def test_a_point_of_the_curve_is_an_intervention(tiny, saes, task, acts, scores):
    curve = faithfulness(scores, tiny, saes, task, acts, sizes=[30], draws=0)
    rank = []
    for site in SITES:
        fires = np.unique(acts.features[site].indices)
        rank += [(scores[site][feature], site, feature) for feature in fires]
    best = sorted(rank, key=lambda each: -each[0])[:30]
    kept = {site: np.array([f for _, s, f in best if s == site], int) for site in SITES}

    def metric(changes):
        return intervene(tiny, task, changes, dictionaries=saes).metric.double().mean()

    full, empty = metric([]), metric(mean_ablation(acts, {}, complement=True))
    inside = metric(mean_ablation(acts, kept, complement=True))
    others = {
        site: np.setdiff1d(np.unique(acts.features[site].indices), kept[site]) for site in SITES
    }
    outside = metric(mean_ablation(acts, others, complement=True))
    np.testing.assert_allclose(curve.faithfulness, [(inside - empty) / (full - empty)], atol=1e-5)
    np.testing.assert_allclose(curve.completeness, [(outside - empty) / (full - empty)], atol=1e-5)


def made_up(inside, fractions=(0.0, 0.5, 1.0)):
    n = 10
    inside = np.outer(inside, np.ones(n))
    return FaithfulnessCurve(
        np.arange(len(fractions)),
        np.array(fractions),
        inside,
        inside,
        np.full(n, 4.0),
        np.full(n, 2.0),
        np.empty((0, len(fractions), n)),
        {
            "evaluated_on": {"metric": "m", "task": "t"},
            **{"ablation": "mean", "ablated_positions": "all", "of": "features"},
        },
    )


def test_areas_are_those_of_a_drawing_by_hand():
    curve = made_up([2.0, 5.0, 4.0])  # F = 0, 1.5, 1
    assert curve.faithfulness.tolist() == [0, 1.5, 1]
    np.testing.assert_allclose(curve.cpr, 0.5 * (0 + 1.5) / 2 + 0.5 * (1.5 + 1) / 2)
    np.testing.assert_allclose(curve.cmd, 0.5 * (1 + 0.5) / 2 + 0.5 * (0.5 + 0) / 2)


def test_intervals_hold_the_value_and_shrink_with_more_prompts():
    rng = np.random.default_rng(0)
    wide = []
    for n in (10, 1000):
        curve = replace(made_up([3.0]), inside=3 + rng.normal(size=(1, n)), full=np.full(n, 4.0))
        curve = replace(curve, empty=np.full(n, 2.0), fractions=np.array([0.3]))
        (found,) = curve.intervals()
        assert found.low < found.value < found.high
        wide.append(found.high - found.low)
    assert wide[1] < wide[0] / 5


def test_the_default_sizes_are_those_of_mib_and_the_table_says_all(tiny, saes, task, acts, scores):
    curve = faithfulness(scores, tiny, saes, task, acts, draws=1)
    total = firing(acts)
    assert curve.sizes.tolist() == sorted({max(1, round(f * total)) for f in FRACTIONS})
    table = curve.table()
    assert len(table) == len(curve.sizes) and not table.isna().any().any()
    assert (table["low"] <= table["faithfulness"]).all()
    assert (
        "mean ablation of features at all positions, logit_difference of easy, 3 prompts"
        in repr(curve)
    )


def test_a_circuit_counts_by_its_scores_and_the_seed_decides_the_rest(tiny, saes, task, acts):
    circuit = feature_attribution(tiny, saes, task, min_active=1, max_features=10)
    table = {site: np.zeros(FEATURES) for site in SITES}
    for name, feature, score in circuit.nodes[["site", "index", "score"]][:-1].tolist():
        table[Site.parse(name)][feature] = score
    sizes = [3, 10]
    one = faithfulness(circuit, tiny, saes, task, acts, sizes=sizes, draws=1)
    two = faithfulness(table, tiny, saes, task, acts, sizes=sizes, draws=1)
    np.testing.assert_array_equal(one.inside, two.inside)
    np.testing.assert_array_equal(one.random, two.random)
    three = faithfulness(circuit, tiny, saes, task, acts, sizes=sizes, draws=1, seed=1)
    np.testing.assert_array_equal(one.inside, three.inside)
    assert not np.array_equal(one.random, three.random)


def test_ablations_at_the_last_token_touch_it_alone(tiny, saes, task, scores):
    curve = faithfulness(scores, tiny, saes, task, positions="last", sizes=[5], draws=0)
    everywhere = faithfulness(scores, tiny, saes, task, sizes=[5], draws=0)
    assert curve.settings["ablated_positions"] == "last"
    assert not np.allclose(curve.empty, everywhere.empty)


def test_what_has_no_curve_is_refused(tiny, saes, task, acts, scores):
    with pytest.raises(InputError, match="sizes must be from 0 to"):
        faithfulness(scores, tiny, saes, task, acts, sizes=[10_000])
    with pytest.raises(InputError, match="which is not among"):
        faithfulness({Site("resid_mid", 0): np.ones(3)}, tiny, saes, task, acts)
    with pytest.raises(InputError, match="No dictionary was given"):
        faithfulness(scores, tiny, {SITES[0]: saes[SITES[0]]}, task, acts)
    none = replace(task, metric=None, answers=(), wrong=())
    with pytest.raises(InputError, match="labels alone"):
        faithfulness(scores, tiny, saes, none, acts)


def test_kept_edges_say_what_was_ablated():
    rows = np.zeros((3, 2))
    kept = KeptEdges((1, 4), {"ours": rows, "random": rows}, np.ones(3), np.zeros(3), 9)
    assert repr(kept) == (
        "KeptEdges(ours, random; 1 to 4 edges kept of 9, all others carry the corrupted run, "
        "3 prompts)"
    )

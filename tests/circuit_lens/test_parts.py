"""Drawing examples, what stands out, distances and clusters: each by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuit_toolkit.attribution.frozen.linear import ActiveFeatures
from circuit_toolkit.circuit_lens.activating_examples import sample_examples, sampling_weights
from circuit_toolkit.circuit_lens.clusters import (
    cluster_labels,
    common_elements,
    jaccard_distances,
)
from circuit_toolkit.circuit_lens.outliers import feature_outliers, head_outliers
from circuit_toolkit.circuit_lens.outputs import influence


def test_weights_fall_with_the_count_of_a_bin():
    values = np.array([0.1] * 50 + [0.45] * 5 + [1.0])  # bins 1, 3 and 5 of (0, 1]
    weights = sampling_weights(values, bins=5, alpha=0.9)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] / weights[-1] == pytest.approx(50**-0.9)
    assert weights[50] / weights[-1] == pytest.approx(5**-0.9)
    mass = [weights[:50].sum(), weights[50:55].sum(), weights[55:].sum()]  # n_bin ** 0.1
    np.testing.assert_allclose(np.array(mass) / mass[2], [50**0.1, 5**0.1, 1])


def test_a_value_on_an_edge_is_in_the_bin_below_it():
    weights = sampling_weights(np.array([0.5, 0.5, 0.6, 1.0]), bins=2, alpha=1)
    np.testing.assert_allclose(weights, 0.25)  # two in (0, .5], two in (.5, 1]


def test_a_draw_has_no_duplicates_and_is_that_of_its_seed():
    values = np.random.default_rng(1).exponential(size=500)
    drawn = sample_examples(values, 100, seed=3)
    assert len(drawn) == len(set(drawn.tolist())) == 100
    np.testing.assert_array_equal(drawn, sample_examples(values, 100, seed=3))
    assert (drawn != sample_examples(values, 100, seed=4)).any()
    # the tail is drawn far more often than its share
    high = values > values.max() / 2
    assert high[drawn].mean() > 2 * high.mean()
    np.testing.assert_array_equal(sample_examples(values[:40], 100), np.arange(40))


def test_a_spike_among_equals_stands_out_by_its_reach():
    scores = torch.ones(2, 4, 6)
    scores[0, 3, 2] = 2
    mask = torch.ones(2, 6, dtype=torch.bool)
    found = head_outliers(scores, mask, 2.0)
    assert (found.row.tolist(), found.index.tolist(), found.source.tolist()) == ([0], [3], [2])
    assert float(found.z[0]) == pytest.approx(23 / 24**0.5)  # (n - 1) / sqrt(n), sample std
    mask[:, 4:] = False  # what an example does not see does not count: n = 16
    assert float(head_outliers(scores, mask, 2.0).z[0]) == pytest.approx(15 / 16**0.5, rel=1e-6)
    scores[0, 1, 5] = 1e6
    assert float(head_outliers(scores, mask, 2.0).z[0]) == pytest.approx(15 / 16**0.5, rel=1e-6)


def test_features_stand_out_among_the_active_ones_of_their_example():
    row = torch.tensor([0] * 10 + [1] * 3 + [2])
    value = torch.tensor([1.0] * 9 + [5.0] + [1.0, 2.0, 3.0] + [7.0])
    place, feature = torch.zeros(14, dtype=torch.long), torch.arange(14)
    found = feature_outliers(ActiveFeatures(row, place, feature, value), 4, 1.5)
    assert found.index.tolist() == [9]  # one alone, and none, stand out by nothing
    assert float(found.z[0]) == pytest.approx(9 / 10**0.5)
    assert float(found.value[0]) == 5


def test_influence_is_measured_against_the_vocabulary():
    added = torch.randn(2, 3, 50)
    follows = torch.tensor([[4, 5, 6], [7, 8, 9]])
    known = torch.tensor([[True, True, True], [True, False, False]])
    found = influence(added, follows, known)
    assert found.row.tolist() == [0, 0, 0, 1] and found.step.tolist() == [1, 2, 3, 1]
    assert found.token.tolist() == [4, 5, 6, 7]
    each = added[0, 1]
    assert float(found.z[1]) == pytest.approx(float((each[5] - each.mean()) / each.std()), rel=1e-5)
    assert float(found.value[3]) == float(added[1, 0, 7])


def test_jaccard_distances():
    sets = [frozenset("ab"), frozenset("ab"), frozenset("cd"), frozenset("bc")]
    sets += [frozenset(), frozenset()]
    distances = jaccard_distances(sets)
    np.testing.assert_array_equal(distances, distances.T)
    assert distances[0, 1] == 0 and distances[0, 2] == 1
    assert distances[0, 3] == pytest.approx(1 - 1 / 3)
    assert distances[4, 5] == 1 and distances[4, 4] == 0
    slow = [1 - len(a & b) / len(a | b) for a in sets[:4] for b in sets[:4]]
    np.testing.assert_allclose(distances[:4, :4].ravel(), slow)


def test_rare_elements_are_dropped():
    sets = [frozenset("ab"), frozenset("a"), frozenset("a"), frozenset("c")]
    kept = common_elements(sets, 0.5)
    assert kept == [frozenset("a")] * 3 + [frozenset()]
    assert common_elements(sets, 0.25) == sets


@pytest.mark.parametrize("min_samples", [2, 3, 5])
def test_the_published_labels_of_twelve_examples(min_samples):
    """Four sets are empty; the others share half of what they have (method card, 3.4)."""
    full = [frozenset({"a", "b", "c"}), frozenset({"a", "b", "d"})]  # distance .5
    sets = [frozenset() if i in (0, 1, 4, 5) else full[i % 2] for i in range(12)]
    distances = jaccard_distances(sets)
    labels = cluster_labels(sets, distances, eps=0.5, min_samples=min_samples)
    assert labels.tolist() == [-1, -1, 0, 0, -1, -1, 0, 0, 0, 0, 0, 0]
    apart = cluster_labels(sets, distances, eps=0.49, min_samples=min_samples)
    assert apart.tolist() != labels.tolist()
    # empty sets are noise even where every example is a cluster
    alone = cluster_labels(sets, distances, eps=1.0, min_samples=1)
    assert alone.tolist() == labels.tolist()


def test_the_largest_cluster_is_the_first():
    sets = [frozenset("a")] * 3 + [frozenset("b")] * 5 + [frozenset("c")]
    labels = cluster_labels(sets, jaccard_distances(sets), eps=0.5, min_samples=3)
    assert labels.tolist() == [1] * 3 + [0] * 5 + [-1]
    nothing = [frozenset()] * 4
    labels = cluster_labels(nothing, jaccard_distances(nothing), eps=0.5, min_samples=1)
    assert labels.tolist() == [-1] * 4

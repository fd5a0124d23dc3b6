"""Edges are held against exact patching: what does much is confirmed, what does little is not."""

import numpy as np
import pytest
import torch

from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.patching import confirmation
from circuit_toolkit.patching.confirmation import IN_A_ROW, SMALLEST, patched_alone, shares
from circuit_toolkit.patching.effects import patching_effects
from tests.attribution.prompt_pairs import TwoTokens
from tests.circuit_lasso.linear import linear_model, values

TRUE = [("embed", "a0.h0"), ("a0.h0", "m0"), ("m0", "logits")]
FALSE = [("embed", "a0.h1"), ("a0.h1", "m0"), ("embed", "m0"), ("a0.h0", "logits"),
         ("a0.h1", "logits"), ("embed", "logits")]  # fmt: skip


def alone(model, task, ranked, sure=None, **options):
    sure = np.zeros(len(ranked), dtype=bool) if sure is None else np.array(sure)
    return patched_alone(model, task, ranked, 9, sure=sure, **options)


@pytest.mark.parametrize("corrupted", [True, False])
def test_what_matters_in_a_planted_model_is_confirmed_and_nothing_else(corrupted):
    ranked = [FALSE[0], *TRUE, *FALSE[1:3]]
    found = alone(linear_model(), values(), ranked, corrupted=corrupted)
    assert (found[:, 1] > SMALLEST).tolist() == [False, True, True, True, False, False]
    np.testing.assert_allclose(found[1:4, 0], 1, atol=1e-5)  # a chain: each edge does it all
    np.testing.assert_allclose(found[[0, 4, 5]], 0, atol=1e-9)


def test_shares_are_those_of_exact_patching(tiny):
    graph, task = graph_of(tiny), TwoTokens()
    ranked = [("embed", "m0"), ("m0", "m2"), ("a0.h1", "logits")]
    found = alone(tiny, task, ranked)
    each = patching_effects(tiny, task, [[edge] for edge in ranked], response="change")
    whole = patching_effects(tiny, task, [graph.edges], response="change")
    want = each.square().mean(0) / whole.square().mean()
    torch.testing.assert_close(torch.tensor(found[:, 0]).float(), want, rtol=1e-3, atol=1e-6)
    assert (found[:, 1] < found[:, 0]).all() and (found[:, 0] < found[:, 2]).all()


def test_five_in_a_row_end_the_test(monkeypatch):
    monkeypatch.setattr(confirmation, "_AT_ONCE", 2)
    model, task = linear_model(), values(50)
    assert len(alone(model, task, [*FALSE, *TRUE])) == IN_A_ROW
    mixed = [*FALSE[:4], TRUE[0], *FALSE[4:], TRUE[1]]
    assert len(alone(model, task, mixed)) == len(mixed)
    sure = [False] * 3 + [True] + [False] * 5  # what is sure is no failure
    assert len(alone(model, task, [*FALSE, *TRUE], sure)) == 9
    assert alone(model, task, []).shape == (0, 3)


def test_the_error_is_that_of_all_tests_together():
    """Each of 20 edges does just the smallest effect: in one case of 20 one passes at most."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(400):
        whole = rng.gamma(4.0, size=200)
        each = np.sqrt(SMALLEST) * rng.permuted(np.tile(whole, (20, 1)), axis=1).T
        wrong += (shares(each, whole, 20)[:, 1] > SMALLEST).any()
    assert wrong / 400 < 0.1  # skewed scatter is not quite Student's


def test_nothing_that_changes_and_one_prompt_confirm_nothing():
    assert (shares(np.ones((5, 2)), np.zeros(5), 2) == 0).all()
    (one,) = shares(np.ones((1, 1)), np.ones(1), 1)
    assert one.tolist() == [1, -np.inf, np.inf]


def test_a_prompt_alone_in_its_length_is_left_as_it_is(tiny):
    found = alone(tiny, TwoTokens(), [("m0", "m2")], corrupted=False)
    assert np.isfinite(found).all() and found[0, 0] > 0

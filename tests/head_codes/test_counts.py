"""Counting codes, against counts by hand and by sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuit_toolkit.head_codes.counts import (
    discrete_codes,
    heads_in_pairs,
    unique_codes,
    unique_pairs,
)


@pytest.fixture
def codes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 12, (15, 5)), rng.integers(0, 12, (10, 5))


def test_by_hand():
    positive, negative = np.array([[1], [2], [3]]), np.array([[3], [4]])
    assert unique_codes(positive, negative).tolist() == [2.0]


def test_counts_are_those_of_sets(codes):
    positive, negative = codes
    for head in range(5):
        ours, theirs = set(positive[:, head]), set(negative[:, head])
        assert unique_codes(positive, negative)[head] == len(ours - theirs)


def test_pairs_are_those_of_sets_of_pairs(codes):
    positive, negative = codes
    found = unique_pairs(positive, negative)
    for i in range(5):
        for j in range(5):
            ours = set(zip(positive[:, i].tolist(), positive[:, j].tolist(), strict=True))
            theirs = set(zip(negative[:, i].tolist(), negative[:, j].tolist(), strict=True))
            assert found[i, j] == (len(ours - theirs) if i != j else 0)
    alone = unique_codes(positive, negative)
    apart = ~np.eye(5, dtype=bool)
    assert (found >= np.maximum(alone[:, None], alone))[apart].all()
    assert found.max() <= len(positive)


def test_negatives_like_positives_leave_nothing(codes):
    positive, _ = codes
    assert not unique_codes(positive, positive).any()
    assert not unique_pairs(positive, positive).any()


def test_order_of_prompts_and_names_of_codes_do_not_matter(codes):
    positive, negative = codes
    names = np.random.default_rng(1).permutation(12)
    expected = unique_codes(positive, negative)
    np.testing.assert_array_equal(unique_codes(positive[::-1], negative), expected)
    np.testing.assert_array_equal(unique_codes(names[positive], names[negative]), expected)


def test_no_active_code_is_a_code_of_its_own_unless_the_published_form_is_asked_for():
    active = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.0, 0.1], [0.0, 0.0, 3.0]])
    assert discrete_codes(active).tolist() == [3, 0, 2]
    assert discrete_codes(active, own_code_for_none=False).tolist() == [0, 0, 2]


def test_heads_in_the_strongest_pairs_by_hand():
    pairs = np.array([[0.0, 5.0, 1.0], [5.0, 0.0, 2.0], [1.0, 2.0, 0.0]])
    # In order: (0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)
    assert heads_in_pairs(pairs).tolist() == [2, 2, 0]  # the first 9 // 2 of these heads

"""Samples of weights are taken within them, however large they are."""

import pytest
import torch

from circuit_toolkit.models.identity import SAMPLES, _some


@pytest.mark.parametrize("n", [1, 2, 500, 2**24 + 1, 28_311_552])  # float32 rounds the last up
def test_the_first_and_the_last_weight_of_any_size_are_among_the_samples(n):
    weight = torch.zeros(n, dtype=torch.int8)
    weight[0], weight[-1] = 3, 5
    found = _some(weight)
    assert len(found) == min(n, SAMPLES)
    assert found[0] == weight[0] and found[-1] == 5

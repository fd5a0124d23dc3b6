"""Every public method on CUDA, where there is one, gives what the CPU gives."""

from __future__ import annotations

import pytest

from tests.methods.cases import case_of
from tests.methods.numbers import distances, numbers
from tests.methods.table import METHODS, begin


@pytest.fixture(scope="module")
def cases():
    near = case_of("llama")
    begin(near)
    return near, case_of("llama", found=near.found, device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_method_runs_on_a_gpu(request, method):
    near, far = request.getfixturevalue("cases")
    share, _ = distances(numbers(method.call(far)), numbers(method.call(near)))
    assert share <= 1e-2 or method.unstable  # its products may be of lower precision

"""Every public method gives in bfloat16 what it gives in float32, to a few roundings.

On small random models of six families and on the bundled one; in float16 on the one family that
caps its logits.

A model computes in its own type, what is made of its activations in float32. A rounding is `eps` of
the type: 2^-7 and 2^-10. What adds up over a model (3 or 6 layers, some ten roundings each) is held
to 16 of them, as a share of the size of what was found; seen: up to 14, in most rows 1 to 3.
Effects are small differences of two runs, each as sure as its logits, so they are held to 4
roundings of the largest logit, shares of the metric to 4 of 1; seen: up to 2, and .6.
"""

from __future__ import annotations

import pytest
import torch

from circuit_toolkit.models import LOGITS, run
from tests.methods.cases import case_of
from tests.methods.numbers import assert_near, distances, numbers
from tests.methods.table import METHODS, begin

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3")
CASES = (
    *((name, torch.bfloat16) for name in (*FAMILIES, "demo")),
    ("gemma2", torch.float16),
)
ROUNDINGS = 16


@pytest.fixture(scope="module")
def exact_cases():
    return {}


@pytest.fixture(scope="module", params=CASES, ids=lambda p: f"{p[0]}-{str(p[1])[6:]}")
def cases(request, exact_cases):
    name, dtype = request.param
    if name not in exact_cases:
        exact_cases[name] = case_of(name)
        begin(exact_cases[name])
    return exact_cases[name], case_of(name, dtype, exact_cases[name].found)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_half_precision_is_near_float32(cases, method):
    exact, half = cases
    if method.small and not exact.small:
        pytest.skip("a run for each edge: on the small models")
    key = f"found by {method}"
    if key not in exact.found:
        exact.found[key] = numbers(method.call(exact))
    found = numbers(method.call(half))
    if method.unstable and exact.small:
        distances(found, exact.found[key])  # it runs, and what it finds is of the right form
    else:
        assert_near(method, found, exact.found[key], exact, half.model.dtype, ROUNDINGS)


def test_what_is_read_is_of_full_precision_and_where_inputs_are(cases):
    half = cases[1]
    batch = half.model.tokenize(half.task.clean)
    assert half.model.dtype in (torch.bfloat16, torch.float16)
    plain = run(half.model, batch, [half.first, LOGITS])
    assert {value.dtype for value in plain.values()} == {torch.float32}
    same = run(half.model, batch, [LOGITS], {half.first: torch.clone})
    assert torch.equal(same[LOGITS], plain[LOGITS]), "writing what was read changes nothing"

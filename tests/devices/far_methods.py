"""Every public method on another device, and on a model split over two; run by `test_devices`.

Each gives what the CPU gives.

To float32 rounding, which sums in another order change: seen up to 1e-5, held to 1e-4.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch

from tests.devices.pretend import device, split
from tests.methods.cases import case_of, random_case
from tests.methods.numbers import distances, numbers
from tests.methods.table import METHODS, begin

device()  # before the first gradient
ROUNDING = 1e-4
FAR = ("model.norm", "lm_head")  # with all blocks but the first


@pytest.fixture(scope="module")
def near():
    case = case_of("llama")
    begin(case)
    return case


@pytest.fixture(scope="module", params=["one device", "split"])
def far(request, near):
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a parameter changes class
    if request.param == "split":
        case = random_case("llama", place=partial(split, blocks="model.layers", rest=FAR))
        assert {each.device.type for each in case.model.hf.parameters()} == {"cpu", "pretend"}
    else:
        case = random_case("llama", device=device())
        assert case.model.device == device()
    case.found.update(near.found)
    yield case
    torch.__future__.set_overwrite_module_params_on_conversion(before)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_method_runs_on_another_device(near, far, method):
    found, key = numbers(method.call(far)), f"found by {method}"
    if key not in near.found:
        near.found[key] = numbers(method.call(near))
    assert distances(found, near.found[key])[0] <= ROUNDING


def test_the_pretend_device_refuses_what_a_real_one_refuses():
    there, here = torch.ones(3, 3).to(device()), torch.ones(3, 3)
    for mixed in (lambda: there + here, lambda: there @ here, lambda: here[there[0].long()]):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    with pytest.raises(RuntimeError, match="numpy"):
        there.numpy()
    assert (there[torch.tensor([0, 2])] * 2 + torch.tensor(1.0)).cpu().eq(3).all()
    assert torch.arange(3, device=device()).shape == (3,)

"""Methods over components in bfloat16 and float16 are near what they are in float32.

Gradient methods multiply what was rounded once, to 8 bits or 11. Patching subtracts two logits that
were rounded, each up to 15 here: by .06 in bfloat16, by .008 in float16, beside effects near 1.
"""

import copy

import numpy as np
import pytest
import torch

from circuit_toolkit.attribution.heads import head_scores
from circuit_toolkit.benchmark.methods import METHODS
from circuit_toolkit.circuit.components import edge_scores
from circuit_toolkit.models import load_model
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.patching.paths import path_patching
from circuit_toolkit.tasks import Task
from tests.benchmark.test_families import PAIRS
from tests.families import random_model, word_tokenizer

HALVES = (torch.bfloat16, torch.float16)
GRADIENTS = {torch.bfloat16: 0.05, torch.float16: 0.01}  # of the largest score
DIFFERENCES = {torch.bfloat16: 0.25, torch.float16: 0.06}
FEW = {"randomised_lasso": {"draws": 16}, "edge_lasso": {"draws": 16}}


@pytest.fixture(scope="module", params=["gpt2", "qwen3", "gemma2"])
def models(request):
    module = random_model(request.param)
    return {
        dtype: load_model(copy.deepcopy(module).to(dtype), word_tokenizer())
        for dtype in (torch.float32, *HALVES)
    }


def scores(name, model):
    task = Task.from_pairs(model, PAIRS)
    found = METHODS[name](model, task, progress=False, **FEW.get(name, {}))
    edges = edge_scores(found, graph_of(model))
    return edges if edges.any() else found.nodes["score"]


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("random", "empty")])
def test_a_method_is_near_float32(models, name):
    by_gradients = name == "attribution_patching" or name.startswith(("eap", "gim"))
    want = scores(name, models[torch.float32])
    for dtype in HALVES:
        got, tol = scores(name, models[dtype]), (GRADIENTS if by_gradients else DIFFERENCES)[dtype]
        assert np.abs(got - want).max() <= tol * want.max(), dtype
        assert np.corrcoef(got.ravel(), want.ravel())[0, 1] >= 1 - tol / 5, dtype


def test_paths_and_scores_of_heads_are_near_float32(models):
    found = {
        dtype: (
            path_patching(model, task, "embed", "m2", through=["m0"], progress=False).effect,
            path_patching(model, task, "m0", "logits", value="mean", progress=False).effect,
            torch.from_numpy(head_scores(model, task, progress=False)),
        )
        for dtype, model in models.items()
        for task in [Task.from_pairs(model, PAIRS)]
    }
    for dtype in HALVES:
        for got, want in zip(found[dtype], found[torch.float32], strict=True):
            assert (got - want).abs().max() <= DIFFERENCES[dtype] * want.abs().max(), dtype

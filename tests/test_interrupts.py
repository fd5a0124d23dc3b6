"""An interrupt in a long call leaves a session that is as it was, and the call can be made again.

It comes in a forward pass, or in a step of a bar: the first, the middle one, the last.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tqdm.auto import tqdm

import circuit_toolkit as ct
from circuit_toolkit.dictionaries import train_dictionaries
from circuit_toolkit.models.ports import ONE_RUN
from circuit_toolkit.progress import Bar
from circuit_toolkit.weight_lens import WeightLens


def interrupted_at(patch, number):
    """Interrupt at that step, the first of which is 1; return the steps so far."""
    seen = []

    def interrupting(original):
        def step(*args, **more):
            seen.append(original)
            if len(seen) == number:
                raise KeyboardInterrupt
            return original(*args, **more)

        return step

    patch.setattr(torch.nn.LayerNorm, "forward", interrupting(torch.nn.LayerNorm.forward))
    patch.setattr(Bar, "update", interrupting(Bar.update))
    return seen


def state(model):
    """All that a call could leave behind: hooks, modes, gradients, weights."""
    module = model.hf
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "hooks": [len(getattr(each, name)) for each in module.modules() for name in hooks],
        "own": [sorted(vars(each)) for each in module.modules()],
        "training": [each.training for each in module.modules()],
        "wants": [each.requires_grad for each in module.parameters()],
        "gradients": [each.grad is not None for each in module.parameters()],
        "weights": [float(each.double().sum()) for each in module.parameters()],
        "enabled": torch.is_grad_enabled(),
        "random": torch.get_rng_state().tolist(),
    }


def table(circuit):
    return circuit.edge_table().to_csv() + circuit.node_table().to_csv()


@pytest.fixture(scope="module")
def given(demo, demo_saes, demo_transcoders):
    saes = {site: demo_saes[site] for site in list(demo_saes)[-2:]}
    task = ct.tasks.ioi(demo, n=16)
    acts = ct.capture(demo, saes, task, "last", progress=False)
    return demo, saes, demo_transcoders, task, acts


QUIET = {"progress": False}
SITE = "resid_post 1"
FEW = {"n_features": 24, "k": 4, "steps": 9, "batch": 32, "checkpoint_every": 3, **QUIET}
CALLS = {
    "capture": lambda m, saes, tc, task, acts, to: (
        ct.capture(m, saes, task, batch_size=4, **QUIET).metric
    ),
    "capture to a store": lambda m, saes, tc, task, acts, to: (
        ct.capture(m, saes, task, batch_size=4, store=to, **QUIET).load().metric
    ),
    "estimate": lambda m, saes, tc, task, acts, to: (
        ct.estimate_capture(m, saes, task, **QUIET).tokens
    ),
    "training": lambda m, saes, tc, task, acts, to: (
        train_dictionaries(m, [SITE], task.texts, folder=to, **FEW)[ct.Site.parse(SITE)].sae.W_dec
    ),
    "training in memory": lambda m, saes, tc, task, acts, to: (
        train_dictionaries(m, [SITE], task.texts, rule="batchtopk", **FEW)[
            ct.Site.parse(SITE)
        ].sae.W_dec
    ),
    "fit": lambda m, saes, tc, task, acts, to: table(
        ct.CircuitLasso().fit(acts, task, model=m, dictionaries=saes, **QUIET).circuit()
    ),
    "find_circuit": lambda m, saes, tc, task, acts, to: table(
        ct.find_circuit(m, saes, task, task, max_features=8, **QUIET)
    ),
    "feature_attribution": lambda m, saes, tc, task, acts, to: table(
        ct.feature_attribution(m, saes, task, **QUIET)
    ),
    "attribution_graph": lambda m, saes, tc, task, acts, to: table(
        ct.attribution_graph(m, tc, task.clean[0], max_features=50, **QUIET)
    ),
    "eap_ig": lambda m, saes, tc, task, acts, to: table(ct.eap_ig(m, task, **QUIET)),
    "head_scores": lambda m, saes, tc, task, acts, to: np.asarray(ct.head_scores(m, task, **QUIET)),
    "descriptions": lambda m, saes, tc, task, acts, to: (
        WeightLens("paper").describe(m, tc, layers=[0, 1], store=to, **QUIET).table().to_csv()
    ),
}


def same(one, two):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    return np.array_equal(one, two) if isinstance(one, np.ndarray) else one == two


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupted_call_leaves_the_session_as_it_was(given, tmp_path, name):
    call, model = CALLS[name], given[0]
    whole = call(*given, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        steps = interrupted_at(patch, 0)
        assert same(call(*given, tmp_path / "again"), whole)
    n = len(steps)
    assert n >= 2
    before = state(model)
    for number in sorted({1, (n + 1) // 2, n}):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupted_at(patch, number)
            call(*given, tmp_path / str(number))
        assert state(model) == before, f"step {number} of {n}"
        assert not tqdm._instances
        assert ONE_RUN.acquire(blocking=False)
        ONE_RUN.release()
    assert same(call(*given, tmp_path / str(n)), whole)  # where there is a folder, it goes on

"""Heads ablated together, against an intervention written out, and random ones beside them."""

import numpy as np
import pytest

import circuit_toolkit as ct
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence import heads_effect
from circuit_toolkit.interventions.changes import resample
from circuit_toolkit.interventions.runs import intervene
from circuit_toolkit.sites import Site


@pytest.fixture(scope="module")
def task(demo):
    return ct.tasks.agreement(demo, n=12)


def test_the_effect_is_that_of_the_intervention(demo, task):
    found = heads_effect(demo, task, [(3, 3), (0, 2), (3, 1)], n_prompts=8, random_sets=4)
    changes = [
        resample(Site("head_out", 0), heads=[2]),
        resample(Site("head_out", 3), heads=[1, 3]),
    ]
    part = task.subset(8)
    before, after = (
        intervene(demo, part, each, progress=False).metric.mean() for each in ([], changes)
    )
    assert found.before == pytest.approx(float(before), abs=1e-5)
    assert found.after == pytest.approx(float(after), abs=1e-5)
    assert found.n == 8 and found.random.shape == (4,)
    assert "a3.h3, a0.h2, a3.h1" in repr(found)


def test_random_sets_are_of_other_heads_and_repeat(demo, task):
    """Of all heads but one, none can be drawn but that one."""
    every = [(int(layer), int(head)) for layer, head in np.ndindex(6, 8)]
    alone = heads_effect(demo, task, [(3, 3)], random_sets=3, seed=1)
    again = heads_effect(demo, task, [(3, 3)], random_sets=3, seed=1)
    assert (alone.random == again.random).all()
    assert alone.after < alone.random.min() - 3, "the head that the task needs is never drawn"
    most = heads_effect(demo, task, every[:40], random_sets=2)
    assert len(most.heads) == 40 and np.isfinite(most.random).all(), "drawn of all, as 8 are left"


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([], "No head is given"),
        ([(6, 0)], "no head"),
        ([(0, 8)], "no head"),
        ([3], "layer and its number"),
        ([(0, -1)], "head must be"),
    ],
)
def test_heads_that_are_none_are_refused(demo, task, heads, message):
    with pytest.raises(InputError, match=message):
        heads_effect(demo, task, heads)

"""Counting the features that a task needs: ablations against `evaluate`'s, scores against sums."""

import numpy as np
import pytest
import torch

from benchmarks.demo.features_needed import MOST, Nodes, _smallest, features_needed, table
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.evidence.evaluation import metric_under
from circuit_toolkit.interventions.changes import mean_ablation
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import agreement

SITES = [Site("resid_post", 2), Site("resid_post", 4)]


@pytest.fixture(scope="module")
def case(demo, demo_saes):
    return demo, {site: demo_saes[site] for site in SITES}, agreement(demo, n=12, seed=3, test=True)


def test_ablations_are_those_of_the_package(case):
    model, saes, task = case
    nodes = Nodes.of(model, saes, task, "last", "mean")
    acts = capture(model, saes, task, progress=False).pooled("last")
    kept = {site: np.arange(0, 400) for site in SITES}
    changes = mean_ablation(acts, kept, complement=True)
    ours = {site: torch.zeros_like(each) for site, each in nodes.acts.items()}
    for each in ours.values():
        each[:, :400] = 1
    expected = metric_under(model, task, saes, changes)
    np.testing.assert_allclose(nodes.metric(ours).numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("positions", ["last", "named", "all"])
def test_nothing_ablated_is_the_model_and_everything_is_not(case, positions):
    nodes = Nodes.of(*case, positions, "corrupted")
    full, kept, empty = (nodes.metric(k) for k in (None, nodes.all(1), nodes.all(0)))
    torch.testing.assert_close(kept, full, atol=1e-3, rtol=0)
    assert empty.mean() < full.mean() - 1


def test_scores_add_up_to_what_ablation_takes_away(case):
    nodes = Nodes.of(*case, "last", "corrupted")
    (site, _) = SITES
    lost = float((nodes.metric(None) - nodes.metric(nodes.all(0, [site]))).sum())
    assert float(nodes.scores([site])[site].sum()) == pytest.approx(lost, rel=0.05)


def test_ranks_go_down_in_each_prompt_or_for_all(case):
    nodes = Nodes.of(*case, "named", "corrupted")
    scores = nodes.scores(SITES)
    never = torch.iinfo(torch.int32).max
    alone, shared = nodes.ranks(scores, shared=False), nodes.ranks(scores, shared=True)
    for prompt in range(3):
        mine = nodes.owner == prompt
        rank = torch.cat([alone[site][mine].flatten() for site in SITES])
        size = torch.cat([scores[site][mine].abs().flatten() for site in SITES])
        ranked = rank < never
        assert torch.equal(ranked, size > 0)
        assert torch.equal(rank[ranked].sort().values, torch.arange(int(ranked.sum())).int())
        assert (size[ranked][rank[ranked].argsort()].diff() <= 0).all()
    one = [row for row in range(len(nodes.place)) if nodes.place[row] == 1]
    assert all(torch.equal(shared[SITES[0]][one[0]], shared[SITES[0]][row]) for row in one)


def test_bisection():
    assert [_smallest(lambda size, n=n: size >= n) for n in (1, 2, 77, MOST)] == [1, 2, 77, MOST]
    assert _smallest(lambda size: False) is None


def test_fewer_features_than_there_are_keep_the_task(case):
    model, saes, _ = case
    found = features_needed(model, saes, n=12, seed=3, tasks=["agreement"])
    row = found["agreement"]["prompt, last token, corrupted"]
    assert 1 <= row["faithful"] <= 60 and row["empty"] < row["full"]
    assert 0.5 < found["agreement"]["errors ablated"] < 1.5
    text = table(found)
    assert "| prompt, last token, corrupted |" in text and "agreement" in text

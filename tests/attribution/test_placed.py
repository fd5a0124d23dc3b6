"""Integrated gradients of features at places add up, and say what single ablations show."""

import numpy as np
import pytest

import circuit_toolkit as ct
from circuit_toolkit.attribution.placed import integrated_scores
from circuit_toolkit.patching.placed_features import PlacedFeatures


@pytest.mark.parametrize(
    # Features of a later site switch on and off on the way: jumps, which no gradient shows.
    ("names", "off"),
    [(["resid_post 2"], 0.005), (["mlp_in 3"], 0.005), (["resid_post 2", "resid_post 4"], 0.15)],
)
def test_scores_add_up_to_what_all_features_give(demo, demo_saes, demo_transcoders, names, off):
    known = {**demo_saes, **demo_transcoders}
    chosen = {ct.Site.parse(name): known[ct.Site.parse(name)] for name in names}
    task = ct.tasks.ioi(demo, n=24, seed=0)
    runs = PlacedFeatures.of(demo, chosen, task)
    given = runs.metric().mean() - runs.metric_with({}).mean()
    scores = integrated_scores(runs, steps=32)
    assert sum(map(np.sum, scores.values())) == pytest.approx(given, rel=off)
    few = integrated_scores(runs.subset(7), steps=2)
    assert {place: each.shape for place, each in few.items()} == {
        place: (chosen[place[0]].n_features,) for place in runs.places
    }


def test_at_one_site_they_rank_features_as_single_ablations_do(demo, demo_saes):
    site = ct.Site("resid_post", 4)
    runs = PlacedFeatures.of(demo, {site: demo_saes[site]}, ct.tasks.agreement(demo, n=48, seed=0))
    scores = integrated_scores(runs, steps=8)
    best = {place: np.argsort(-np.abs(each))[:8] for place, each in scores.items()}
    exact = runs.effects(best, best)[1].mean(1)
    mine = np.concatenate([scores[place][best[place]] for place in runs.places])
    assert np.corrcoef(mine, exact)[0, 1] > 0.9

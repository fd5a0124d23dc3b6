"""Random subsets of features at once, against one feature at a time."""

import numpy as np
import pytest
import torch

from benchmarks.exact_effects import exact_feature_effects
from circuit_toolkit.circuit_lasso import feature_swaps
from circuit_toolkit.circuit_lasso.feature_swaps import (
    _slopes,
    randomised_effects,
    randomised_features,
)
from circuit_toolkit.errors import InputError
from circuit_toolkit.patching.feature_runs import FeatureRuns
from circuit_toolkit.tasks import agreement
from tests.tiny import residual_sites, task_it_does

SITES = residual_sites()


@pytest.fixture(scope="module")
def task(tiny):
    return agreement(tiny, n=24, seed=2)


@pytest.fixture(scope="module")
def saes(tiny_saes):
    return {site: tiny_saes[site] for site in SITES}


@pytest.fixture(scope="module")
def runs(tiny, saes, task):
    return FeatureRuns.of(tiny, saes, task, min_active=6)


def correlation(ours, theirs):
    return np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]


def test_effects_are_those_of_single_ablations(runs):
    exact = exact_feature_effects(runs)
    found = randomised_effects(runs, draws=24, nodes=False)
    few = randomised_effects(runs, draws=1, nodes=False)
    for site in SITES[:-1]:
        assert correlation(found.edges[site], exact.edges[site]) > 0.85
        assert correlation(found.edges[site], exact.edges[site]) > correlation(
            few.edges[site], exact.edges[site]
        )
        slope = (found.edges[site] * exact.edges[site]).sum() / (exact.edges[site] ** 2).sum()
        assert 0.8 < slope < 1.2  # no shrinkage to speak of


def test_draws_follow_what_exact_ablations_would_take(runs):
    found = randomised_effects(runs, nodes=False)
    assert found.settings["draws"] == max(1, round(runs.exact_runs() / (18 * len(runs))))
    assert found.settings["runs"] == len(runs) * found.settings["draws"]
    for site in SITES[:-1]:
        size = np.abs(found.edges[site])
        kept = found.chosen[site]
        assert (size[kept] > 0).all() and kept.any()
        assert (kept[size.argmax(0), np.arange(size.shape[1])] | (size.max(0) == 0)).all()
        assert not kept[size < 0.1 * size.max(0)].any()


def test_bits_decide_what_changes(runs):
    """No bits change nothing, and sites start afresh: bits of one move the next alone."""
    rows = torch.tensor([0, 3, 3])
    none = {site: torch.zeros(3, len(runs.features[site])) for site in SITES}
    found, _ = runs.run(rows, none)
    assert max(float(each.abs().max()) for each in found.values()) < 1e-5
    first = {**none, SITES[0]: torch.ones_like(none[SITES[0]])}
    found, logits = runs.run(rows, first, logits=True)
    assert found[SITES[1]].abs().max() > 0.1
    assert max(float(found[site].abs().max()) for site in SITES[2:]) < 1e-5
    assert runs.metric_change(logits, rows).abs().max() < 1e-4
    _, logits = runs.run(rows, first, afresh=False, logits=True)  # travels on
    assert runs.metric_change(logits, rows).abs().min() > 1e-3


def test_slopes_are_found_without_the_bias_of_the_lasso():
    rng = torch.Generator().manual_seed(0)
    n, p, q = 2000, 60, 5
    truth = torch.zeros(p, q)
    truth[:4] = torch.randn(4, q, generator=rng)
    X = (torch.rand(n, p, generator=rng) < 0.1) * torch.rand(n, p, generator=rng)
    Y = X @ truth + 0.01 * torch.randn(n, q, generator=rng)
    slopes, support = _slopes(X, torch.cat([Y, torch.zeros(n, 1)], 1), 0.1)
    np.testing.assert_allclose(slopes[:, :q], truth, atol=0.04)  # 0.1 of alpha would be biased
    assert support[:4, :q].sum() >= 4 * q - 2 and support[4:].mean() < 0.1
    assert not slopes[:, q].any() and not support[:, q].any()


def test_node_effects_rank_as_single_ablations_do(runs, monkeypatch):
    for name, value in (("NODE_SHARE", 0.05), ("NODE_STRENGTH", 0.1), ("NODE_DRAWS", 24)):
        monkeypatch.setattr(feature_swaps, name, value)
    exact = exact_feature_effects(runs, edges=False, nodes=True)
    found = randomised_effects(runs, edges=False)
    assert min(correlation(found.nodes[site], exact.nodes[site]) for site in SITES) > 0.5
    last = SITES[-1]  # where nothing comes between a feature and the logits but a norm
    assert correlation(found.nodes[last], exact.nodes[last]) > 0.85


@pytest.mark.parametrize("value", ["zero", "mean", "corrupted", "other"])
@pytest.mark.parametrize("positions", ["all", "last"])
def test_every_value_at_every_position_gives_a_circuit(tiny, saes, value, positions):
    things = ("boys", "girls", "doctors", "lawyers")
    texts = [f"the {thing} near the {place}" for thing in things for place in ("cabinet", "key")]
    task = task_it_does(texts, [*texts[1:], texts[0]])
    options = dict(value=value, positions=positions, min_active=1, max_features=15, draws=2)
    circuit = randomised_features(tiny, saes, task, **options)
    assert 0 < len(circuit.nodes) - 1 <= 15
    assert circuit.settings["value"] == value and circuit.settings["draws"] == 2
    assert circuit.settings["seconds"] > 0


def test_the_seed_decides(tiny, saes, task):
    one, same, other = (
        randomised_features(tiny, saes, task, draws=1, seed=seed, n_prompts=8, min_active=1)
        for seed in (0, 0, 1)
    )
    assert np.array_equal(one.nodes, same.nodes) and np.array_equal(one.edges, same.edges)
    assert not np.array_equal(one.nodes["score"], other.nodes["score"])


def test_settings_out_of_range_are_refused(tiny, saes, task, runs):
    for name, bad in (("draws", 0), ("draws", 1.5), ("seed", -1)):
        with pytest.raises(InputError, match=f"{name} must be"):
            randomised_effects(runs, **{name: bad})
    with pytest.raises(InputError, match="must be"):
        randomised_features(tiny, task, saes)

"""Effects of features by ablation equal separate interventions; by gradients, small differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.exact_effects import exact_feature_effects, exact_runs, metric_change
from circuit_toolkit.attribution.features import (
    attributed_edges,
    attributed_nodes,
    feature_attribution,
)
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions import intervene, put
from circuit_toolkit.models import load_model, run
from circuit_toolkit.patching.feature_runs import FeatureRuns
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import ioi
from tests.tiny import build_tokenizer, residual_sites, task_it_does, tiny_hf

SITES = residual_sites()


@pytest.fixture(scope="module")
def task(tiny):
    return ioi(tiny, n=6, seed=2)


@pytest.fixture(scope="module")
def runs(tiny, tiny_saes, task):
    saes = {site: tiny_saes[site] for site in SITES}
    return FeatureRuns.of(tiny, saes, task, min_active=2)


@pytest.fixture(scope="module")
def exact(runs):
    return exact_feature_effects(runs, nodes=True)


def separate(tiny, saes, task, site, later, feature):
    """Mean effect of one feature by a run of its own, over tokens and prompts."""
    item = put(site, 0.0, features=[feature])
    ablated = intervene(tiny, task, [item], dictionaries=saes, read=[later])
    plain = intervene(tiny, task, [], dictionaries=saes, read=[later])
    batch = tiny.tokenize(task.clean, bos=True)
    x, y = ablated.activations[later][0], plain.activations[later][0]
    moved = saes[later].encode(x) - saes[later].encode(y)  # (B, T, F)
    mask = batch.mask.clone()
    mask[torch.arange(len(mask)), batch.mask.argmax(1)] = 0  # <bos>
    each = (moved * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return each.mean(0).numpy(), float((ablated.metric - plain.metric).mean())


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
    assert metric_change(runs, logits, rows).abs().max() < 1e-4
    _, logits = runs.run(rows, first, afresh=False, logits=True)  # travels on
    assert metric_change(runs, logits, rows).abs().min() > 1e-3


def test_exact_effects_equal_separate_interventions(tiny, tiny_saes, task, runs, exact):
    for number in (0, 1, 2):
        site, later = SITES[number], SITES[number + 1]
        biggest = int(np.abs(exact.edges[site]).sum(1).argmax())
        feature = int(runs.features[site][biggest])
        edges, node = separate(tiny, tiny_saes, task, site, later, feature)
        theirs = edges[runs.features[later]]
        np.testing.assert_allclose(exact.edges[site][biggest], theirs, atol=2e-5)
        assert np.abs(theirs).max() > 1e-2
        np.testing.assert_allclose(exact.nodes[site][biggest], node, atol=2e-5)
    assert exact.settings["runs"] > exact_runs(runs) > 0


def test_a_sample_of_sources_gives_the_same_rows_and_leaves_others_alone(runs, exact):
    some = {site: runs.features[site][::3] for site in SITES}
    part = exact_feature_effects(runs, some)
    for site in SITES[:-1]:
        np.testing.assert_allclose(part.edges[site][::3], exact.edges[site][::3], atol=1e-6)
        assert not part.edges[site][1::3].any()
    with pytest.raises(InputError, match="is not among those that are active"):
        exact_feature_effects(runs, {SITES[0]: np.array([10_000])})


def test_where_blocks_do_nothing_the_effect_is_known(tiny_saes):
    module = tiny_hf()
    with torch.no_grad():
        for block in module.transformer.h:
            for layer in (block.attn.c_proj, block.mlp.c_proj):
                layer.weight.zero_()
                layer.bias.zero_()
    still = load_model(module, build_tokenizer())
    first, second = SITES[0], SITES[1]
    saes = {site: replace(tiny_saes[site], of=None) for site in (first, second)}
    runs = FeatureRuns.of(still, saes, ioi(still, n=4, seed=0), min_active=1, positions="last")
    found = exact_feature_effects(runs)
    x = run(still, runs.batch, [first])[first][:, -1]  # what every site shows
    for row, feature in enumerate(runs.features[first]):
        old = saes[first].encode(x)
        moved = x - old[:, [feature]] * saes[first].sae.W_dec[feature]
        by_hand = (saes[second].encode(moved) - saes[second].encode(x)).mean(0)
        np.testing.assert_allclose(
            found.edges[first][row], by_hand[runs.features[second]], atol=1e-5
        )


def moved(runs, site, column, small=0.004):
    """Slopes of features and metric when one feature goes a little to its new value, and back."""
    everything = torch.arange(len(runs))
    features, measured = [], []
    for sign in (1, -1):
        bits = torch.zeros(len(runs), len(runs.features[site]))
        bits[:, column] = sign * small
        features.append(runs.run(everything, {site: bits})[0])
        _, logits = runs.run(everything, {site: bits}, afresh=False, logits=True)
        measured.append(float(metric_change(runs, logits, everything).mean()))
    slopes = {s: (features[0][s] - x).mean(0) / (2 * small) for s, x in features[1].items()}
    return slopes, (measured[0] - measured[1]) / (2 * small)


def test_attributions_are_the_slopes_of_small_changes(runs):
    """Central differences; float32 leaves some 1e-3 of them."""
    (nodes, _), (edges, _) = attributed_nodes(runs), attributed_edges(runs)
    for number, site in enumerate(SITES):
        column = int(np.abs(nodes[site]).argmax())
        _, slope = moved(runs, site, column)
        np.testing.assert_allclose(nodes[site][column], slope, rtol=0.02, atol=1e-4)
        if number + 1 < len(SITES):
            column = int(np.abs(edges[site]).sum(1).argmax())
            ours = edges[site][column]
            slopes, _ = moved(runs, site, column)
            close = np.isclose(ours, slopes[SITES[number + 1]], rtol=0.02, atol=2e-3)
            assert close.mean() > 0.85  # the others change places in the top k on some token
            assert np.abs(ours[close]).max() > 0.02


def test_integrated_gradients_are_complete(runs):
    """After the last dictionary there is no kink, so midpoints converge with 1 / steps**2."""
    last, everything = SITES[-1], torch.arange(len(runs))
    ones = {last: torch.ones(len(runs), len(runs.features[last]))}
    _, logits = runs.run(everything, ones, afresh=False, logits=True)
    whole = float(metric_change(runs, logits, everything).mean())
    errors = [abs(attributed_nodes(runs, steps)[0][last].sum() - whole) for steps in (1, 16)]
    assert abs(whole) > 0.05
    assert errors[1] < 2e-3 * abs(whole) + 1e-4
    assert errors[1] < errors[0]


def test_only_wanted_edges_are_worked_out(runs):
    whole, runs_of_all = attributed_edges(runs)
    some = {site: runs.features[site][:5] for site in SITES}
    part, fewer = attributed_edges(runs, some)
    for site in SITES[:-1]:
        np.testing.assert_allclose(part[site][:, :5], whole[site][:, :5], atol=1e-6)
        assert not part[site][:, 5:].any()
    assert fewer < runs_of_all


@pytest.mark.parametrize("steps", [0, 2])
def test_a_circuit_of_the_best_features(tiny, tiny_saes, task, steps):
    saes = {site: tiny_saes[site] for site in SITES}
    circuit = feature_attribution(
        tiny,
        saes,
        task,
        steps=steps,
        value="corrupted",
        min_active=1,
        max_features=12,
        max_edges=20,
    )
    assert len(circuit.nodes) == 13 and 0 < len(circuit.edges) <= 20
    assert circuit.settings["value"] == "corrupted" and circuit.settings["steps"] == steps
    assert circuit.settings["method"] == (
        "integrated gradients" if steps else "attribution patching"
    )


@pytest.mark.parametrize("value", ["zero", "mean", "corrupted", "other"])
@pytest.mark.parametrize("positions", ["all", "last"])
def test_every_value_at_every_position_gives_a_circuit(tiny, tiny_saes, value, positions):
    saes = {site: tiny_saes[site] for site in SITES}
    things = ("boys", "girls", "doctors", "lawyers")
    texts = [f"the {thing} near the {place}" for thing in things for place in ("cabinet", "key")]
    task = task_it_does(texts, [*texts[1:], texts[0]])
    options = dict(value=value, positions=positions, min_active=1, max_features=15)
    circuit = feature_attribution(tiny, saes, task, **options)
    assert 0 < len(circuit.nodes) - 1 <= 15
    assert circuit.settings["value"] == value and circuit.settings["positions"] == positions
    assert circuit.settings["seconds"] > 0


def test_what_cannot_be_run_is_refused(tiny, tiny_saes, task):
    saes = {site: tiny_saes[site] for site in SITES}
    with pytest.raises(InputError, match="two or more"):
        FeatureRuns.of(tiny, {SITES[0]: saes[SITES[0]]}, task)
    with pytest.raises(InputError, match="value must be"):
        FeatureRuns.of(tiny, saes, task, value="half")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="No feature of"):
        FeatureRuns.of(tiny, saes, task, min_active=100)
    moved = {**saes, Site("mlp_out", 0): replace(saes[SITES[0]], site=Site("mlp_out", 0))}
    with pytest.raises(InputError, match="is no plain autoencoder of the residual stream"):
        FeatureRuns.of(tiny, moved, task)
    with pytest.raises(InputError, match="steps must be at least 0"):
        feature_attribution(tiny, saes, task, min_active=1, steps=-1)

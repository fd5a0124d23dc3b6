"""CircuitLens with other dictionaries and other models: sums hold, whatever has a transcoder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import circuit_toolkit as ct
from circuit_toolkit.circuit_lens import CircuitLens
from circuit_toolkit.sites import Site
from tests.circuit_lens.bundled import FEATURE, LENS
from tests.circuit_lens.small import PLAIN, SKIPS, transcoders_of
from tests.dictionaries.published import family_model
from tests.stories import stories_case


def test_an_autoencoder_of_the_stream_is_explained_too(demo, demo_saes, demo_transcoders, texts):
    site = Site("resid_post", 3)
    both = {**demo_transcoders, site: demo_saes[site]}
    acts = ct.capture(demo, {site: demo_saes[site]}, texts, progress=False)
    feature = int((acts.features[site] > 0).sum(0).argmax())
    circuits = LENS.analyse(demo, both, texts, (site, feature), acts=acts)
    assert circuits.examples["error"].max() < 1e-4
    assert set(circuits.elements["layer"]) == {0, 1, 2, 3}


@pytest.mark.parametrize("upstream", ["here", "anywhere"])
@pytest.mark.parametrize(("feature", "missing"), [(FEATURE, 0), ("mlp_in 3/59", 1)])
def test_an_mlp_without_a_transcoder_counts_as_a_whole(
    demo, demo_transcoders, texts, acts, feature, missing, upstream
):
    lens = replace(LENS, upstream=upstream, mode="frozen")
    some = {site: each for site, each in demo_transcoders.items() if site.layer != missing}
    found = lens.analyse(demo, some, texts, feature, acts=acts)
    assert found.examples["error"].max() < 1e-4 and found.examples["origins_error"].max() < 1e-4
    full = lens.analyse(demo, demo_transcoders, texts, feature, acts=acts).elements
    full = full[(full["layer"] != missing) | (full["head"] >= 0)].reset_index(drop=True)
    columns = ["example", "element", "layer"]  # those of other layers are what they were
    assert found.elements[columns].equals(full[columns])
    np.testing.assert_allclose(found.elements["contribution"], full["contribution"], rtol=1e-3)
    assert not found.elements["element"].str.startswith(f"blocks.{missing}.").any()


def test_one_transcoder_far_below_the_feature(demo, demo_saes, demo_transcoders, texts):
    below, site = Site("mlp_in", 1), Site("resid_post", 3)
    pair = {below: demo_transcoders[below], site: demo_saes[site]}
    acts = ct.capture(demo, {site: demo_saes[site]}, texts, progress=False)
    feature = int((acts.features[site] > 0).sum(0).argmax())
    found = LENS.analyse(demo, pair, texts, (site, feature), acts=acts)
    assert found.examples["error"].max() < 1e-4
    upstream = found.elements.loc[found.elements["head"] < 0, "element"]
    assert set(upstream.str.rpartition("/")[0]) == {str(below)}


@pytest.mark.parametrize("upstream", ["here", "anywhere"])
def test_nothing_is_in_front_of_the_first_block(demo, demo_saes, texts, upstream):
    site = Site("resid_pre", 0)
    acts = ct.capture(demo, {site: demo_saes[site]}, texts, progress=False)
    feature = int((acts.features[site] > 0).sum(0).argmax())
    lens = replace(LENS, upstream=upstream)
    found = lens.analyse(demo, demo_saes, texts, (site, feature), acts=acts)
    assert found.examples["error"].max() < 1e-4
    assert found.elements.empty and not found.clusters and len(found.outputs)


@pytest.mark.parametrize("family", ["pythia", "gemma2", "qwen3"])
@pytest.mark.parametrize("kinds", [PLAIN, SKIPS], ids=["plain", "skips"])
def test_other_families(family, kinds, tmp_path):
    model = family_model(family)
    transcoders = transcoders_of(model, tmp_path, kinds)
    site = max(transcoders)
    rng = np.random.default_rng(0)
    prompts = [[1, *rng.integers(4, 25, size=n)] for n in rng.integers(3, 20, size=24)]
    acts = ct.capture(model, {site: transcoders[site]}, prompts, progress=False)
    feature = int((acts.features[site] > 0).sum(0).argmax())
    for upstream in ("here", "anywhere"):
        lens = CircuitLens(upstream=upstream, theta_head=3, theta_feature=2, batch_size=7)
        found = lens.analyse(model, transcoders, prompts, (site, feature), acts=acts)
        # a random feature may fire near 0, where its terms cancel
        strong = found.examples["activation"] > 0.1
        assert found.examples["error"][strong].max() < 1e-4
        assert found.examples["origins_error"][strong].max() < 1e-4


@pytest.fixture(scope="module")
def stories(shared_data):
    return stories_case(shared_data)


def test_sums_hold_on_a_real_llama(stories):
    model, transcoders, prompts = stories
    site = Site("mlp_in", 3)
    acts = ct.capture(model, transcoders, prompts, progress=False)
    often = np.asarray((acts.features[site] > 0).sum(0)).ravel()
    for feature in np.argsort(-often)[:3]:
        lens = CircuitLens(n_examples=30, theta_head=3, theta_feature=2, upstream="anywhere")
        circuits = lens.analyse(model, transcoders, prompts, (3, int(feature)), acts=acts)
        assert circuits.examples["error"].max() < 1e-4
        assert circuits.examples["origins_error"].max() < 1e-4
        assert len(circuits.outputs)

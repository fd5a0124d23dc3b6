"""Sites captured as they are: what a capture holds is what the model computes there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import circuit_toolkit as ct
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.dictionaries import coordinates
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import run
from circuit_toolkit.sites import Site

PROMPTS = ["the boys near the cabinet", "the girls near the old cabinet"]


@pytest.fixture(scope="module")
def model():
    return ct.load_model("demo")


def test_coordinates_of_heads_are_what_run_reads(model):
    site = Site("head_out", 2)
    acts = ct.capture(model, "head_out", PROMPTS, progress=False)
    batch = model.tokenize(PROMPTS)
    value = run(model, batch, [site])[site]  # (B, T, H, D)
    assert acts.sites == [Site("head_out", layer) for layer in range(model.n_layers)]
    for row, (prompt, place) in enumerate(zip(acts.prompt, acts.position, strict=True)):
        padding = int((batch.mask[prompt] == 0).sum())
        # bit for bit: nothing is computed on the way
        expected = value[prompt, padding + place].flatten().numpy()
        np.testing.assert_array_equal(acts.features[site][[row]].toarray()[0], expected)


@pytest.mark.parametrize("positions", ["last", "mean"])
def test_pooled_while_captured_is_pooled_afterwards(model, positions):
    sites = [Site("resid_post", 1), Site("attn_z", 0)]
    late = ct.capture(model, sites, PROMPTS, progress=False).pooled(positions)
    early = ct.capture(model, sites, PROMPTS, positions, progress=False)
    np.testing.assert_array_equal(early.position, late.position)
    for site in sites:
        np.testing.assert_array_equal(early.features[site].toarray(), late.features[site].toarray())


def test_the_beginning_of_a_sequence_counts_only_where_asked_for(model):
    site = Site("resid_post", 0)
    without = ct.capture(model, [site], PROMPTS, progress=False)
    with_it = ct.capture(model, [site], PROMPTS, bos=True, progress=False)
    assert (without.position > 0).all()
    kept = with_it.position > 0
    assert (~kept).sum() == len(PROMPTS)
    np.testing.assert_array_equal(
        with_it.features[site].toarray()[kept], without.features[site].toarray()
    )
    mean = ct.capture(model, [site], PROMPTS, "mean", bos=True, progress=False)
    batch = model.tokenize(PROMPTS)
    value, mask = run(model, batch, [site])[site], batch.mask[..., None]
    expected = (value * mask).sum(1) / mask.sum(1)
    # float32 sums in another order
    np.testing.assert_allclose(mean.features[site].toarray(), expected, atol=1e-6)


def test_a_store_of_coordinates_is_resumed_and_read(model, tmp_path):
    site = Site("mlp_out", 0)
    kept = ct.capture(model, [site], PROMPTS, store=tmp_path, batch_size=1, progress=False)
    again = ct.capture(model, [site], PROMPTS, store=tmp_path, batch_size=1, progress=False)
    whole = ct.capture(model, [site], PROMPTS, progress=False)
    for store in (kept, again, ActivationStore.open(tmp_path)):
        rows = np.concatenate([part.features[site].toarray() for part in store.shards()])
        np.testing.assert_allclose(rows, whole.features[site].toarray(), atol=1e-6)


def test_sites_are_named_one_by_one_or_by_their_kind(model):
    assert list(coordinates(model, "resid_post")) == [
        Site("resid_post", layer) for layer in range(model.n_layers)
    ]
    assert list(coordinates(model, "embed")) == [Site("embed")]
    assert list(coordinates(model, ["mlp_out 1", "resid_pre 0"])) == [
        Site("resid_pre", 0),
        Site("mlp_out", 1),
    ]
    assert torch.equal(
        coordinates(model, "attn_z 1")[Site("attn_z", 1)].encode(torch.ones(2, 8, 16)),
        torch.ones(2, 128),
    )


@pytest.mark.parametrize("sites", ["attn_pattern", ["resid_post 99"], "nowhere", []])
def test_sites_that_hold_no_activation_of_a_token_are_refused(model, sites):
    with pytest.raises(InputError):
        ct.capture(model, sites, PROMPTS, progress=False)

"""ERA and TWERA on activations made by hand: what the formulas say, however they are read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

import circuit_toolkit as ct
from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.expected import co_activity, expected_attributions
from circuit_toolkit.features.virtual import virtual_weights
from circuit_toolkit.features.weight_table import WEIGHT, VirtualWeights
from circuit_toolkit.sites import Site
from tests.sinks import with_sinks, without_first

A, B = Site("mlp_in", 0), Site("mlp_in", 1)
LENGTHS = (5, 3, 7, 4)


def made(source: np.ndarray, target: np.ndarray, **settings) -> Activations:
    """Tokens of four prompts; features (tokens, F) of two sites."""
    prompt = np.repeat(np.arange(4), LENGTHS)
    position = np.concatenate([np.arange(n) for n in LENGTHS])
    tokens = [[f"t{p}.{t}" for t in range(n)] for p, n in enumerate(LENGTHS)]
    features = {A: sp.csr_array(source), B: sp.csr_array(target)}
    return Activations(features, prompt, position, tokens, np.arange(4), settings=settings)


def all_pairs(n_source: int, n_target: int, weight) -> VirtualWeights:
    rows = np.zeros(n_source * n_target, WEIGHT)
    rows["source"], rows["target"] = np.divmod(np.arange(len(rows)), n_target)
    rows["target_site"] = 1
    rows["weight"] = weight
    return VirtualWeights(rows, (A, B), ("direct", "a1.h0"))


def random_acts(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = sum(LENGTHS)
    return tuple(
        (rng.random((n, k)) * (rng.random((n, k)) < 0.4)).astype(np.float32) for k in (6, 5)
    )


def of(weights, acts, kind, shape):
    return expected_attributions(weights, acts, kind).rows["weight"].reshape(shape)


def test_both_are_what_their_formulas_say():
    x, y = random_acts()
    V = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)
    weights, acts = all_pairs(6, 5, V.ravel()), made(x, y)
    era = np.mean((y > 0)[:, None] * x[:, :, None], axis=0) * V  # means over tokens, (6, 5)
    twera = np.mean(y[:, None] * x[:, :, None], axis=0) / y.mean(0) * V
    np.testing.assert_allclose(of(weights, acts, "era", (6, 5)), era, rtol=1e-5)
    np.testing.assert_allclose(of(weights, acts, "twera", (6, 5)), twera, rtol=1e-5)


def test_never_active_together_is_nothing():
    x, y = random_acts()
    x[:, 0] = np.where(y[:, 0] > 0, 0, 1)
    weights = all_pairs(6, 5, 3.0)
    for kind in ("era", "twera"):
        assert of(weights, made(x, y), kind, (6, 5))[0, 0] == 0


def test_a_constant_source():
    x, y = random_acts()
    x[:, 2] = 4.0
    share = (y > 0).mean(0)
    weights = all_pairs(6, 5, 0.5)
    np.testing.assert_allclose(
        of(weights, made(x, y), "era", (6, 5))[2], 4 * share * 0.5, rtol=1e-6
    )
    np.testing.assert_allclose(of(weights, made(x, y), "twera", (6, 5))[2], 4 * 0.5, rtol=1e-6)


def test_a_binary_target():
    x, y = random_acts()
    y = (y > 0).astype(np.float32)
    weights, acts = all_pairs(6, 5, 0.5), made(x, y)
    era, twera = (of(weights, acts, kind, (6, 5)) for kind in ("era", "twera"))
    np.testing.assert_allclose(twera, era / y.mean(0), rtol=1e-6)


def test_the_unit_of_the_target_does_not_matter():
    x, y = random_acts()
    weights = all_pairs(6, 5, 0.5)
    for kind in ("era", "twera"):
        one, other = (of(weights, made(x, k * y), kind, (6, 5)) for k in (1, 2**-10))
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_target_that_never_fires_gives_nothing():
    x, y = random_acts()
    y[:, 3] = 0
    assert not of(all_pairs(6, 5, 0.5), made(x, y), "twera", (6, 5))[:, 3].any()


def test_beginnings_of_sequences_do_not_count():
    x, y = random_acts()
    first = np.concatenate([np.arange(n) for n in LENGTHS]) == 0
    loud_x, loud_y = x.copy(), y.copy()
    loud_x[first], loud_y[first] = 100.0, 100.0
    weights = all_pairs(6, 5, 0.5)
    keep = ~first
    n = keep.sum()
    era = ((y[keep] > 0).T.astype(float) @ x[keep]).T / n * 0.5
    acts = made(loud_x, loud_y, bos=True)
    assert co_activity(weights, acts).n_tokens == n
    np.testing.assert_allclose(of(weights, acts, "era", (6, 5)), era, rtol=1e-5)


def test_streaming_is_the_same_as_at_once_and_padding_and_bos_are_no_tokens(
    demo, demo_transcoders, tmp_path
):
    some = {site: demo_transcoders[site] for site in (A, B)}
    texts = ["the boys near the cabinet", "Anna went to the store", "Mary met John", "the dog"] * 3
    weights = virtual_weights(demo, some, top=5)
    together = ct.capture(demo, some, texts, progress=False)
    each = ct.capture(demo, some, texts, batch_size=1, progress=False)  # nothing is padded
    with_bos = ct.capture(demo, some, texts, bos=True, progress=False)
    store = ct.capture(demo, some, texts, batch_size=4, store=tmp_path / "s", progress=False)
    assert len(store) == 3 and len(with_bos.prompt) == len(together.prompt) + len(texts)
    for kind in ("era", "twera"):
        first, *others = (
            expected_attributions(weights, acts, kind).rows["weight"]
            for acts in (together, each, with_bos, store)
        )
        assert np.count_nonzero(first) > 50
        for other in others:
            # activations of other batches differ by float32 rounding
            np.testing.assert_allclose(first, other, rtol=1e-4, atol=1e-6)


def test_blocks_of_targets_change_nothing(monkeypatch):
    x, y = random_acts()
    weights = all_pairs(6, 5, 0.5)
    weights = replace(weights, rows=weights.rows[::2])
    whole = expected_attributions(weights, made(x, y)).rows["weight"]
    monkeypatch.setattr("circuit_toolkit.features.expected.BLOCK", 2)
    np.testing.assert_array_equal(expected_attributions(weights, made(x, y)).rows["weight"], whole)


def test_what_cannot_be_is_refused():
    x, y = random_acts()
    weights, acts = all_pairs(6, 5, 0.5), made(x, y)
    with pytest.raises(InputError, match="not every token"):
        expected_attributions(weights, acts.pooled("mean"))
    by_head = weights.rows.copy()
    by_head["kind"] = 1
    with pytest.raises(InputError, match="hold a1.h0"):
        expected_attributions(replace(weights, rows=by_head), acts)
    with pytest.raises(InputError, match="kind must be"):
        expected_attributions(weights, acts, "both")  # type: ignore[arg-type]
    elsewhere = replace(weights, sites=(A, Site("mlp_in", 5)))
    with pytest.raises(InputError, match="blocks.5.ln2.hook_normalized was not captured"):
        expected_attributions(elsewhere, acts)


def test_sinks_do_not_count():
    x, y = random_acts()
    weights, acts = all_pairs(6, 5, 0.5), made(x, y)
    loud, bare = with_sinks(acts), without_first(acts)
    one_site = replace(loud, features={**acts.features, A: loud.features[A]})
    assert co_activity(weights, loud).n_tokens == len(x) - len(LENGTHS)
    for kind in ("era", "twera"):
        expected = of(weights, bare, kind, (6, 5))
        np.testing.assert_array_equal(of(weights, loud, kind, (6, 5)), expected)
        # what is a sink at one of the sites counts at neither
        np.testing.assert_array_equal(of(weights, one_site, kind, (6, 5)), expected)

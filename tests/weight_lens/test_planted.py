"""Transcoders whose meaning was planted: what is found is exactly that."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from circuit_toolkit.sites import Site
from circuit_toolkit.weight_lens import WeightLens
from circuit_toolkit.weight_lens.candidates import row_outliers
from tests.weight_lens.planted import (
    embeddings,
    random_rows,
    random_transcoders,
    transcoder,
)

FIRST, SECOND, THIRD = (Site("mlp_in", layer) for layer in range(3))
TOKENS = (100, 345, 1001)


def described(found, site, feature=0):
    return {row["id"] for row in found.of(site, feature)["description"]}


@pytest.mark.parametrize("preset", ["code", "paper", "robust"])
def test_an_encoder_made_of_embeddings_is_described_by_exactly_these(still, preset):
    encoder = random_rows(1)
    encoder[0] = embeddings(still)[list(TOKENS)].sum(0)
    # 150: below what its own tokens give (about 256), above what any other does (28 x 3.3)
    layer = transcoder(still, 0, encoder, random_rows(2), threshold=150.0)
    found = WeightLens(preset).describe(still, {FIRST: layer}, progress=False)
    record = found.of(FIRST, 0)
    assert described(found, FIRST) == set(TOKENS)
    positive = {row["id"] for row in record["tokens"]["positive"]}
    if preset == "robust":  # with its low threshold some stand out by chance, and are silent
        assert positive >= set(TOKENS)
    else:
        assert positive == set(TOKENS) and record["validation"] == 1
    assert record["validated"] and record["validation_soft"] == 1
    for row in record["tokens"]["positive"]:
        expected = (embeddings(still)[row["id"]] @ (encoder[0] - encoder[0].mean())).item()
        assert row["contribution"] == pytest.approx(expected, rel=1e-5)
        assert row["token"] == still.tokenizer.decode([row["id"]])
        assert (row["solo"] > 150) == (row["id"] in TOKENS)


def test_a_token_below_the_jump_is_not_validated(still):
    encoder = random_rows(1)
    encoder[:2] = embeddings(still)[list(TOKENS)].sum(0)
    threshold = torch.full((len(encoder),), 150.0)
    threshold[1] = 1e4
    layer = transcoder(still, 0, encoder, random_rows(2), threshold)
    found = WeightLens().describe(still, {FIRST: layer}, progress=False)
    assert found.of(FIRST, 0)["validated"]
    silent = found.of(FIRST, 1)
    assert {row["id"] for row in silent["tokens"]["positive"]} == set(TOKENS)
    assert not silent["validated"] and silent["validation"] == 0 and not silent["words"]
    assert found.labels()[FIRST][1] == ""


def test_decoders_made_of_unembeddings_promote_and_suppress_these(still):
    decoder = random_rows(2)
    unembedding = still.hf.get_output_embeddings().weight.detach()
    decoder[0] = unembedding[7] + unembedding[900] - unembedding[55]
    layer = transcoder(still, 0, random_rows(1), decoder)
    found = WeightLens("paper").describe(still, {FIRST: layer}, progress=False)
    outputs = found.of(FIRST, 0)["outputs"]
    assert {row["id"] for row in outputs["promoted"]} == {7, 900}
    assert {row["id"] for row in outputs["suppressed"]} == {55}


@pytest.fixture(scope="module")
def chain(still):
    """Feature 0 of each layer reads feature 0 of the one before; the tokens hardly stand out."""
    words = embeddings(still)[list(TOKENS)]
    basis = torch.linalg.qr(words.T).Q  # (D, 3)
    made = []
    for layer in range(3):
        encoder, decoder = random_rows(10 + layer), random_rows(20 + layer)
        if layer == 0:
            encoder[0] = words.sum(0)
        else:
            heard = made[-1].directions[0]
            apart = heard - basis @ (basis.T @ heard)  # hears none of the three
            signs = torch.tensor([1.0, 1.0, -1.0 if layer == 1 else 1.0])
            encoder[0] = apart + 0.2 * signs @ words
        threshold = torch.full((len(encoder),), 150.0)
        threshold[0] = 150.0 if layer == 0 else 0.0
        made.append(transcoder(still, layer, encoder, decoder, threshold))
    return {each.site: each for each in made}


def test_a_chain_inherits_what_activates_it_alone(still, chain):
    found = WeightLens(upstream="all").describe(still, chain, progress=False)
    assert described(found, FIRST) == set(TOKENS)
    second = found.of(SECOND, 0)
    assert not second["tokens"]["positive"]  # nothing of its own
    assert [(row["site"], row["index"]) for row in second["upstream"]] == [(str(FIRST), 0)]
    assert described(found, SECOND) == set(TOKENS[:2])  # the third holds it down
    assert {row["id"] for row in second["description_soft"]} == set(TOKENS)
    assert second["validation_soft"] == pytest.approx(2 / 3) and second["validation"] is None
    expected = found.of(FIRST, 0)["words"]
    assert second["upstream"][0]["words"] == expected and len(expected) == 3
    assert described(found, THIRD) == set(TOKENS[:2])  # what the second has to hand down


def test_where_only_the_first_layer_hands_down_the_third_inherits_nothing(still, chain):
    found = WeightLens().describe(still, chain, progress=False)  # GPT-2: as the code
    assert found.settings["upstream"] == "first"
    assert described(found, SECOND) == set(TOKENS[:2])
    assert found.of(THIRD, 0)["upstream"] and not described(found, THIRD)


def test_layers_are_a_cut_of_the_whole(still, chain):
    lens = WeightLens(upstream="all")
    whole = lens.describe(still, chain, progress=False)
    part = lens.describe(still, chain, layers=[1], progress=False)
    assert set(part.table()["layer"]) == {1} and list(part.labels()) == [SECOND]
    assert part.of(SECOND, 0) == whole.of(SECOND, 0)


def expected_count(n, theta):
    t = theta * math.sqrt(n * (n - 2) / ((n - 1) ** 2 - n * theta**2))
    return n * stats.t.sf(t, n - 2)


def test_random_encoders_are_described_at_the_rate_that_thresholds_imply(still):
    """Every token that stands out activates a random feature here, so nothing hides the rate."""
    layers = random_transcoders(still)
    lens = WeightLens("paper", theta_token=3.0, theta_feature=3.9, pool_features="all")
    found = lens.describe(still, layers, progress=False)
    table, n = found.coverage(), sum(each.n_features for each in layers.values())
    expected = expected_count(1220, 3.0)  # 1.6
    error = 4 * math.sqrt(expected / n)  # of counts that are scattered as Poisson's
    assert table["candidates"].mean() == pytest.approx(expected, abs=error)
    assert table["null_candidates"].mean() == pytest.approx(expected, abs=error)
    some = 1 - math.exp(-expected)  # share with one at least
    error = 4 * math.sqrt(some * (1 - some) / n)
    assert table["own"].mean() == pytest.approx(some, abs=error)
    assert table["validated"][0] == table["own"][0]
    # Permuted encoders' tokens are others, and half of all tokens activate a feature without bias.
    half = 1 - math.exp(-expected / 2)
    assert table["null_own"].mean() == pytest.approx(half, abs=4 * math.sqrt(half / n))
    upstream = expected_count(300, 3.9) * np.arange(3)
    assert np.abs(table["upstream"] - upstream).max() < 4 * math.sqrt(upstream.max() / 300)


def test_the_thresholds_of_the_code_leave_random_encoders_nearly_without_a_description(still):
    """Inside a pool of 1000 of 1220 normal scores, 5.5 is passed by some tokens in 1000 rows."""
    rows = 10_000
    scores = torch.randn(rows, 1220, generator=torch.Generator().manual_seed(4))
    rate = len(row_outliers(scores, 5.5, 1000, robust=False)[0]) / rows
    found = WeightLens().describe(still, random_transcoders(still), progress=False)
    expected = 900 * rate
    assert 0 < expected < 10
    assert len(found.validated()) <= expected + 4 * math.sqrt(expected)


def test_the_permutation_null_is_seeded_and_can_be_left_out(still):
    layers = {FIRST: random_transcoders(still)[FIRST]}
    options = {"theta_token": 3.0, "n_permuted": 50}
    one, same = (WeightLens(**options).describe(still, layers, progress=False) for _ in range(2))
    other = WeightLens(**options, seed=1).describe(still, layers, progress=False)
    null = one.tables[FIRST].null
    assert np.array_equal(null, same.tables[FIRST].null) and len(null)
    assert not np.array_equal(null, other.tables[FIRST].null)
    assert one.tables[FIRST].sampled.sum() == 50
    none = WeightLens(n_permuted=0).describe(still, layers, progress=False)
    assert none.coverage()["null_candidates"].isna().all()

"""Descriptions in every family against a slow loop over features and tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import circuit_toolkit as ct
from circuit_toolkit.dictionaries.directions import (
    decoder_rows,
    embedding_rows,
    encoder_rows,
    unembedding_rows,
)
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import LOGITS, Batch, run
from circuit_toolkit.sites import Site
from circuit_toolkit.weight_lens import WeightLens
from circuit_toolkit.weight_lens.single_token import alone_at, first_token, single_token_pass
from tests.dictionaries.published import about, family_model, write
from tests.weight_lens.planted import random_transcoders, scaled

LENS = WeightLens("paper", theta_token=1.5, theta_feature=1.8, slack=0.5, upstream="all")


def family(name, folder, kind="mlp_in", architecture="jumprelu_transcoder", **more):
    """A model of a family with 25 tokens, and random dictionaries in its first two layers."""
    model = family_model(name)
    for layer in range(2):
        out = str(Site("mlp_out", layer)) if "transcoder" in architecture else None
        claims = about(model, str(Site(kind, layer)), out, **more)
        write(folder / f"{layer}", architecture, model.width, claims)
        # `write` draws the same weights each time: turn those of the second about
        if layer:
            weights = folder / "1" / "sae_weights.safetensors"
            from safetensors.torch import load_file, save_file

            tensors = load_file(weights)
            save_file({key: value.flip(0).contiguous() for key, value in tensors.items()}, weights)
    return model, ct.load_dictionaries(model, folder)


def z_of(values):
    values = np.asarray(values, np.float64)
    return (values - values.mean()) / values.std(ddof=1)


def slow(model, dictionaries, theta_token, theta_feature, begin, inputs="embedding"):
    """Descriptions token by token and feature by feature, from the released code's steps."""
    n_tokens = model.hf.config.vocab_size
    solo, embedding, behind = {}, [], []
    for token in range(n_tokens):
        ids = torch.tensor([[begin, token] if begin is not None else [token]])
        sites = [*dictionaries, Site("embed")]
        out = run(model, Batch(ids, torch.ones_like(ids)), sites)
        embedding.append(out[Site("embed")][0, -1])
        stream = model.hf(ids, output_hidden_states=True).hidden_states[1][0, -1]
        behind.append(stream / stream.norm())
        for site, each in dictionaries.items():
            solo[site, token] = each.encode(out[site][0, -1])
    embedding, behind = torch.stack(embedding), torch.stack(behind)
    found = {}
    for number, (site, each) in enumerate(dictionaries.items()):
        rows = each.sae.W_enc.detach().T
        if model.architecture.layer_norm and site.kind == "mlp_in":
            rows = rows - rows.mean(1, keepdim=True)
        for i in range(each.n_features):
            early = inputs == "embedding" or (site.layer == 0 and site.kind == "mlp_in")
            e = ((embedding if early else behind) @ rows[i]).detach().numpy()
            own = [t for t in range(n_tokens) if z_of(e)[t] > theta_token]
            own = [t for t in own if t not in model.tokenizer.all_special_ids]
            active = {t for t in range(n_tokens) if solo[site, t][i] > 0}
            soft, total = set(own) & active, np.abs(e).sum()
            for source in list(dictionaries)[:number]:
                c = (dictionaries[source].directions @ rows[i]).numpy()
                total += np.abs(c).sum()
                for k in np.flatnonzero(z_of(c) > theta_feature):
                    soft |= found[source, int(k)]["description"]
            found[site, i] = {
                "own": {t: float(e[t]) for t in own},
                "solo": {t: float(solo[site, t][i]) for t in own},
                "description": soft & active,
                "soft": soft,
                "total": total,
            }
    return found


@pytest.mark.parametrize("inputs", ["embedding", "first_layer"])
@pytest.mark.parametrize("name", ["gpt2", "pythia", "llama", "gemma2"])
def test_every_family_agrees_with_the_slow_loop(name, inputs, tmp_path):
    model, transcoders = family(name, tmp_path)
    found = replace(LENS, inputs=inputs).describe(model, transcoders, progress=False)
    expected = slow(model, transcoders, 1.5, 1.8, model.bos_id, inputs)
    inherited = 0
    for (site, i), truth in expected.items():
        record = found.of(site, i)
        positive = {row["id"]: row for row in record["tokens"]["positive"]}
        assert positive.keys() == truth["own"].keys()
        for token, row in positive.items():
            # float32 sums of some 30 terms, in another order
            assert row["contribution"] == pytest.approx(truth["own"][token], rel=1e-4, abs=1e-5)
            relative = truth["own"][token] / truth["total"]
            assert row["relative"] == pytest.approx(relative, rel=1e-4, abs=1e-7)
            assert row["solo"] == pytest.approx(truth["solo"][token], rel=1e-4, abs=1e-4)
        assert {row["id"] for row in record["description"]} == truth["description"]
        assert {row["id"] for row in record["description_soft"]} == truth["soft"]
        inherited += len(truth["description"] - truth["own"].keys())
    assert inherited > 10 and 20 < len(found.validated()) < 144


def test_autoencoders_of_the_stream_are_marked_as_such(tmp_path):
    model, saes = family("llama", tmp_path, "resid_post", "jumprelu")
    found = LENS.describe(model, saes, progress=False)
    assert set(found.table()["kind"]) == {"sae"} and found.settings["inputs"] == "first_layer"
    expected = slow(model, saes, 1.5, 1.8, model.bos_id, "first_layer")
    for (site, i), truth in expected.items():
        record = found.of(site, i)
        assert record["feature"]["kind"] == "sae"
        assert {row["id"] for row in record["description"]} == truth["description"]


def test_tokens_begin_as_the_dictionaries_want(tmp_path):
    model, transcoders = family("llama", tmp_path, prepend_bos=False)
    assert first_token(model, transcoders) is None
    found = LENS.describe(model, transcoders, progress=False)
    expected = slow(model, transcoders, 1.5, 1.8, None)
    for (site, i), truth in expected.items():
        assert {row["id"] for row in found.of(site, i)["description"]} == truth["description"]
    assert found.settings["begins_with"] is None


def test_behind_a_sink_a_token_is_tested_whatever_the_dictionaries_want(tmp_path):
    model, transcoders = family("gpt2", tmp_path, prepend_bos=False)
    assert first_token(model, transcoders) is None
    with torch.no_grad():
        model.hf.transformer.wpe.weight[0] *= 1e4
    assert first_token(model, transcoders) == model.bos_id


def test_embeddings_stand_for_tokens_where_features_of_the_first_layer_are_described(still):
    layers = random_transcoders(still)
    later = {site: each for site, each in layers.items() if site.layer}
    lens = WeightLens("paper", theta_token=3.0)
    for given, inputs in ((layers, "embedding"), (later, "first_layer")):
        assert lens.describe(still, given, progress=False).settings["inputs"] == inputs
    same = replace(lens, inputs="embedding").describe(still, later, progress=False)
    assert same.settings["inputs"] == "embedding"
    with pytest.raises(InputError, match="inputs must be"):
        WeightLens(inputs="layer 0")


def test_what_the_first_layer_makes_of_tokens_is_what_later_features_read(demo, demo_transcoders):
    """Beyond layer 0 embeddings single out no more words than permuted encoders do."""
    later = {site: each for site, each in demo_transcoders.items() if site.layer in (1, 2, 3)}
    share = {}
    for inputs in ("embedding", "first_layer"):
        found = WeightLens("paper", inputs=inputs).describe(demo, later, progress=False)
        table = found.coverage()
        share[inputs] = table["own"].mean(), table["null_own"].mean()
    assert share["embedding"][0] < 0.02 and share["first_layer"][1] < 0.01
    assert share["first_layer"][0] > 0.08  # .11 of 1,152 features


def test_a_batch_of_tokens_gives_what_each_gives_alone(demo, demo_transcoders):
    acts = single_token_pass(demo, demo_transcoders, None, False)
    site = list(demo_transcoders)[3]
    matrix = alone_at(acts, site)  # (F, V)
    for token in (0, 1, 2, 77, 600, 1219):
        ids = torch.tensor([[demo.bos_id, token]])
        out = run(demo, Batch(ids, torch.ones_like(ids)), [site])[site][0, -1]
        alone = demo_transcoders[site].encode(out)
        # float32, batched products round differently
        torch.testing.assert_close(
            torch.from_numpy(matrix[:, [token]].toarray().ravel()), alone, atol=1e-4, rtol=1e-4
        )


def test_special_tokens_are_left_out(demo, demo_transcoders):
    special = set(demo.tokenizer.all_special_ids)
    rows = encoder_rows(demo, demo_transcoders[Site("mlp_in", 0)])
    scores = rows @ embedding_rows(demo).T
    z = (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True)
    assert (z[:, list(special)] > 4).any()  # they were hardly trained, and stand out
    found = WeightLens("paper").describe(demo, demo_transcoders, layers=[0], progress=False)
    table = found.tables[found.shown[0]]
    assert not special & {*table.tokens["token"].tolist()}
    assert special & {*table.outputs["token"].tolist()} == {demo.tokenizer.eos_token_id}


def test_a_feature_that_promotes_the_end_of_a_text_is_told_of_it(demo, demo_transcoders):
    end = demo.tokenizer.eos_token_id
    rows = decoder_rows(demo, demo_transcoders[Site("mlp_in", 0)])
    logits = rows @ unembedding_rows(demo, final_norm=False).T
    z = (logits - logits.mean(1, keepdim=True)) / logits.std(1, keepdim=True)
    found = WeightLens("paper").describe(demo, demo_transcoders, layers=0, progress=False)
    for i, high in enumerate((z[:, end] > 4).tolist()):
        promoted = [row["id"] for row in found.of("mlp_in 0", i)["outputs"]["promoted"]]
        assert (end in promoted) == high
    assert (z[:, end] > 4).any() and found.shown == (Site("mlp_in", 0),)


def test_the_order_of_dictionaries_does_not_matter(still):
    layers = random_transcoders(still)
    lens = WeightLens("paper", theta_token=3.0)
    one = lens.describe(still, layers, progress=False)
    other = lens.describe(still, dict(reversed(layers.items())), progress=False)
    assert one.table().equals(other.table())


def test_a_scaled_encoder_means_the_same(still):
    layers = random_transcoders(still, threshold=2.0)
    twice = {site: scaled(each, still, 2.0) for site, each in layers.items()}
    lens = WeightLens("paper", theta_token=3.0, theta_feature=2.5, upstream="all")
    one, other = (lens.describe(still, each, progress=False) for each in (layers, twice))
    assert one.table().equals(other.table())  # to the bit: a power of 2
    for site, table in one.tables.items():
        doubled = other.tables[site]
        assert np.array_equal(2 * table.tokens["contribution"], doubled.tokens["contribution"])
        assert np.array_equal(2 * table.tokens["solo"], doubled.tokens["solo"])
    a, b = one.of(site, 3), other.of(site, 3)
    assert [r["relative"] for r in a["upstream"]] == [r["relative"] for r in b["upstream"]]
    assert a["upstream"]


def test_small_blocks_and_pieces_change_nothing(still, monkeypatch):
    layers = random_transcoders(still)
    lens = WeightLens("robust", upstream="all")
    one = lens.describe(still, layers, progress=False)
    package = "circuit_toolkit.weight_lens."
    monkeypatch.setattr(package + "candidates.BLOCK", 50_000)  # 40 features at a time
    monkeypatch.setattr(package + "candidates.PIECE", 70_000)  # 273 tokens
    other = lens.describe(still, layers, progress=False)
    for site, table in one.tables.items():
        for name in ("tokens", "outputs", "links"):
            a, b = getattr(table, name), getattr(other.tables[site], name)
            assert len(a) == len(b) and (len(a) > 100 or site.layer == 0)
            # float32 sums of 256 terms of size 1, in another order
            np.testing.assert_allclose(a["contribution"], b["contribution"], atol=1e-4)
    assert one.table().equals(other.table())


def test_outputs_are_read_without_the_last_norm(tmp_path):
    model, transcoders = family("gemma2", tmp_path)
    site = next(iter(transcoders))
    found = LENS.describe(model, transcoders, progress=False)
    unembedding = model.hf.get_output_embeddings().weight.detach()
    logits = (transcoders[site].directions @ unembedding.T).numpy()
    outputs = found.tables[site].outputs
    assert len(outputs) > 50
    np.testing.assert_allclose(
        outputs["contribution"], logits[outputs["feature"], outputs["token"]], atol=1e-5
    )
    assert LOGITS not in found.tables


def test_small_vocabularies_are_warned_of(tmp_path):
    model, transcoders = family("llama", tmp_path)
    with pytest.warns(UserWarning, match="preset='robust'"):
        found = WeightLens().describe(model, transcoders, progress=False)
    assert found.settings["largest_group"]["tokens"] == 0
    assert not found.coverage()["own"].any()
    WeightLens("robust").describe(model, transcoders, progress=False)  # says nothing


def test_what_cannot_be_described_is_refused_by_name(tmp_path, demo, demo_saes, demo_transcoders):
    model = family_model("llama")
    claims = about(model, str(Site("attn_z", 1)))
    write(tmp_path / "z", "jumprelu", model.n_heads * model.d_head, claims)
    with pytest.raises(InputError, match=r"'z' reads blocks\.1\.attn\.hook_z"):
        LENS.describe(model, ct.load_dictionaries(model, tmp_path))
    with pytest.raises(InputError, match="one after the other"):
        LENS.describe(demo, {**demo_saes, **demo_transcoders})
    with pytest.raises(InputError, match="layers"):
        LENS.describe(demo, demo_transcoders, layers=[6])
    for wrong in (2.5, "0", ["a"], [0.5]):
        with pytest.raises(InputError, match="layers"):
            LENS.describe(demo, demo_transcoders, layers=wrong)
    with pytest.raises(InputError, match="No dictionaries"):
        LENS.describe(demo, {})

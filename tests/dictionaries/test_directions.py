"""Rows of encoders and decoders: the stream's own coordinates give the features' own numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import circuit_toolkit as ct
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.dictionary import under
from circuit_toolkit.dictionaries.directions import (
    decoder_rows,
    embedding_rows,
    encoder_constants,
    encoder_rows,
    is_normed,
    stream_of,
    unembedding_rows,
)
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import LOGITS, Conventions, Model, run
from circuit_toolkit.models.weights import in_block, norm_gain
from circuit_toolkit.sites import Site
from tests.dictionaries.published import about, family_model, write

PROCESSED = Conventions(fold_ln=True, center_writing_weights=True, fold_value_biases=True)
PROMPTS = [[5, 9, 11, 3], [7, 8, 2, 6]]
FAMILIES = ["gpt2", "pythia", "llama", "gemma2"]


def one(model: Model, folder, architecture: str, hook: str, out=None, **config) -> Dictionary:
    write(folder / "one", architecture, model.width, about(model, hook, out), **config)
    return next(iter(ct.load_dictionaries(model, folder).values()))


def pre_activations(model: Model, dictionary: Dictionary) -> torch.Tensor:
    """From the stream, by rows and constants, shape (B, T, F)."""
    place = stream_of(model, dictionary)
    x = run(model, model.tokenize(PROMPTS), [place])[place]
    gain = 1.0
    if is_normed(dictionary):
        norm = in_block(model, model.architecture.mlp_norm, place.layer)
        gain = norm_gain(x, norm, model.architecture)
    return gain * x @ encoder_rows(model, dictionary).T + encoder_constants(model, dictionary)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["mlp_in", "mlp_norm", "resid_pre", "resid_post"])
@pytest.mark.parametrize("processed", [False, True])
def test_rows_and_constants_give_the_pre_activation(family, kind, processed, tmp_path):
    model, site = family_model(family), Site(kind, 1)
    normed = kind.startswith("mlp")
    architecture = "jumprelu_transcoder" if normed else "jumprelu"
    out = str(Site("mlp_out", 1)) if normed else None
    dictionary = one(model, tmp_path, architecture, str(site), out)
    dictionary = under(model, dictionary, PROCESSED if processed else Conventions())
    acts = dictionary.encode(run(model, model.tokenize(PROMPTS), [site])[site])
    fires = acts > 0
    assert 0.02 < fires.float().mean() < 0.9
    # float32 sums of some 30 terms, in another order
    torch.testing.assert_close(
        pre_activations(model, dictionary)[fires], acts[fires], atol=2e-5, rtol=1e-4
    )


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_top_k_activations_with_decoder_norms_in_them(family, tmp_path):
    model, site = family_model(family), Site("resid_post", 1)
    dictionary = one(model, tmp_path, "topk", str(site), rescale_acts_by_decoder_norm=True)
    acts = dictionary.encode(run(model, model.tokenize(PROMPTS), [site])[site])
    fires = acts > 0
    torch.testing.assert_close(
        pre_activations(model, dictionary)[fires], acts[fires], atol=2e-5, rtol=1e-4
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("processed", [False, True])
def test_decoder_rows_are_what_a_unit_of_a_feature_adds(family, processed, tmp_path):
    model, site = family_model(family), Site("mlp_in", 1)
    dictionary = one(model, tmp_path, "jumprelu_transcoder", str(site), str(Site("mlp_out", 1)))
    dictionary = under(model, dictionary, PROCESSED if processed else Conventions())
    nothing = torch.zeros(dictionary.n_features)
    for feature in (0, 17):
        unit = nothing.clone()
        unit[feature] = 1.0
        added = dictionary.difference(nothing, unit)
        # a unit beside the bias: float32 rounding of values near 1
        torch.testing.assert_close(
            decoder_rows(model, dictionary)[feature], added, atol=1e-6, rtol=1e-5
        )


def test_rows_of_z_go_through_the_output_matrix(tmp_path):
    model, site = family_model("llama"), Site("attn_z", 1)
    d_in = model.n_heads * model.d_head
    write(tmp_path / "one", "jumprelu", d_in, about(model, str(site)))
    dictionary = next(iter(ct.load_dictionaries(model, tmp_path).values()))
    weight = in_block(model, model.architecture.out_proj, 1).weight  # (D, heads in a row)
    expected = dictionary.directions @ weight.detach().T
    torch.testing.assert_close(decoder_rows(model, dictionary), expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(InputError, match="not the residual stream"):
        encoder_rows(model, dictionary)


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_and_logits_are_those_of_the_model(family):
    model = family_model(family)
    batch = model.tokenize(PROMPTS)
    last = Site("resid_post", model.n_layers - 1)
    out = run(model, batch, [Site("embed"), last, LOGITS])
    torch.testing.assert_close(embedding_rows(model)[batch.ids], out[Site("embed")])
    assert len(embedding_rows(model, torch.tensor([4]))) == 1
    norm = model.hf.get_submodule(model.architecture.final_norm)
    gain = norm_gain(out[last], norm, model.architecture)
    logits = gain * out[last] @ unembedding_rows(model).T
    bias = getattr(norm, "bias", None)
    if bias is not None:
        logits = logits + unembedding_rows(model, final_norm=False) @ bias.detach()
    cap = getattr(model.hf.config, "final_logit_softcapping", None)
    if cap:
        logits = cap * torch.tanh(logits / cap)
    torch.testing.assert_close(logits, out[LOGITS], atol=2e-5, rtol=1e-4)


def test_what_is_no_sum_over_the_stream_is_refused(tmp_path):
    model, site = family_model("gpt2"), Site("resid_post", 1)
    gated = one(model, tmp_path / "gated", "gated", str(site))
    with pytest.raises(InputError, match="gates"):
        encoder_constants(model, gated)
    assert encoder_rows(model, gated).shape == (gated.n_features, model.width)
    scaled = one(
        model, tmp_path / "s", "standard", str(site), normalize_activations="constant_norm_rescale"
    )
    with pytest.raises(InputError, match="own norm"):
        encoder_constants(model, scaled)
    pattern = replace(gated, out=Site("mlp_in", 1))
    with pytest.raises(InputError, match="not added"):
        decoder_rows(model, pattern)

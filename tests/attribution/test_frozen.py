"""What contributes to a feature: sums leave nothing out, gradients are autograd's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import circuit_toolkit as ct
from circuit_toolkit.attribution.frozen.linear import (
    ActiveFeatures,
    AttentionWeights,
    Decomposed,
    FrozenAttention,
    FrozenModel,
    FrozenSkip,
)
from circuit_toolkit.attribution.frozen.sums import Reading, direct, origins
from circuit_toolkit.circuit_lens.outputs import logit_contributions
from circuit_toolkit.dictionaries.directions import unembedding_rows
from circuit_toolkit.models import LOGITS, run
from circuit_toolkit.models.weights import in_block, norm_gain
from circuit_toolkit.sites import Site
from tests.attribution.frozen_oracle import Gradients
from tests.circuit_lens.small import PLAIN, SKIPS, family_case, held, transcoders_of
from tests.dictionaries.published import about, family_model, write
from tests.families import PROMPTS

FAMILIES = ["gpt2", "pythia", "neox-sequential", "llama", "qwen2", "qwen3", "gemma2", "gemma3"]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32 sums of thousands of terms, in another order


def rows_of(case):
    return torch.arange(len(case.at)), case.at


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kinds", [PLAIN, SKIPS], ids=["plain", "skips"])
@pytest.mark.parametrize("processed", [False, True])
def test_both_sums_are_the_pre_activation(family, kinds, processed, tmp_path):
    case = family_case(family, tmp_path, kinds, processed)
    for split in (direct, origins):
        found = split(case.frozen, case.reading)
        torch.testing.assert_close(found.total, case.activation, rtol=1e-4, atol=0)
        # no part is there for show: each has something, where the model has it
        parts = {name: float(part.abs().sum()) for name, part in found.parts.items()}
        assert parts["token"] > 0 and parts["errors"] > 0 and parts["biases"] > 0
        assert (parts["mlps"] > 0) == (1 not in kinds)
        assert list(found.features) == [layer for layer in kinds if layer < 2]
        assert all(len(active.row) for active in found.features.values())
    if kinds is SKIPS:
        assert float(direct(case.frozen, case.reading).parts["skips"].abs().sum()) > 0


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("mid", [False, True])
def test_sums_hold_in_double_precision(parallel, mid):
    """A made-up model, so that no step is in float32."""
    B, T, D, H, E, F, L = 2, 5, 6, 3, 2, 7, 3

    def noise(*shape):
        return torch.randn(*shape, dtype=torch.float64)

    embed, start = noise(B, T, D), noise(B, T, D)
    x, attention, mlps = start, [], []
    for layer in range(L):
        pattern = noise(B, H, T, T).tril().softmax(-1)
        weights = AttentionWeights(noise(H, D, E), noise(H, E), noise(H, E, D), noise(D))
        behind = noise(B, T, D) if layer == 1 else None
        each = FrozenAttention(weights, pattern, x, noise(B, T, 1).exp(), behind)
        values = torch.einsum("bsd,hde->bhse", each.gain * x, weights.values)
        z = pattern @ (values + weights.value_bias[:, None])
        out = torch.einsum("bhte,hed->btd", z, weights.out) + weights.bias
        out = out if behind is None else out * behind
        before, x = x, x + out
        attention.append(each)
        if mid and layer == L - 1:
            break
        row, place, feature = (noise(B, T, F) > 0.5).nonzero(as_tuple=True)
        active = ActiveFeatures(row, place, feature, noise(len(row)).exp())
        decoder, bias, error = noise(F, D), noise(D), noise(B, T, D)
        skip = FrozenSkip(noise(D, D), before if parallel else x, noise(B, T, 1).exp())
        acts = torch.zeros(B, T, F, dtype=torch.float64)
        acts[row, place, feature] = active.value
        x = x + acts @ decoder + bias + error + skip.forward(skip.x)
        mlps.append(Decomposed(active, decoder, bias, error, skip))
    model = FrozenModel(embed, start, attention, mlps, parallel)
    at = torch.tensor([4, 2])
    g = noise(B, D)
    reading = Reading(g, at, len(mlps), mid, constant=0.7)
    expected = (x[torch.arange(B), at] * g).sum(1) + 0.7
    for split in (direct, origins):
        # double precision: 1e-10 leaves room for a thousand roundings
        torch.testing.assert_close(split(model, reading).total, expected, rtol=1e-10, atol=1e-10)
    # carried on, a change at the embedding does what its gradient says
    change = noise(B, T, D)
    if not mid:
        carried = (model.forward(change, 0)[torch.arange(B), at] * g).sum(1)
        moved = FrozenModel(change, change, attention, mlps, parallel)
        torch.testing.assert_close(
            origins(moved, reading).parts["token"].sum(1), carried, rtol=1e-10, atol=1e-10
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_origins_are_gradients_of_the_models_own_modules(family, tmp_path):
    case = family_case(family, tmp_path, SKIPS)
    oracle = Gradients(case.model, dict(case.dictionaries))
    found = origins(case.frozen, case.reading)
    for i, prompt in enumerate(PROMPTS):
        ids = case.model.tokenize([prompt]).ids[0]
        padding = case.batch.ids.shape[1] - len(ids)
        place = int(case.at[i]) - padding
        site, index = case.target.dictionary.site, case.target.index
        activation, at_embed, behind = oracle.of(ids, site, index, place)
        assert activation == pytest.approx(float(case.activation[i]), rel=1e-5)
        tokens = (case.frozen.embed[i, padding:] * at_embed).sum(1)  # (T,)
        torch.testing.assert_close(found.parts["token"][i, padding:], tokens, **CLOSE)
        assert not found.parts["token"][i, :padding].any()
        for layer, active in found.features.items():
            mlp = case.frozen.mlps[layer]
            mine = active.row == i
            assert (active.place[mine] >= padding).all()
            g = behind[layer][active.place[mine] - padding]  # (n, D)
            acts = mlp.active.value[mine]
            expected = acts * (mlp.decoder[active.feature[mine]] * g).sum(1)
            torch.testing.assert_close(active.value[mine], expected, **CLOSE)


def test_gradient_is_that_of_finite_differences(tmp_path):
    """Patterns and factors held, every head in a loop; linear, so a large step is exact."""
    case = family_case("gpt2", tmp_path, PLAIN)
    model, frozen = case.model, case.frozen

    def read(embed):
        x = frozen.start - frozen.embed + embed
        for layer in range(3):
            each = frozen.attention[layer]
            norm = in_block(model, "ln_1", layer)
            y = (x - x.mean(-1, keepdim=True)) * each.gain * norm.weight + norm.bias
            v = in_block(model, "attn.c_attn", layer)(y).chunk(3, -1)[2]
            v = v.unflatten(-1, (4, 8))
            z = torch.stack([each.pattern[:, h] @ v[:, :, h] for h in range(4)], 2)
            x = x + in_block(model, "attn.c_proj", layer)(z.flatten(2))
            if layer < 2:
                x = x + case.values[Site("mlp_out", layer)]
        return (x[rows_of(case)] * case.reading.row).sum(1) + case.reading.constant

    torch.testing.assert_close(read(frozen.embed), case.activation, **CLOSE)
    step = torch.randn_like(frozen.embed)
    moved = read(frozen.embed + step) - read(frozen.embed)
    mask = case.batch.mask[..., None]
    by_rows = FrozenModel(step * mask, step * mask, frozen.attention, frozen.mlps)
    expected = origins(by_rows, case.reading).parts["token"].sum(1)
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "pythia", "llama", "qwen2", "gemma2"])
def test_published_scores_add_up_to_what_attention_puts_out(family, tmp_path):
    case = family_case(family, tmp_path, PLAIN)
    raw = case.target.raw.expand(len(case.at), -1)
    assert torch.equal(raw[0], case.target.dictionary.sae.W_enc[:, case.target.index])
    for layer in range(3):
        scores, bias = case.frozen.attention[layer].heads(raw, case.at, raw=True)
        site = Site("attn_out" if family != "gemma2" else "head_out", layer)
        out = run(case.model, case.batch, [site])[site][rows_of(case)]
        out = out.sum(1) if family == "gemma2" else out  # its attn_out is behind a norm
        torch.testing.assert_close(scores.sum((1, 2)) + bias, (out * raw).sum(1), **CLOSE)


def test_modes_coincide_where_no_norm_lies_between(tmp_path):
    model = family_model("gpt2")
    write(tmp_path / "one", "jumprelu", model.width, about(model, str(Site("resid_mid", 2))))
    case = held(model, ct.load_dictionaries(model, tmp_path), PROMPTS)
    assert torch.equal(case.target.raw, case.target.row)
    raw = case.target.raw.expand(3, -1)
    assert len(direct(case.frozen, case.reading).heads) == 3
    for attention, scores in zip(
        case.frozen.attention, direct(case.frozen, case.reading).heads, strict=False
    ):
        assert torch.equal(attention.heads(raw, case.at, raw=True)[0], scores)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_sum_of_what_everything_adds_to_them(family, tmp_path):
    case = family_case(family, tmp_path, SKIPS)
    model, last = case.model, case.values[Site("resid_post", 2)]
    norm = model.hf.get_submodule(model.architecture.final_norm)
    at = torch.full_like(case.at, last.shape[1] - 1)
    rows = torch.arange(len(at))
    logits = run(model, case.batch, [LOGITS], last_logits=True)[LOGITS][:, -1]
    cap = getattr(model.hf.config, "final_logit_softcapping", None)
    logits = cap * torch.atanh(logits / cap) if cap else logits
    gain = norm_gain(last[rows, at], norm, model.architecture)
    bias = getattr(norm, "bias", None)
    for token in (5, 11):
        row = gain * unembedding_rows(model)[token]
        fixed = 0.0
        if bias is not None:
            fixed = float(bias @ unembedding_rows(model, final_norm=False)[token])
        for split in (direct, origins):
            found = split(case.frozen, Reading(row, at, 3, constant=fixed))
            # a capped logit is turned back from near its limit, which enlarges its rounding
            close = {"rtol": 1e-3, "atol": 1e-3} if cap else {"rtol": 1e-4, "atol": 1e-4}
            torch.testing.assert_close(found.total, logits[:, token], **close)


@pytest.mark.parametrize("family", ["gpt2", "pythia", "llama", "gemma2"])
def test_a_direction_carried_on_adds_what_a_gradient_says(family, tmp_path):
    case = family_case(family, tmp_path, SKIPS)
    model, last = case.model, case.values[Site("resid_post", 2)]
    written, at = torch.randn(len(case.at), model.width), case.at - 2
    places = torch.stack([case.at - 1, torch.full_like(case.at, last.shape[1] - 1)], 1)
    added = logit_contributions(model, case.frozen, last, written, at, places, 1, mid=False)
    norm = model.hf.get_submodule(model.architecture.final_norm)
    rows = torch.arange(len(at))
    start = torch.zeros_like(last)
    start[rows, at] = written
    for n in range(2):
        gain = norm_gain(last[rows, places[:, n]], norm, model.architecture)
        reading = Reading(gain * unembedding_rows(model)[7], places[:, n], 2)
        # blocks 1 and 2 alone, entered by what is written
        rest = FrozenModel(
            start, start, case.frozen.attention[1:], case.frozen.mlps[1:], case.frozen.parallel
        )
        expected = origins(rest, reading).parts["token"].sum(1)
        torch.testing.assert_close(added[:, n, 7], expected, **CLOSE)


@pytest.mark.parametrize("family", ["gpt2", "pythia", "llama", "gemma2"])
def test_an_example_gives_the_same_alone_and_in_a_batch(family, tmp_path):
    case = family_case(family, tmp_path, SKIPS)
    together = direct(case.frozen, case.reading), origins(case.frozen, case.reading)
    for i, prompt in enumerate(PROMPTS):
        weights = held(case.model, case.dictionaries, [prompt], case.target.dictionary.site)
        padding = case.batch.ids.shape[1] - weights.batch.ids.shape[1]
        at = case.at[i : i + 1] - padding
        reading = case.target.reading(case.model, weights.values[case.target.stream], at)
        for split, both in zip((direct, origins), together, strict=True):
            alone = split(weights.frozen, reading)
            torch.testing.assert_close(alone.total[0], both.total[i], **CLOSE)
            for mine, shared in zip(alone.heads, both.heads, strict=True):
                torch.testing.assert_close(mine[0], shared[i, :, padding:], **CLOSE)
                assert not shared[i, :, :padding].any()
            for name, part in alone.parts.items():
                shared = both.parts[name][i]
                shared = shared[padding:] if shared.ndim else shared
                torch.testing.assert_close(part[0], shared, **CLOSE)


def test_sums_hold_on_the_bundled_model(demo, demo_transcoders):
    texts = ct.tasks.ioi(demo, n=12).texts + ct.tasks.docstring(demo, n=12).texts
    for site in demo_transcoders:
        case = held(demo, demo_transcoders, texts, site)
        for split in (direct, origins):
            found = split(case.frozen, case.reading)
            torch.testing.assert_close(found.total, case.activation, rtol=1e-4, atol=0)


def test_sums_hold_for_a_resid_mid_transcoder(tmp_path):
    """Some transcoders read the raw stream (Llama-3.2-1B's)."""
    model = family_model("llama")
    kinds = {0: ("skip_transcoder", "resid_mid"), 2: ("transcoder", "resid_mid")}
    case = held(model, transcoders_of(model, tmp_path, kinds), PROMPTS)
    for split in (direct, origins):
        found = split(case.frozen, case.reading)
        torch.testing.assert_close(found.total, case.activation, rtol=1e-4, atol=0)
    assert np.isfinite(float(found.total.sum()))

"""What features are called, and why they are active, on a real model."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import circuit_toolkit as ct
from circuit_toolkit.dictionaries.fidelity import is_inlying
from circuit_toolkit.models import run
from circuit_toolkit.sites import Site
from circuit_toolkit.weight_lens.single_token import first_token
from tests.dictionaries.published import about, write

TEXTS = ["Then, Mary and John went to the store.", "The old house stood near a river in Wales."]


def test_the_sum_of_activations_tells_the_tokens_of_outlying_norm(smollm2):
    """Coordinates of the stream as features; the first token's norm is a hundred times others'."""
    site = Site("resid_post", 15)
    acts = ct.capture(smollm2, [site], TEXTS, progress=False)
    batch = smollm2.tokenize(TEXTS)
    values = run(smollm2, batch, [site])[site][batch.mask.bool()]
    np.testing.assert_array_equal(acts.inlying(site), is_inlying(values).numpy())
    np.testing.assert_array_equal(acts.inlying(site), acts.position > 0)
    named = {word for name in ct.feature_labels(acts)[site] for word in name.split(", ")}
    assert not named & {"Then", "The"} and {"Mary", "river"} & named


@pytest.fixture(scope="module")
def transcoders(smollm2, tmp_path_factory):
    """Random ones of three layers; no layer in front of the first, or between them, has any."""
    folder = tmp_path_factory.mktemp("transcoders")
    for layer in (3, 4, 9):
        sites = str(Site("mlp_in", layer)), str(Site("mlp_out", layer))
        claims = about(smollm2, *sites, prepend_bos=False)
        write(folder / f"{layer}", "jumprelu_transcoder", smollm2.width, claims)
    return ct.load_dictionaries(smollm2, folder, kind="transcoder")


def test_contributions_add_up_to_what_plain_hooks_see(smollm2, transcoders):
    """Heads, tokens, features, errors and biases, over 9 layers of shared keys and values."""
    layer, dictionary = smollm2.hf.model.layers[9], transcoders[Site("mlp_in", 9)]
    seen = []
    hook = layer.post_attention_layernorm.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    with torch.no_grad():
        smollm2.hf(smollm2.tokenize(TEXTS[:1]).ids)
    hook.remove()
    x = seen[0][0].double()  # (T, D)
    x = (
        x
        * (
            x.pow(2).mean(-1, keepdim=True) + layer.post_attention_layernorm.variance_epsilon
        ).rsqrt()
    )
    weights = {name: each.detach().double() for name, each in dictionary.sae.named_parameters()}
    pre = x @ weights["W_enc"] + weights["b_enc"]
    pre[0] = 0  # the sink is no example
    chosen = (pre > weights["threshold"]).any(0).nonzero().ravel().tolist()[:6]
    lens = ct.CircuitLens(n_outputs=0)
    for feature in chosen:
        found = lens.analyse(smollm2, transcoders, TEXTS, (9, feature), progress=False).examples
        assert found[["error", "origins_error"]].to_numpy().max() < 1e-4  # 4e-6 was measured
        mine = found[found["prompt"] == 0]
        expected = pre[:, feature].max().item()
        assert mine["pre_activation"].item() == pytest.approx(expected, rel=1e-4)


def test_sums_of_the_attribution_graph_hold(smollm2, transcoders):
    graph = ct.attribution_graph(smollm2, transcoders, TEXTS[0][:-1], progress=False)
    assert graph.evidence["attribution"]["largest_error"] < 1e-4
    assert {"feature", "error", "token"} <= {*graph.node_table()["kind"]}


def test_words_that_a_feature_reads_are_found_behind_a_sink(smollm2, tmp_path):
    """A feature for each of three words, which no embedding shows, at the second layer."""
    words, site = [" Mary", " river", " store"], Site("mlp_in", 1)
    ids = [smollm2.token_id(word) for word in words]
    batch = smollm2.tokenize([[smollm2.bos_id, token] for token in [*ids, *range(1000, 1200)]])
    x = run(smollm2, batch, [site])[site][:, -1]
    rows = x[:3] - x.mean(0)
    claims = about(smollm2, str(site), str(Site("mlp_out", 1)), prepend_bos=False)
    folder = write(tmp_path / "1", "jumprelu_transcoder", smollm2.width, claims)
    tensors = load_file(folder / "sae_weights.safetensors")
    tensors["W_enc"][:, :3] = rows.T
    tensors["b_enc"][:3] = -0.6 * (x[:3] * rows).sum(1)
    tensors["threshold"][:3] = 0
    save_file(tensors, folder / "sae_weights.safetensors")
    found = ct.load_dictionaries(smollm2, tmp_path, kind="transcoder")
    assert first_token(smollm2, found) == smollm2.bos_id
    described = ct.WeightLens().describe(smollm2, found, progress=False)
    assert described.settings["inputs"] == "first_layer"
    for feature, token in enumerate(ids):
        record = described.of(site, feature)
        solo = {row["id"]: row["solo"] for row in record["tokens"]["positive"]}
        assert token in {row["id"] for row in record["description"]} and len(solo) < 50
        assert max(solo, key=lambda each: solo[each]) == token

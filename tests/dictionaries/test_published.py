"""Dictionaries read what their authors read: ours on nnsight, sae_lens's on TransformerLens."""

import json
import shutil
from functools import cache

import pytest
import torch
from sae_lens import SAE

from circuit_toolkit.dictionaries import load_dictionaries, save_dictionary, shared_bos
from circuit_toolkit.errors import MismatchError
from circuit_toolkit.interventions import intervene, zero
from circuit_toolkit.models import RAW, Conventions, run
from circuit_toolkit.sites import Site
from tests.dictionaries.published import (
    CENTRED,
    FEATURES,
    SAES,
    TRANSCODERS,
    about,
    alone,
    edit,
    family_model,
    fresh,
    lens_cache,
    write,
)
from tests.families import PLAIN, PROCESSINGS, PROMPTS, lens_model

TOLERANCE = 1e-5  # float32 through up to three layers, activations of order 1 to 10
pytestmark = pytest.mark.filterwarnings(r"ignore:\s*This SAE has non-empty")  # theirs

model_of = cache(family_model)


@cache
def lens_of(family, flags):
    return lens_model(model_of(family).hf, dict(flags))


def both(family, folder, flags):
    """Our features and sae_lens's of every prompt, and the raw values that ours were made of."""
    model = model_of(family)
    ((site, dictionary),) = load_dictionaries(model, folder).items()
    batch = model.tokenize(PROMPTS, bos=shared_bos([dictionary]))  # padded
    values = run(model, batch, sorted({site, dictionary.out}))
    theirs, lens = fresh(folder), lens_of(family, tuple(flags.items()))
    hook = theirs.cfg.metadata.hook_name
    for i, text in enumerate(PROMPTS):
        x = lens_cache(lens, alone(model, text), hook)[0]
        real = batch.mask[i].bool()
        raw = {place: value[i, real] for place, value in values.items()}
        yield dictionary, raw, dictionary.encode(raw[site]), theirs, x


def assert_equal_features(family, folder, flags):
    fired = 0
    for _, _, ours, theirs, x in both(family, folder, flags):
        expected = theirs.encode(x)
        torch.testing.assert_close(ours, expected.to_dense(), rtol=0, atol=TOLERANCE)
        fired += int((ours > 0).sum())
    assert 0 < fired < ours.numel() * len(PROMPTS)


@pytest.mark.parametrize("processing", ["unprocessed", "all"])
@pytest.mark.parametrize("architecture", SAES)
def test_features_of_every_architecture_are_those_of_sae_lens(architecture, processing, tmp_path):
    flags = PROCESSINGS[processing]
    model = model_of("gpt2")
    said = about(model, "blocks.1.hook_resid_post", model_from_pretrained_kwargs=flags)
    write(tmp_path / "it", architecture, model.width, said)
    assert_equal_features("gpt2", tmp_path / "it", flags)
    for dictionary, raw, acts, theirs, x in both("gpt2", tmp_path / "it", flags):
        ours = dictionary.decode(acts)
        torch.testing.assert_close(ours, theirs.decode(theirs.encode(x)), rtol=0, atol=2e-5)
        rebuilt = dictionary.reconstruct(raw[dictionary.site])  # raw: the mean is put back
        mean = raw[dictionary.site].mean(-1, keepdim=True) if flags["fold_ln"] else 0
        torch.testing.assert_close(rebuilt, ours + mean, rtol=0, atol=2e-5)


@pytest.mark.parametrize("processing", ["unprocessed", "all"])
@pytest.mark.parametrize("architecture", TRANSCODERS)
def test_transcoders_rebuild_the_mlp_as_sae_lens_does(architecture, processing, tmp_path):
    flags = PROCESSINGS[processing]
    model = model_of("gpt2")
    hooks = "blocks.2.ln2.hook_normalized", "blocks.2.hook_mlp_out"
    said = about(model, *hooks, model_from_pretrained_kwargs=flags)
    write(tmp_path / "it", architecture, model.width, said)
    assert_equal_features("gpt2", tmp_path / "it", flags)
    for dictionary, raw, _, theirs, x in both("gpt2", tmp_path / "it", flags):
        assert dictionary.kind == "transcoder"
        y = raw[Site("mlp_out", 2)]
        rebuilt = dictionary.reconstruct(raw[Site("mlp_in", 2)], y)
        mean = y.mean(-1, keepdim=True) if flags["fold_ln"] else 0
        torch.testing.assert_close(rebuilt, theirs(x) + mean, rtol=0, atol=2e-5)  # skips included
        if flags["fold_ln"]:
            with pytest.raises(ValueError, match=r"reconstruct\(x, y\)"):
                dictionary.reconstruct(raw[Site("mlp_in", 2)])


@pytest.mark.parametrize(
    ("family", "hook"),
    [
        *((family, "blocks.1.hook_resid_pre") for family in ("pythia", "llama", "gemma2")),
        *((family, "blocks.1.hook_mlp_out") for family in ("pythia", "qwen3", "gemma3")),
        *((family, "blocks.1.hook_attn_out") for family in ("gpt2", "mistral", "gemma2")),
        *((family, "blocks.1.attn.hook_z") for family in ("gpt2", "pythia", "qwen2", "gemma3")),
        *((family, "blocks.1.ln2.hook_normalized") for family in ("gpt2", "llama", "gemma2")),
        ("gpt2", "blocks.1.hook_resid_mid"),
        ("gpt2", "blocks.1.attn.hook_result"),
        ("gpt2", "hook_embed"),
        ("gpt2", "blocks.1.hook_mlp_in"),
    ],
)
@pytest.mark.parametrize("processing", ["unprocessed", "all"])
def test_features_are_equal_at_every_site_and_family(family, hook, processing, tmp_path):
    flags = PROCESSINGS[processing]
    model = model_of(family)
    lens = lens_of(family, tuple(flags.items()))
    lens.set_use_hook_mlp_in(hook.endswith("hook_mlp_in"))
    width = lens_cache(lens, alone(model, PROMPTS[0]), hook)[0, 0].numel()
    said = about(model, hook, model_from_pretrained_kwargs=flags)
    reshape = "hook_z" if hook.endswith("_z") else "none"
    write(tmp_path / "it", "jumprelu", width, said, reshape_activations=reshape)
    if hook.endswith("hook_result"):  # sae_lens flattens hook_z only
        for _, _, ours, theirs, x in both(family, tmp_path / "it", flags):
            torch.testing.assert_close(ours, theirs.encode(x.flatten(-2)), rtol=0, atol=TOLERANCE)
    else:
        assert_equal_features(family, tmp_path / "it", flags)


@pytest.mark.parametrize("flag", [{}, {"fold_value_biases": True}])
def test_heads_keep_their_shape(flag, tmp_path):
    model, flags = model_of("gpt2"), PLAIN | flag
    said = about(model, "blocks.1.attn.hook_z", model_from_pretrained_kwargs=flags)
    write(tmp_path / "z", "topk", model.width, said, reshape_activations="hook_z")
    assert_equal_features("gpt2", tmp_path / "z", flags)
    for dictionary, raw, acts, theirs, x in both("gpt2", tmp_path / "z", flags):
        z = raw[Site("attn_z", 1)]
        decoded = dictionary.decode(acts)  # before anything was encoded, sae_lens cannot
        assert decoded.shape == z.shape == (len(z), 4, 8)
        torch.testing.assert_close(decoded, theirs.decode(theirs.encode(x)), rtol=0, atol=2e-5)
        bias = z - x  # what folding took away
        assert (bias.abs().max() > 0.1) == bool(flag)
        torch.testing.assert_close(dictionary.reconstruct(z), decoded + bias, rtol=0, atol=2e-5)


@pytest.mark.parametrize("hook", ["blocks.1.attn.hook_z", "blocks.1.hook_resid_post"])
def test_a_dictionary_goes_back_to_sae_lens(hook, tmp_path):
    model = model_of("gpt2")
    reshape = "hook_z" if hook.endswith("_z") else "none"
    write(tmp_path / "it", "topk", model.width, about(model, hook), reshape_activations=reshape)
    ((site, dictionary),) = load_dictionaries(model, tmp_path / "it").items()
    again, theirs = dictionary.to_sae_lens(), fresh(tmp_path / "it")
    assert type(again) is type(theirs) and again.cfg.to_dict() == theirs.cfg.to_dict()
    x = torch.randn(5, *model.shape_at(site))  # heads apart at hook_z, as it sees them
    assert torch.equal(again(x), theirs(x)) and again(x).shape == x.shape
    batch = model.tokenize(PROMPTS, bos=True)
    raw = run(model, batch, [site])[site]
    dictionary.encode(raw)  # ours goes on as it did
    again.W_dec.data.zero_()
    assert dictionary.sae.W_dec.abs().sum() > 0
    save_dictionary(dictionary, tmp_path / "saved", half=False)
    assert torch.equal(fresh(tmp_path / "saved")(x), theirs(x))


@pytest.mark.parametrize("normalize", ["layer_norm", "constant_norm_rescale"])
def test_inputs_are_normalised_and_reconstructions_are_not(normalize, tmp_path):
    model = model_of("gpt2")
    said = about(model, "blocks.1.hook_resid_post", model_from_pretrained_kwargs=CENTRED)
    write(tmp_path / "it", "jumprelu", model.width, said, normalize_activations=normalize)
    assert_equal_features("gpt2", tmp_path / "it", CENTRED)
    for dictionary, raw, acts, theirs, x in both("gpt2", tmp_path / "it", CENTRED):
        raw = raw[dictionary.site]
        expected = theirs.decode(theirs.encode(x))
        torch.testing.assert_close(dictionary.decode(acts, raw), expected, rtol=0, atol=2e-5)
        more = dictionary.difference(acts, 2 * acts, raw)
        doubled = theirs.encode(x) * 2
        torch.testing.assert_close(more, theirs.decode(doubled) - expected, rtol=0, atol=5e-5)
        with pytest.raises(ValueError, match=r"decode\(acts, x\)"):
            dictionary.decode(acts)


def trained_on_centred(folder, model, hook):
    """A dictionary that rebuilds centred activations exactly, and others not at all.

    Training on them leaves open what the encoder does with the mean; here it is made to matter.
    """
    width = model.width
    said = about(model, hook, model_from_pretrained_kwargs={"center_writing_weights": True})
    write(folder, "standard", width, said)
    sae = fresh(folder)
    ones = torch.full((width, 1), width**-0.5)
    basis = torch.linalg.qr(torch.cat([ones, torch.randn(width, width - 1)], 1)).Q[:, 1:]
    pairs = torch.cat([basis, -basis], 1)  # (D, 2 D - 2), each without mean
    sae.W_enc.copy_(torch.nn.functional.pad(pairs, (0, FEATURES - pairs.shape[1])))
    sae.W_dec.copy_(sae.W_enc.T)
    sae.W_enc += 3 * ones * torch.randn(FEATURES)
    sae.b_enc.zero_()
    sae.b_dec.zero_()
    sae.save_model(folder)
    return folder


def explained(y, rebuilt):
    return float(1 - (y - rebuilt).pow(2).sum() / (y - y.mean(0)).pow(2).sum())


def test_a_dictionary_of_centred_weights_is_wrong_unless_corrected(tmp_path):
    model = model_of("gpt2")
    folder = trained_on_centred(tmp_path / "it", model, "blocks.1.hook_resid_post")
    assert_equal_features("gpt2", folder, CENTRED)
    wrong = load_dictionaries(model, folder, conventions=RAW)
    for dictionary, raw, acts, theirs, x in both("gpt2", folder, CENTRED):
        raw = raw[dictionary.site]
        assert explained(x, theirs(x)) > 0.999
        assert explained(raw, dictionary.reconstruct(raw)) > 0.999
        naive = wrong[dictionary.site]
        assert explained(raw, naive.reconstruct(raw)) < 0
        assert (naive.encode(raw) - acts).abs().max() > 1
        # What one gets from sae_lens on Hugging Face's activations, without this package:
        torch.testing.assert_close(naive.encode(raw), theirs.encode(raw), rtol=0, atol=TOLERANCE)


def lens_ablated(lens, theirs, ids, mask):
    """Logits at the last token with features set to zero in TransformerLens."""

    def hook(x, hook):
        acts = theirs.encode(x).to_dense()
        change = theirs.decode(torch.where(mask, 0.0, acts)) - theirs.decode(acts)
        x[:, 1:] = (x + change)[:, 1:]  # <bos> is left alone
        return x

    return lens.run_with_hooks(ids, fwd_hooks=[(theirs.cfg.metadata.hook_name, hook)])[0, -1]


@pytest.mark.parametrize("hook", ["blocks.1.hook_resid_post", "blocks.1.attn.hook_z"])
def test_an_ablation_is_the_one_made_in_transformer_lens(hook, tmp_path):
    flags = PROCESSINGS["all"]
    model, lens = model_of("gpt2"), lens_of("gpt2", tuple(flags.items()))
    said = about(model, hook, model_from_pretrained_kwargs=flags)
    reshape = "hook_z" if hook.endswith("_z") else "none"
    folder = write(tmp_path / "it", "topk", model.width, said, reshape_activations=reshape)
    dictionaries, theirs = load_dictionaries(model, folder), fresh(folder)
    (site,) = dictionaries
    mask = torch.rand(FEATURES) < 0.5
    changes = [zero(site, features=mask.nonzero().flatten().tolist())]
    ours = intervene(model, PROMPTS, changes, dictionaries=dictionaries).logits.log_softmax(-1)
    plain = run(model, model.tokenize(PROMPTS), [Site("logits")])[Site("logits")][:, -1]
    for i, text in enumerate(PROMPTS):
        expected = lens_ablated(lens, theirs, alone(model, text), mask).log_softmax(-1)
        # Centred logits have the same probabilities; two layers and a norm add up rounding.
        torch.testing.assert_close(ours[i], expected, rtol=0, atol=1e-4)
        assert (ours[i] - plain[i].log_softmax(-1)).abs().max() > 0.05


def test_modules_of_hugging_face_are_sites_and_their_values_raw(tmp_path):
    model = model_of("gpt2")
    said = about(model, "transformer.h.1", model_class_name="AutoModelForCausalLM")
    del said["model_from_pretrained_kwargs"]  # nothing is open: nothing was processed
    folder = write(tmp_path / "it", "topk", model.width, said)
    ((site, dictionary),) = load_dictionaries(model, folder).items()
    assert site == Site("resid_post", 1)
    assert dictionary.conventions == Conventions(prepend_bos=True) and dictionary.reads.is_identity
    ids, seen = alone(model, PROMPTS[0]), {}
    module = model.hf.get_submodule("transformer.h.1")
    handle = module.register_forward_hook(lambda *args: seen.update(x=args[2]))
    model.hf(ids)
    handle.remove()
    x = run(model, model.tokenize([PROMPTS[0]], bos=True), [site])[site]
    expected = fresh(folder).encode(seen["x"]).to_dense()
    torch.testing.assert_close(dictionary.encode(x), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("family", "module", "site"),
    [
        ("gpt2", "transformer.h.2", "resid_post 2"),
        ("gpt2", "transformer.h.1.attn", "attn_out 1"),
        ("gpt2", "transformer.h.1.mlp.output", "mlp_out 1"),
        ("gpt2", "transformer.h.1.ln_2.input", "resid_mid 1"),
        ("gpt2", "transformer.wte", "embed"),
        ("pythia", "gpt_neox.layers.1.attention.dense.input", "attn_z 1"),
        ("llama", "model.layers.1.post_attention_layernorm", "mlp_norm 1"),
        ("gemma2", "model.layers.1.post_attention_layernorm", "attn_out 1"),
        ("gemma2", "model.layers.1.pre_feedforward_layernorm.output", "mlp_norm 1"),
        ("gemma3", "model.layers.1.post_feedforward_layernorm.output", "mlp_out 1"),
        ("gemma3", "model.language_model.layers.1.output", "resid_post 1"),
        ("gemma3", "model.layers.1.self_attn.o_proj.input", "attn_z 1"),
    ],
)
def test_what_a_hugging_face_name_says_goes_before_the_hook_name(family, module, site, tmp_path):
    model = model_of(family)
    place = Site.parse(site)
    width = model.n_heads * model.d_head if place.kind == "attn_z" else model.width
    said = about(model, "blocks.0.hook_resid_pre", hf_hook_name=module)
    (found,) = load_dictionaries(model, write(tmp_path / "it", "jumprelu", width, said))
    assert found == place


@pytest.mark.parametrize(
    "module", ["model.layers.1.mlp", "model.layers.1.self_attn", "model.layers.1.mlp.up_proj"]
)
def test_modules_that_are_no_site_are_refused(module, tmp_path):
    model = model_of("gemma2")  # norms stand behind its MLP and attention
    said = about(model, module, model_class_name="AutoModelForCausalLM")
    folder = write(tmp_path / "it", "topk", model.width, said)
    with pytest.raises(MismatchError, match=f"reads '{module}', which is no site"):
        load_dictionaries(model, folder)
    edit(folder, hook_name="blocks.1.hook_mlp_out", hf_hook_name=module, model_class_name=None)
    with pytest.warns(UserWarning, match="which is no site: blocks.1.hook_mlp_out is read"):
        load_dictionaries(model, folder)


def old_format(folder, hook, **more):
    """Rewrite a configuration as sae_lens did before 6.0, everything on one level."""
    config = json.loads((folder / "cfg.json").read_text())
    kept = {key: config[key] for key in ("d_in", "d_sae", "dtype")}
    kept |= {"model_name": "gpt2-small", "hook_point": hook, "normalize_activations": False}
    (folder / "cfg.json").write_text(json.dumps(kept | more))


def test_configurations_from_before_6_0_are_read_as_sae_lens_does(tmp_path):
    model = model_of("gpt2")
    folder = write(
        tmp_path / "it", "standard", model.width, about(model, "blocks.1.hook_resid_pre")
    )
    old_format(folder, "blocks.1.hook_resid_pre")
    with pytest.raises(MismatchError, match="trained on 'gpt2-small', the model is 'GPT2LM"):
        load_dictionaries(model, folder)
    with pytest.warns(UserWarning, match="does not say how its model was processed") as caught:
        (dictionary,) = load_dictionaries(model, folder, check_model=False).values()
    assert len(caught) == 1  # sae_lens puts <bos> first where the file does not say
    assert dictionary.conventions == Conventions(prepend_bos=True)
    old_format(folder, "blocks.1.hook_resid_pre", model_from_pretrained_kwargs=CENTRED)
    (dictionary,) = load_dictionaries(model, folder, check_model=False).values()
    assert dictionary.conventions.center_writing_weights
    for _, _, ours, theirs, x in both_named(folder, CENTRED):
        torch.testing.assert_close(ours, theirs.encode(x), rtol=0, atol=TOLERANCE)


def both_named(folder, flags):
    """As `both`, for a dictionary that gives the model its other name."""
    model = model_of("gpt2")
    before = model.hf.config._name_or_path
    model.hf.config._name_or_path = "openai-community/gpt2"
    try:
        yield from both("gpt2", folder, flags)
    finally:
        model.hf.config._name_or_path = before


def test_a_file_of_weights_is_read_with_the_configuration_beside_it(tmp_path):
    model = model_of("gpt2")
    said = about(model, "blocks.1.hook_resid_post")
    folder = write(tmp_path / "it", "gated", model.width, said)
    (whole,) = load_dictionaries(model, folder).values()
    shutil.move(folder / "sae_weights.safetensors", folder / "mine.safetensors")
    (single,) = load_dictionaries(model, folder / "mine.safetensors").values()
    x = torch.randn(20, model.width)
    assert torch.equal(whole.encode(x), single.encode(x))
    assert list(load_dictionaries(model, str(folder / "mine.safetensors"))) == [single.site]


def test_a_scale_that_lies_beside_a_checkpoint_is_folded_in(tmp_path):
    model = model_of("llama")
    said = about(model, "blocks.1.hook_resid_post")
    config = {"normalize_activations": "expected_average_only_in"}
    folder = write(tmp_path / "it", "jumprelu", model.width, said, **config)
    with pytest.warns(UserWarning, match="trained on scaled activations"):
        load_dictionaries(model, folder)
    (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 2.5}))
    (dictionary,) = load_dictionaries(model, folder).values()
    x, theirs = torch.randn(9, model.width), fresh(folder)
    torch.testing.assert_close(dictionary.encode(x), theirs.encode(2.5 * x))
    torch.testing.assert_close(dictionary.reconstruct(x), theirs(2.5 * x) / 2.5)


def test_directions_are_what_a_unit_of_a_feature_adds(tmp_path):
    model = model_of("gpt2")
    said = about(model, "blocks.1.hook_resid_post")
    config = {"rescale_acts_by_decoder_norm": True}
    folder = write(tmp_path / "it", "topk", model.width, said, **config)
    (dictionary,) = load_dictionaries(model, folder).values()
    one = torch.eye(FEATURES)
    added = dictionary.difference(torch.zeros_like(one), one)
    torch.testing.assert_close(dictionary.directions, added, rtol=1e-5, atol=1e-6)


def test_half_precision_activations_give_float32_features(tmp_path):
    model = model_of("gpt2")
    folder = write(
        tmp_path / "it", "jumprelu", model.width, about(model, "blocks.1.hook_resid_post")
    )
    (dictionary,) = load_dictionaries(model, folder).values()
    x = torch.randn(7, model.width).bfloat16()
    assert dictionary.encode(x).dtype == dictionary.reconstruct(x).dtype == torch.float32
    assert torch.equal(dictionary.encode(x), dictionary.encode(x.float()))
    assert isinstance(dictionary.sae, SAE)


def test_how_prompts_begin_must_be_shared(tmp_path):
    model = model_of("gpt2")
    for i, bos in enumerate([True, False]):
        said = about(model, f"blocks.{i}.hook_resid_post", prepend_bos=bos)
        write(tmp_path / str(i), "topk", model.width, said)
    dictionaries = load_dictionaries(model, tmp_path)
    with pytest.raises(
        MismatchError, match="'0' was trained on prompts that begin.*'1' on prompts"
    ):
        shared_bos(dictionaries)
    first, second = dictionaries.values()
    assert shared_bos([first]) is True and shared_bos([second]) is False and shared_bos([]) is None

"""Families without a conversion of TransformerLens: sites are what plain hooks and sums show."""

import re
from functools import cache
from typing import get_args

import pytest
import torch
import transformers as hf

from circuit_toolkit.attribution.gradient_interactions import modified_gradients
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Conventions, load_model, run, shift
from circuit_toolkit.models.components import run_components
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.models.weights import Projection, input_matrices, output_bias, value_bias
from circuit_toolkit.sites import KINDS, Site
from tests.families import (
    CONFIGS,
    GROUPED,
    PROMPTS,
    ROPE,
    UNCONVERTED,
    random_model,
    word_tokenizer,
)

TOL = 2e-5  # float32 through three layers of values up to 20, sums in another order
LOGITS = Site("logits")
# Compared with TransformerLens too, in its own file; here with Hugging Face alone.
NEW = ("phi3", "gpt-neo", "opt", *UNCONVERTED)
# Where a family keeps things, said a second time: (maker of values, W_O, what the MLP reads, MLP).
USUAL = ("self_attn.v_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp")
PLACES = {
    "phi3": ("self_attn.qkv_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp"),
    "gpt-neo": ("attn.attention.v_proj", "attn.attention.out_proj", "ln_2", "mlp"),
    "opt": ("self_attn.v_proj", "self_attn.out_proj", "final_layer_norm", "fc2"),
    "olmo2": ("self_attn.v_proj", "self_attn.o_proj", "mlp", "post_feedforward_layernorm"),
}


@cache
def case(name):
    module = random_model(name)
    module.set_attn_implementation("eager")  # others treat rows of padding otherwise
    model = load_model(module, word_tokenizer())
    batch = model.tokenize(PROMPTS)
    blocks = [Site(kind, layer) for layer in range(3) for kind in KINDS[1:-1]]
    values = run(model, batch, [Site("embed"), *blocks, LOGITS])
    return model, batch, values


def block(model, layer):
    return model.hf.get_submodule(f"{model.architecture.blocks}.{layer}")


@torch.no_grad()
def by_hand(model, batch, hooks=()):
    """What the Hugging Face module itself gives out, with plain hooks in place."""
    handles = [register(hook) for register, hook in hooks]
    try:
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
        inputs["position_ids"] = (batch.mask.cumsum(1) - 1).clamp(min=0)  # those of the text alone
        return model.hf(**inputs, output_hidden_states=True)
    finally:
        for handle in handles:
            handle.remove()


def seen_by(model, batch, module, before=False):
    """What goes into a module, or comes out of it."""
    seen = []
    if before:
        by_hand(model, batch, [(module.register_forward_pre_hook, lambda _, x: seen.append(x[0]))])
    else:
        by_hand(model, batch, [(module.register_forward_hook, lambda _, __, y: seen.append(y))])
    return seen[0]


def far(a, b):
    return (a - b).abs().max().item()


@pytest.fixture(params=NEW)
def name(request):
    return request.param


def test_the_stream_and_the_logits_are_those_of_hugging_face(name):
    model, batch, values = case(name)
    theirs = by_hand(model, batch)
    for layer in range(3):
        assert far(values[Site("resid_pre", layer)], theirs.hidden_states[layer]) <= TOL
        if layer < 2:  # the last one is normed there
            assert far(values[Site("resid_post", layer)], theirs.hidden_states[layer + 1]) <= TOL
    assert far(values[LOGITS], theirs.logits) <= TOL
    ids = model.hf.get_input_embeddings()(batch.ids)
    assert far(values[Site("embed")], ids * getattr(model.config, "embedding_multiplier", 1)) <= TOL


def test_what_attention_and_mlp_add_is_the_change_of_the_stream(name):
    model, _, values = case(name)
    for layer in range(3):
        pre, mid, post = (values[Site(k, layer)] for k in ("resid_pre", "resid_mid", "resid_post"))
        assert far(values[Site("attn_out", layer)], mid - pre) <= TOL
        assert far(values[Site("mlp_out", layer)], post - mid) <= TOL
        heads = values[Site("head_out", layer)].sum(-2) + output_bias(model, layer)
        if name == "olmo2":  # heads are in front of the norm, as in Gemma-2
            heads = block(model, layer).post_attention_layernorm(heads)
        assert far(heads, mid - pre) <= TOL
        assert values[Site("attn_out", layer)].std() > 0.1 < values[Site("mlp_out", layer)].std()


def test_z_is_the_pattern_times_the_values_of_plain_hooks(name):
    model, batch, values = case(name)
    for layer in range(3):
        path, out, *_ = PLACES.get(name, USUAL)
        made = seen_by(model, batch, block(model, layer).get_submodule(path))
        z = seen_by(model, batch, block(model, layer).get_submodule(out), before=True)
        ours = values[Site("attn_z", layer)]  # (B, T, H, d_head)
        assert far(ours.flatten(-2), z) <= TOL
        groups = getattr(model.config, "num_key_value_heads", 4)
        width = model.d_head
        v = made[..., -groups * width :].unflatten(-1, (groups, width))
        v = v.repeat_interleave(4 // groups, -2)
        pattern = values[Site("attn_pattern", layer)]
        assert far(torch.einsum("bhts,bshe->bthe", pattern, v), ours) <= TOL
        real = batch.mask.bool()
        total = pattern.sum(-1).transpose(1, 2)[real]
        if name == "gpt-oss":
            assert total.max() < 0.999, "nothing went to the sinks: the test would see nothing"
        else:
            assert far(total, torch.ones(())) <= TOL


def test_the_mlp_reads_what_the_sites_say(name):
    model, batch, values = case(name)
    _, _, path, last = PLACES.get(name, USUAL)
    for layer in range(3):
        norm = block(model, layer).get_submodule(path)
        read = seen_by(model, batch, norm, before=name == "olmo2")
        mlp_norm, mlp_in = (values[Site(kind, layer)] for kind in ("mlp_norm", "mlp_in"))
        assert far(mlp_norm, read.reshape(mlp_norm.shape)) <= TOL
        if name == "olmo2":
            assert far(mlp_in, values[Site("resid_mid", layer)]) == 0 == far(mlp_norm, mlp_in)
            continue
        bias = 0 if getattr(norm, "bias", None) is None else norm.bias
        assert far(mlp_norm, mlp_in * norm.weight + bias) <= TOL
        size = mlp_in.pow(2).mean(-1)[batch.mask.bool()]
        assert far(size, torch.ones(())) <= 1e-3  # but for epsilon
        if last != "fc2":
            out = block(model, layer).get_submodule(last)(mlp_norm)
            out = out[0] if isinstance(out, tuple) else out
            out = out * getattr(model.config, "residual_multiplier", 1)
            assert far(out, values[Site("mlp_out", layer)]) <= TOL


def test_a_prompt_gives_the_same_rows_alone_and_padded(name):
    model, batch, values = case(name)
    for i, prompt in enumerate(PROMPTS):
        ids = model.tokenize([prompt])
        alone = run(model, ids, [Site("attn_pattern", 1), Site("mlp_out", 2), LOGITS])
        for site, value in alone.items():
            n = ids.ids.shape[1]
            padded = values[site][i : i + 1]
            padded = padded[..., -n:, -n:] if site.kind == "attn_pattern" else padded[:, -n:]
            assert far(padded, value) <= TOL, site


def test_writing_what_is_added_is_writing_the_stream(name):
    model, batch, _ = case(name)
    delta = torch.randn(model.width, generator=torch.Generator().manual_seed(0))

    def logits(site, edit=lambda x: x + delta):
        return run(model, batch, [LOGITS], {site: edit})[LOGITS]

    def stream(_, args):
        return (args[0] + delta, *args[1:])

    def behind(_, __, out):
        return (out[0] + delta, *out[1:]) if isinstance(out, tuple) else out + delta

    before = by_hand(model, batch, [(block(model, 1).register_forward_pre_hook, stream)]).logits
    after = by_hand(model, batch, [(block(model, 1).register_forward_hook, behind)]).logits
    assert far(logits(Site("resid_pre", 1)), before) <= 2 * TOL
    assert far(logits(Site("resid_post", 1)), after) <= 2 * TOL
    assert far(logits(Site("mlp_out", 1)), after) <= 2 * TOL
    middle = logits(Site("resid_mid", 1))
    assert far(logits(Site("attn_out", 1)), middle) <= 2 * TOL
    assert far(before, after) > 0.01 < far(middle, after)  # so the places are told apart
    if name != "olmo2":

        def one_head(x):
            return x + torch.eye(4)[2][:, None] * delta

        assert far(logits(Site("head_out", 1), one_head), middle) <= 2 * TOL


def test_writing_patterns_and_z_agree_and_what_the_mlp_reads_is_read_by_it(name):
    model, batch, values = case(name)
    at = Site("attn_pattern", 1)
    new = 0.5 * values[at] + 0.5 * torch.eye(batch.ids.shape[1])
    site_z, out, read = Site("attn_z", 1), Site("mlp_out", 1), Site("mlp_norm", 1)
    written = run(model, batch, [at, site_z, LOGITS], {at: lambda _: new})
    again = run(model, batch, [LOGITS], {site_z: lambda _: written[site_z]})
    assert far(written[at], new) == 0 and far(written[LOGITS], again[LOGITS]) <= 2 * TOL
    assert far(written[LOGITS], values[LOGITS]) > 0.01
    other = values[read].flip(1)
    theirs = run(model, batch, [Site("resid_mid", 1), out, LOGITS], {read: lambda _: other})
    assert far(theirs[Site("resid_mid", 1)], values[Site("resid_mid", 1)]) == 0
    assert far(theirs[out], values[out].flip(1)) <= TOL  # an MLP works on each token alone
    inner = run(model, batch, [out], {Site("mlp_in", 1): lambda x: x.flip(1)})
    assert far(inner[out], theirs[out]) <= TOL


def test_blocks_that_are_skipped_give_what_was_put_in(name):
    model, batch, values = case(name)
    start = values[Site("resid_post", 1)]
    got = run(model, batch, [Site("mlp_out", 2), LOGITS], skip=(2, start))
    assert far(got[LOGITS], values[LOGITS]) <= TOL


def test_components_add_up_and_inputs_of_their_own_change_nothing(name):
    model, batch, values = case(name)
    if name == "olmo2":
        with pytest.raises(InputError, match="one norm takes the keys of all heads"):
            graph_of(model)
        return
    graph, plain = graph_of(model), run_components(model, batch)
    for slot, read in enumerate(plain.inputs):
        layer, is_mlp = divmod(slot, 2)
        done = layer + is_mlp if slot < 6 else 3
        total = plain.outputs[:, : graph.n_upstream(slot)].sum(1)
        total = total + sum(output_bias(model, before) for before in range(done))
        assert far(total, read) <= TOL, slot

    def zeros(slot, outputs):
        readers = graph.slots[slot]
        return outputs.new_zeros(len(outputs), readers.stop - readers.start, *outputs.shape[2:])

    own = run_components(model, batch, zeros)
    assert far(own.logits, values[LOGITS]) <= 2 * TOL
    assert far(own.outputs, plain.outputs) <= 2 * TOL


def test_phi3_is_the_llama_whose_maps_it_has_fused():
    """Heads with inputs of their own too, though keys and values of one map are shared."""
    phi, batch, values = case("phi3")
    torch.manual_seed(0)
    twin = hf.LlamaForCausalLM(
        hf.LlamaConfig(**GROUPED, rope_parameters=ROPE, rms_norm_eps=phi.config.rms_norm_eps)
    )
    weights = {}
    for path, weight in phi.hf.state_dict().items():
        if "qkv_proj" in path:
            parts = weight.split([32, 16, 16])
            names = [path.replace("qkv_proj", f"{one}_proj") for one in "qkv"]
        elif "gate_up_proj" in path:
            parts = weight.chunk(2)
            names = [path.replace("gate_up", one) for one in ("gate", "up")]
        else:
            parts, names = [weight], [path]
        weights |= dict(zip(names, parts, strict=True))
    twin.load_state_dict(weights)
    twin.set_attn_implementation("eager")
    llama = load_model(twin, word_tokenizer())
    for site, value in run(llama, batch, list(values)).items():
        assert far(value, values[site]) <= TOL, site
    graph = graph_of(phi)
    rng = torch.Generator().manual_seed(1)
    added = {
        slot: torch.randn(3, readers.stop - readers.start, *batch.ids.shape[1:], 32, generator=rng)
        for slot, readers in enumerate(graph.slots)
    }
    ours, theirs = (
        run_components(model, batch, lambda slot, _: added[slot]) for model in (phi, llama)
    )
    assert far(ours.outputs, theirs.outputs) <= 3 * TOL
    assert far(ours.logits, values[LOGITS]) > 0.1
    for which in get_args(Projection):
        for a, b in zip(
            input_matrices(phi, 1, which), input_matrices(llama, 1, which), strict=True
        ):
            assert torch.equal(a, b)


def test_what_a_family_cannot_do_is_refused_in_a_line():
    post_norm = hf.OPTForCausalLM(
        hf.OPTConfig(vocab_size=40, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
                     ffn_dim=8, word_embed_proj_dim=16, do_layer_norm_before=False)
    )  # fmt: skip
    with pytest.raises(InputError, match="norms stand behind attention and MLP, as in opt-350m"):
        load_model(post_norm, word_tokenizer())
    oss, *_ = case("gpt-oss")
    with pytest.raises(InputError, match="add up to less than 1"):
        value_bias(oss, 0, fold_ln=False)
    with pytest.raises(InputError, match="add up to less than 1"):
        shift(oss, Conventions(fold_value_biases=True), Site("attn_z", 0))
    olmo, *_ = case("olmo2")
    with pytest.raises(InputError, match="no norm stands in front of attention and MLP"):
        shift(olmo, Conventions(fold_ln=True), Site("mlp_norm", 0))
    assert shift(olmo, Conventions(fold_value_biases=True), Site("attn_z", 0)).is_identity


@pytest.mark.parametrize("name", ["gpt-neo", "gpt-oss"])
def test_gradients_of_attention_of_another_kind_are_not_replaced_in_vain(name):
    model, *_ = case(name)
    with pytest.raises(InputError, match="cannot be replaced by GIM's"), modified_gradients(model):
        pass
    with modified_gradients(case("granite")[0]):
        pass


def test_every_row_has_a_random_model():
    from circuit_toolkit.models import ARCHITECTURES

    made = {(CONFIGS | UNCONVERTED)[name]().model_type for name in (*CONFIGS, *UNCONVERTED)}
    inside = {"gemma3"}  # the text model of one that takes pictures, see test_loading
    assert made | inside == set(ARCHITECTURES)
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in ARCHITECTURES)

"""Heads that share keys and values read inputs of their own, in every family that shares them.

The oracle is the same Hugging Face model with ungrouped weights under plain PyTorch hooks, and
TransformerLens with ungrouped heads and split inputs.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack

import pytest
import torch
import transformers as hf

from circuit_toolkit.errors import InputError
from circuit_toolkit.models import LOGITS, load_model, run
from circuit_toolkit.models.components import logits_from, run_components
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.sites import Site
from tests.families import CONFIGS, PLAIN, PROMPTS, lens_model, random_model, word_tokenizer
from tests.models.test_components import offsets

FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "mixtral", "gemma", "gemma2", "gemma3"]
HEADS, GROUP = 4, 2
TOL = 1e-5  # float32 through three layers, activations up to 15, sums in another order
READERS = [["a0.h1"], ["a1.h2", "a1.h3"], ["m1"], ["logits"], ["a0.h0", "m0", "a1.h1", "a2.h3"]]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return load_model(random_model(request.param), word_tokenizer())


@pytest.fixture(scope="module")
def batch(model):
    return model.tokenize(list(PROMPTS))


def ungrouped(module):
    """The same model with keys and values of every head, built by transformers."""
    config = copy.deepcopy(module.config)
    config.num_key_value_heads = HEADS
    config.attention_bias = getattr(config, "attention_bias", False)
    other = hf.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    weights = dict(module.state_dict())
    for name, value in weights.items():
        if ".k_proj." in name or ".v_proj." in name:
            each = value.unflatten(0, (HEADS // GROUP, -1))
            weights[name] = each.repeat_interleave(GROUP, dim=0).flatten(0, 1)
    other.load_state_dict(weights)
    return other


def hooked(module, batch, added):
    """Outputs of all writers and logits by plain hooks; `added` maps readers to (B, T, D)."""
    module, width = ungrouped(module), module.model.layers[0].self_attn.head_dim
    body, written, reading = module.model, {}, {}
    with ExitStack() as stack:

        def before(part, hook):
            stack.callback(part.register_forward_pre_hook(hook).remove)

        def after(part, hook):
            stack.callback(part.register_forward_hook(hook).remove)

        before(body.layers[0], lambda _, args: written.update(embed=args[0]))
        for i, block in enumerate(body.layers):
            attention, norm = block.self_attn, block.input_layernorm
            behind = hasattr(block, "pre_feedforward_layernorm")

            def norm_in(_, args, i=i):
                reading[i] = args[0]

            before(norm, norm_in)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj):

                def project(part, _, out, i=i, norm=norm):
                    out = out.clone()
                    for h in range(HEADS):
                        if f"a{i}.h{h}" in added:
                            own = norm.forward(reading[i] + added[f"a{i}.h{h}"])
                            rows = slice(h * width, (h + 1) * width)
                            bias = 0 if part.bias is None else part.bias[rows]
                            out[..., rows] = own @ part.weight[rows].T + bias
                    return out

                after(part, project)

            def heads(part, args, i=i, block=block, behind=behind):
                z, weight = args[0], part.weight
                total = part.forward(z)
                factor = torch.ones(())
                if behind:
                    norm = block.post_attention_layernorm
                    factor = (1 + norm.weight) / (total.square().mean(-1, True) + norm.eps).sqrt()
                for h in range(HEADS):
                    rows = slice(h * width, (h + 1) * width)
                    written[f"a{i}.h{h}"] = z[..., rows] @ weight[:, rows].T * factor

            before(attention.o_proj, heads)
            reads = block.pre_feedforward_layernorm if behind else block.post_attention_layernorm
            before(reads, lambda _, args, i=i: (args[0] + added.get(f"m{i}", 0),))

            def mlp(_, __, out, i=i):
                written[f"m{i}"] = out

            after(block.post_feedforward_layernorm if behind else block.mlp, mlp)
        before(body.norm, lambda _, args: (args[0] + added.get("logits", 0),))
        with torch.no_grad():
            logits = module(batch.ids, attention_mask=batch.mask).logits
    return written, logits


def close(ours, theirs, where):
    """Largest difference where there are tokens."""
    return float(((ours - theirs) * where[..., None]).abs().max())


def test_nothing_added_is_the_plain_model(model, batch):
    graph, where = graph_of(model), batch.mask
    plain = run(model, batch, [LOGITS])[LOGITS]
    noted = run_components(model, batch)

    def zeros(slot, outputs):
        n = graph.slots[slot].stop - graph.slots[slot].start
        return outputs.new_zeros(len(outputs), n, *outputs.shape[2:])

    for other in (
        noted,
        run_components(model, batch, zeros),
        run_components(model, batch, lambda slot, outputs: None),
        run_components(model, batch, base=noted.inputs),
    ):
        assert close(other.logits, plain, where) <= TOL
        assert float(((other.outputs - noted.outputs) * where[:, None, :, None]).abs().max()) <= TOL
    attention = model.hf.model.layers[0].self_attn
    assert attention.num_key_value_groups == GROUP  # as it was


def test_components_add_up_to_what_is_read(model, batch):
    graph, got = graph_of(model), run_components(model, batch)
    for slot in range(len(graph.slots)):
        total = got.outputs[:, : graph.n_upstream(slot)].sum(1)
        assert close(total, got.inputs[slot], batch.mask) <= TOL, slot
    for layer in range(model.n_layers):  # no family here has a bias of its output map
        site = Site("attn_out", layer)
        first = graph.writer(f"a{layer}.h0")
        total = got.outputs[:, first : first + HEADS].sum(1)
        assert close(total, run(model, batch, [site])[site], batch.mask) <= TOL


@pytest.mark.parametrize("readers", READERS, ids="+".join)
def test_what_is_added_reaches_its_readers_alone(model, batch, readers):
    graph = graph_of(model)
    torch.manual_seed(1)
    added = {name: torch.randn(*batch.ids.shape, model.width) for name in readers}
    got = run_components(model, batch, offsets(graph, added))
    written, logits = hooked(model.hf, batch, added)
    for number, name in enumerate(graph.writers):
        assert close(got.outputs[:, number], written[name], batch.mask) <= TOL, name
    assert close(got.logits, logits, batch.mask) <= TOL
    plain = run(model, batch, [LOGITS])[LOGITS]
    assert close(got.logits, plain, batch.mask) > 0.01


@pytest.mark.parametrize("reader", ["a0.h1", "m0", "a2.h3", "m2", "logits"])
def test_logits_from_a_slot_on_are_those_of_a_whole_run(model, batch, reader):
    graph, clean = graph_of(model), run_components(model, batch)
    torch.manual_seed(2)
    offset = offsets(graph, {reader: torch.randn(*batch.ids.shape, model.width)})
    want = run_components(model, batch, offset).logits
    number = graph.reader(reader)
    slot = next(i for i, s in enumerate(graph.slots) if s.start <= number < s.stop)
    added = offset(slot, clean.outputs[:, : graph.n_upstream(slot)])
    stream = clean.inputs[slot - slot % 2]
    for last in (False, True):
        got = logits_from(model, batch, slot, stream, added, last_logits=last)
        assert got.shape[1] == (1 if last else batch.ids.shape[1])
        assert close(got, want[:, -got.shape[1] :], batch.mask[:, -got.shape[1] :]) <= TOL


def test_own_inputs_are_those_of_transformer_lens_with_ungrouped_heads(model):
    lens = lens_model(model.hf, PLAIN)
    lens.set_use_split_qkv_input(True)
    lens.set_ungroup_grouped_query_attention(True)
    batch = model.tokenize([PROMPTS[0]])
    delta = torch.randn(*batch.ids.shape, model.width)

    def add(x, hook):
        x = x.clone()
        x[:, :, 2] += delta
        return x

    theirs = lens.run_with_hooks(
        batch.ids, fwd_hooks=[(f"blocks.1.hook_{each}_input", add) for each in "qkv"]
    )
    ours = run_components(model, batch, offsets(graph_of(model), {"a1.h2": delta})).logits
    assert (ours - theirs).abs().max() <= 2 * TOL  # twice: two implementations of the model
    assert (ours - lens(batch.ids)).abs().max() > 0.01


def test_gradients_of_own_inputs_are_those_of_finite_differences(model):
    batch, graph = model.tokenize([PROMPTS[0]]), graph_of(model)
    leaves = {}

    def leaf(slot, outputs):
        n = graph.slots[slot].stop - graph.slots[slot].start
        leaves[slot] = outputs.new_zeros(1, n, *outputs.shape[2:]).requires_grad_()
        return leaves[slot]

    got = run_components(model, batch, leaf, grad=True)
    gradients = torch.autograd.grad(got.logits[0, -1, 5], list(leaves.values()))
    step = 1e-2
    for reader in ("a0.h1", "a1.h2", "m1"):
        number = graph.reader(reader)
        slot = next(i for i, s in enumerate(graph.slots) if s.start <= number < s.stop)
        gradient = gradients[slot][0, number - graph.slots[slot].start]
        towards = gradient / gradient.norm()
        values = [
            run_components(model, batch, offsets(graph, {reader: sign * step * towards[None]}))
            for sign in (1, -1)
        ]
        slope = (values[0].logits - values[1].logits)[0, -1, 5] / (2 * step)
        assert float(slope) == pytest.approx(float(gradient.norm()), rel=5e-3), reader


def test_a_norm_over_the_keys_of_all_heads_is_refused(model):
    changed = copy.copy(model)
    attention = model.hf.model.layers[0].self_attn
    kept = getattr(attention, "k_norm", None)
    attention.k_norm = torch.nn.RMSNorm(GROUP * model.d_head)
    try:
        with pytest.raises(InputError, match="one norm takes the keys of all heads together"):
            graph_of(changed)
    finally:
        attention.k_norm = kept
        if kept is None:
            del attention.k_norm


def test_families_are_all_that_share_keys_and_values():
    shared = [name for name, make in CONFIGS.items() if hasattr(make(), "num_key_value_heads")]
    fused = "phi3"  # one map of all three: compared with a Llama in test_families
    assert [name for name in shared if name != fused] == FAMILIES

"""Components with inputs of their own are what a GPT-2 written out head by head computes."""

import pytest
import torch
from torch.nn.functional import gelu
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from benchmarks.demo.tokenizer import build_tokenizer
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions import intervened, zero
from circuit_toolkit.models import LOGITS, load_model, run
from circuit_toolkit.models.components import run_components
from circuit_toolkit.models.graph import Graph, graph_of
from circuit_toolkit.sites import Site
from tests.tiny import LAYERS, TEXTS, tiny_hf

HEADS = 4
TOL = 5e-6  # float32 through three layers, sums in another order


def head_by_head(module, ids, added):
    """Outputs of all writers and the logits of one prompt; `added` maps a reader to (T, D)."""
    body, written = module.transformer, {}
    mask = torch.ones(len(ids), len(ids)).tril().bool()
    stream = body.wte.weight[ids] + body.wpe.weight[: len(ids)]
    written["embed"] = stream
    for i, block in enumerate(body.h):
        projection = block.attn.c_attn
        total = block.attn.c_proj.bias.clone()
        for h in range(HEADS):
            name, width = f"a{i}.h{h}", stream.shape[-1]
            x = block.ln_1(stream + added.get(name, 0))
            q, k, v = (
                (x @ projection.weight + projection.bias)[:, start : start + width // HEADS]
                for start in (third * width + h * width // HEADS for third in range(3))
            )
            scores = (q @ k.T / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf)
            z = scores.softmax(-1) @ v
            size = width // HEADS
            written[name] = z @ block.attn.c_proj.weight[h * size : (h + 1) * size]
            total = total + written[name]
        stream = stream + total
        x = block.ln_2(stream + added.get(f"m{i}", 0))
        inner = gelu(x @ block.mlp.c_fc.weight + block.mlp.c_fc.bias, approximate="tanh")
        written[f"m{i}"] = inner @ block.mlp.c_proj.weight + block.mlp.c_proj.bias
        stream = stream + written[f"m{i}"]
    logits = body.ln_f(stream + added.get("logits", 0)) @ module.lm_head.weight.T
    return written, logits


def offsets(graph, added):
    """An `Offset` from a mapping of readers to (B, T, D)."""

    def offset(slot, outputs):
        names = graph.readers[graph.slots[slot]]
        if not any(name in added for name in names):
            return None
        like = outputs[:, 0]
        return torch.stack([added.get(name, torch.zeros_like(like)) for name in names], 1)

    return offset


@pytest.fixture(scope="module")
def batch(tiny):
    return tiny.tokenize([TEXTS[1], "the girls near the cabinet"])


def llama():
    config = LlamaConfig(
        vocab_size=len(build_tokenizer()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        intermediate_size=48,
    )
    return LlamaForCausalLM(config)


def neox(parallel):
    config = GPTNeoXConfig(
        vocab_size=len(build_tokenizer()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=48,
        use_parallel_residual=parallel,
    )
    return GPTNeoXForCausalLM(config)


def family(name):
    if name == "gpt2":
        return load_model(tiny_hf(), build_tokenizer())
    torch.manual_seed(0)
    module = llama() if name == "llama" else neox(name == "neox parallel")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(6 if parameter.ndim == 2 else 1).add_(0.1 * torch.randn_like(parameter))
    return load_model(module, build_tokenizer())


FAMILIES = ["gpt2", "llama", "neox parallel", "neox"]


@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_and_biases_add_up_to_what_is_read(name, batch):
    model = family(name)
    got = run_components(model, batch)
    graph = graph_of(model)
    assert got.outputs.shape[1] == len(graph.writers) and len(got.inputs) == len(graph.slots)
    for slot in range(len(graph.slots)):
        total = got.outputs[:, : graph.n_upstream(slot)].sum(1)
        layer, is_mlp = divmod(slot, 2)
        done = layer + (is_mlp and not graph.parallel)  # attentions before this slot
        for before in range(done if slot < 2 * graph.n_layers else graph.n_layers):
            path = model.architecture.in_block(model.architecture.out_proj, before)
            bias = model.hf.get_submodule(path).bias
            total = total + (0 if bias is None else bias)
        assert (total - got.inputs[slot]).abs().max() <= TOL, slot
    assert (got.logits - run(model, batch, [LOGITS])[LOGITS]).abs().max() <= TOL


@pytest.mark.parametrize("name", FAMILIES)
def test_own_inputs_that_are_the_stream_change_nothing(name, batch):
    model = family(name)
    plain = run_components(model, batch)
    graph = graph_of(model)

    def zeros(slot, outputs):
        readers = graph.slots[slot]
        return outputs.new_zeros(len(outputs), readers.stop - readers.start, *outputs.shape[2:])

    own = run_components(model, batch, zeros)
    for what in ("outputs", "inputs", "logits"):
        assert (getattr(own, what) - getattr(plain, what)).abs().max() <= TOL, what
    again = run_components(model, batch, base=plain.inputs)
    assert (again.outputs - plain.outputs).abs().max() <= TOL


@pytest.mark.parametrize("name", FAMILIES)
def test_an_offset_sees_what_its_readers_can_read_and_no_more(name, batch):
    model, seen = family(name), {}
    graph = graph_of(model)
    got = run_components(model, batch, lambda slot, outputs: seen.update({slot: outputs.clone()}))
    for slot in range(len(graph.slots)):
        assert torch.equal(seen[slot], got.outputs[:, : graph.n_upstream(slot)]), slot


@pytest.mark.parametrize(
    "readers", [["a0.h1"], ["m0"], ["a1.h0", "a1.h3"], ["m2"], ["logits"], ["a0.h0", "m1", "a2.h2"]]
)
def test_what_is_added_reaches_its_reader_alone(tiny, batch, readers):
    graph = graph_of(tiny)
    shape = (*batch.ids.shape, tiny.width)
    added = {name: torch.randn(shape) for name in readers}
    got = run_components(tiny, batch, offsets(graph, added))
    for row, ids in enumerate(batch.ids):
        mine = {name: value[row] for name, value in added.items()}
        with torch.no_grad():
            written, logits = head_by_head(tiny_hf(), ids, mine)
        for number, name in enumerate(graph.writers):
            assert (got.outputs[row, number] - written[name]).abs().max() <= TOL, name
        assert (got.logits[row] - logits).abs().max() <= 2 * TOL
    plain = run_components(tiny, batch)
    assert (got.logits - plain.logits).abs().max() > 0.01


@pytest.mark.parametrize("name", FAMILIES)
def test_an_mlps_own_input_is_what_writing_the_stream_there_alone_gives(name, batch):
    model = family(name)
    graph, delta = graph_of(model), torch.randn(*batch.ids.shape, model.width)
    got = run_components(model, batch, offsets(graph, {"m0": delta}))
    plain = run_components(model, batch)
    norm = model.hf.get_submodule(model.architecture.in_block(model.architecture.mlp_norm, 0))
    with torch.no_grad():
        normed = norm(plain.inputs[1] + delta)
    edits = {Site("mlp_norm", 0): lambda _: normed}
    theirs = run(model, batch, [Site("mlp_out", 0), LOGITS], edits)
    assert (got.outputs[:, graph.writer("m0")] - theirs[Site("mlp_out", 0)]).abs().max() <= TOL
    assert (got.logits - theirs[LOGITS]).abs().max() <= TOL


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_addition_for_all_heads_is_a_change_of_the_norms_input(name, batch):
    model = family(name)
    graph, delta = graph_of(model), torch.randn(*batch.ids.shape, model.width)
    got = run_components(model, batch, offsets(graph, {f"a1.h{h}": delta for h in range(HEADS)}))
    row = model.architecture
    norm = model.hf.get_submodule(row.in_block(row.attn_norm, 1))
    handle = norm.register_forward_pre_hook(lambda _, args: (args[0] + delta, *args[1:]))
    try:
        theirs = run(model, batch, [LOGITS])[LOGITS]
    finally:
        handle.remove()
    assert (got.logits - theirs).abs().max() <= TOL


def test_on_a_base_nothing_travels_on(tiny, batch):
    graph, plain = graph_of(tiny), run_components(tiny, batch)
    delta = torch.randn(*batch.ids.shape, tiny.width)
    got = run_components(tiny, batch, offsets(graph, {"m0": delta}), base=plain.inputs)
    changed = (got.outputs - plain.outputs).abs().amax((0, 2, 3)) > 1e-5
    assert changed.nonzero().flatten().tolist() == [graph.writer("m0")]
    assert (got.logits - plain.logits).abs().max() <= TOL


def test_gradients_are_those_of_finite_differences(tiny):
    batch, graph = tiny.tokenize(TEXTS[1:2]), graph_of(tiny)
    leaves = {}

    def leaf(slot, outputs):
        n = graph.slots[slot].stop - graph.slots[slot].start
        leaves[slot] = outputs.new_zeros(1, n, *outputs.shape[2:]).requires_grad_()
        return leaves[slot]

    got = run_components(tiny, batch, leaf, grad=True)
    gradients = torch.autograd.grad(got.logits[0, -1, 5], list(leaves.values()))
    step = 1e-2
    for reader in ("a0.h2", "m1", "a2.h0", "logits"):
        number = graph.reader(reader)
        slot = next(i for i, s in enumerate(graph.slots) if s.start <= number < s.stop)
        gradient = gradients[slot][0, number - graph.slots[slot].start]  # (T, D)
        towards = gradient / gradient.norm()
        values = [
            run_components(tiny, batch, offsets(graph, {reader: sign * step * towards[None]}))
            for sign in (1, -1)
        ]
        slope = (values[0].logits - values[1].logits)[0, -1, 5] / (2 * step)
        assert float(slope) == pytest.approx(float(gradient.norm()), rel=5e-3), reader


def test_edges_are_those_that_order_allows():
    graph = Graph(2, 2)
    assert graph.writers == ["embed", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1"]
    assert graph.readers == [*graph.writers[1:], "logits"]
    assert ("a0.h0", "a0.h1") not in graph.edges and ("a0.h0", "m0") in graph.edges
    assert ("m0", "a0.h0") not in graph.edges and ("m1", "logits") in graph.edges
    assert len(graph.edges) == 1 + 1 + 3 + 4 + 4 + 6 + 7
    beside = Graph(2, 2, parallel=True)
    assert ("a0.h0", "m0") not in beside.edges and ("a0.h0", "m1") in beside.edges
    with pytest.raises(InputError, match="no component 'a9.h0' here: embed to m1"):
        graph.writer("a9.h0")
    with pytest.raises(InputError, match="Write embed"):
        graph.reader("L0H1")


def test_interventions_are_refused():
    plain = load_model(tiny_hf(), build_tokenizer())
    assert graph_of(plain).n_layers == LAYERS
    refused = pytest.raises(InputError, match="carries interventions")
    with intervened(plain, [zero("attn_out 0")]) as model, refused:
        run_components(model, plain.tokenize(TEXTS))

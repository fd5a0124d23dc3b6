"""GIM's gradients are those of TransformerLens with each modification written as a hook."""

import copy

import pytest
import torch

from circuit_toolkit.attribution.edges import eap, edge_attributions
from circuit_toolkit.attribution.gradient_interactions import _norms_within, gim, modified_gradients
from circuit_toolkit.benchmark.methods import METHODS
from circuit_toolkit.circuit.components import edge_scores
from circuit_toolkit.models import LOGITS, load_model, run
from circuit_toolkit.models.components import run_components
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.tasks import Task
from tests.benchmark.test_families import PAIRS
from tests.families import PLAIN, lens_model, random_model, word_tokenizer

TOL = 1e-4  # of the largest score: float32 gradients through three layers of two implementations


class SofterBackwards(torch.autograd.Function):
    """Softmax; going backwards that of scores / 2, as the authors' package writes it."""

    @staticmethod
    def forward(ctx, scores):
        ctx.save_for_backward((scores / 2).softmax(-1))
        return scores.softmax(-1)

    @staticmethod
    def backward(ctx, gradient):  # pyright: ignore[reportIncompatibleMethodOverride]
        (soft,) = ctx.saved_tensors
        return soft * (gradient - (gradient * soft).sum(-1, keepdim=True))


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, share):
        ctx.share = share
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.share * gradient, None


def lens_gradients(lens, ids, score):
    """Gradients to the inputs of heads (L, T, H, D), of MLPs (L, T, D) and of the logits (T, D)."""
    lens.set_use_split_qkv_input(True)
    lens.set_ungroup_grouped_query_attention(lens.cfg.n_key_value_heads is not None)
    lens.set_use_hook_mlp_in(True)
    leaves, scores = {}, {}

    def leaf(x, hook):
        leaves[hook.name] = torch.zeros_like(x).requires_grad_()
        return x + leaves[hook.name]

    def keep(x, hook):
        scores[hook.layer()] = x
        return x

    hooks = [(lambda name: name.endswith("hook_scale"), lambda x, hook: x.detach())]
    for name, share in (("q", 0.25), ("k", 0.25), ("v", 0.5)):
        hooks.append(
            (
                lambda each, name=name: each.endswith(f"attn.hook_{name}"),
                lambda x, hook, share=share: Scaled.apply(x, share),
            )
        )
    hooks += [
        (lambda name: name.endswith("hook_attn_scores"), keep),
        (
            lambda name: name.endswith("hook_pattern"),
            lambda x, hook: SofterBackwards.apply(scores[hook.layer()]),
        ),
        (lambda name: name.endswith(("q_input", "k_input", "v_input", "mlp_in")), leaf),
        (f"blocks.{lens.cfg.n_layers - 1}.hook_resid_post", leaf),
    ]
    with torch.enable_grad():
        total = score(lens.run_with_hooks(ids, fwd_hooks=hooks))
        found = dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))
    layers = range(lens.cfg.n_layers)
    heads = [sum(found[f"blocks.{i}.hook_{each}_input"][0] for each in "qkv") for i in layers]
    mlps = [found[f"blocks.{i}.hook_mlp_in"][0] for i in layers]
    return heads, mlps, found[f"blocks.{layers[-1]}.hook_resid_post"][0]


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gemma2", "gemma3"])
def test_scores_are_those_of_transformer_lens_with_hooks(family):
    module = random_model(family)
    model, lens = load_model(module, word_tokenizer()), lens_model(copy.deepcopy(module), PLAIN)
    graph, task = graph_of(model), Task.from_pairs(model, PAIRS)
    found = edge_scores(gim(model, task, average="mean of absolutes", progress=False), graph)
    want = torch.zeros(graph.allowed.shape)
    for row in range(len(task)):
        clean, corrupted = (model.tokenize([t[row]]) for t in (task.clean, task.corrupted))
        outputs = [run_components(model, batch).outputs[0] for batch in (clean, corrupted)]
        heads, mlps, last = lens_gradients(
            lens, clean.ids, lambda logits, row=row: task.metric_of(logits, [row]).sum()
        )
        gradients = []
        for head, mlp in zip(heads, mlps, strict=True):
            gradients += [*head.transpose(0, 1), mlp]
        gradients = torch.stack([*gradients, last])  # (R, T, D)
        change = outputs[1] - outputs[0]  # (W, T, D)
        want += torch.einsum("wtd,rtd->wr", change, gradients).abs() / len(task)
    want *= graph.allowed
    assert (torch.from_numpy(found) - want).abs().max() <= TOL * want.max()
    plain = torch.from_numpy(edge_scores(eap(model, task, progress=False), graph))
    assert (plain - want).abs().max() > 0.05 * want.max()


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "gemma2"])
def test_runs_are_the_plain_ones_and_the_model_is_left_as_it_was(family):
    model = load_model(random_model(family), word_tokenizer())
    batch = model.tokenize([texts[0] for texts in PAIRS])
    before = run(model, batch, [LOGITS])[LOGITS]
    attention = model.hf.config._attn_implementation
    with modified_gradients(model):
        inside = run(model, batch, [LOGITS])[LOGITS]
    where = batch.mask[..., None]
    assert ((inside - before) * where).abs().max() <= 1e-5
    assert torch.equal(run(model, batch, [LOGITS])[LOGITS], before)
    assert model.hf.config._attn_implementation == attention
    assert not any(each._forward_hooks for each in _norms_within(model))
    task = Task.from_pairs(model, PAIRS)
    again = edge_attributions(model, task)
    gim(model, task, progress=False)
    assert torch.equal(edge_attributions(model, task), again)


def test_it_stands_beside_the_others():
    assert METHODS["gim"] is gim and "gim_absolute" in METHODS

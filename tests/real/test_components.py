"""Methods over components on real weights: exact where they must be, and finite."""

import numpy as np
import pytest
import torch

import circuit_toolkit as ct
from circuit_toolkit.attribution.gradient_interactions import gim
from circuit_toolkit.circuit.components import edge_scores
from circuit_toolkit.models import LOGITS, run
from circuit_toolkit.models.components import run_components
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.patching.effects import patching_effects
from circuit_toolkit.tasks.prompt_pairs import tokenized_pairs


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_components_are_the_model(name, request):
    model = request.getfixturevalue(name)
    graph, task = graph_of(model), ct.tasks.ioi(model, n=2, seed=0)
    pairs = tokenized_pairs(model, task)
    plain = run(model, pairs.clean, [LOGITS])[LOGITS]
    noted = run_components(model, pairs.clean)
    own = run_components(model, pairs.clean, base=noted.inputs)
    where = pairs.clean.mask[..., None]
    for got in (noted, own):
        # Logits up to 40, float32 through up to 30 layers with sums in another order.
        assert ((got.logits - plain) * where).abs().max() <= 1e-4 * plain.abs().max()
    total, size = noted.outputs.sum(1), noted.inputs[-1].abs().amax()
    assert ((total - noted.inputs[-1]) * where).abs().max() <= 1e-5 * size
    whole = patching_effects(model, task, [graph.edges])[:, 0]
    other = run_components(model, pairs.corrupted).logits
    want = task.metric_of(other, range(2)) - task.metric_of(plain, range(2))
    assert (whole - want).abs().max() <= 1e-3 * want.abs().max()


def test_gradients_find_the_strongest_edges(smollm2):
    graph, task = graph_of(smollm2), ct.tasks.ioi(smollm2, n=2, seed=0)
    for method in (ct.eap, gim):
        scores = edge_scores(method(smollm2, task, progress=False), graph)
        assert np.isfinite(scores).all()
    edge = np.unravel_index(np.argmax(scores), scores.shape)
    strong, weak = (graph.writers[edge[0]], graph.readers[edge[1]]), ("a3.h0", "a9.h5")
    effects = patching_effects(smollm2, task, [[strong], [weak]]).abs().mean(0)
    assert effects[0] > 0.05 and effects[0] > 20 * effects[1]


@pytest.fixture(scope="module")
def half(smollm2):
    return ct.load_model("smollm2", dtype=torch.bfloat16)


def head_out(model, batch, layer, head):
    """What a head adds to the stream, (B, T, D), by a plain hook on its output map."""
    seen, attention = [], model.hf.model.layers[layer].self_attn
    some = slice(head * model.d_head, (head + 1) * model.d_head)
    hook = attention.o_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.hf(batch.ids, attention_mask=batch.mask.long())
    hook.remove()
    return seen[0][..., some] @ attention.o_proj.weight[:, some].T


def test_edges_of_choice_are_patched_as_plain_hooks_do(smollm2, half):
    """Each reader takes the stream through its norm alone: there a hook reaches nobody else."""
    task, module = ct.tasks.ioi(smollm2, n=2, seed=0), smollm2.hf.model
    edges = {
        ("a17.h1", "m20"): module.layers[20].post_attention_layernorm,
        ("a17.h1", "logits"): module.norm,
        ("a25.h1", "logits"): module.norm,
    }
    pairs, want = tokenized_pairs(smollm2, task), {}
    with torch.no_grad():
        for (writer, reader), norm in edges.items():
            place = [int(part) for part in writer[1:].split(".h")]
            here, there = (head_out(smollm2, b, *place) for b in (pairs.clean, pairs.corrupted))
            logits = []
            for given in (0 * here, there - here):
                hook = norm.register_forward_pre_hook(lambda _, args, x=given: args[0] + x)
                batch = pairs.clean
                logits.append(smollm2.hf(batch.ids, attention_mask=batch.mask.long()).logits)
                hook.remove()
            before, after = (task.metric_of(each, range(2)) for each in logits)
            want[writer, reader] = float((after - before).mean())
    largest = max(map(abs, want.values()))
    assert largest > 0.1
    for model, tolerance in ((smollm2, 1e-3), (half, 0.25)):  # differences of logits around 20
        found = ct.edge_patching(model, task, edges=edges, progress=False)
        names = found.nodes["label"]
        got = {(names[e["source"]], names[e["target"]]): e["weight"] for e in found.edges}
        got = {(a, "logits" if b == "ioi" else b): weight for (a, b), weight in got.items()}
        assert got.keys() == want.keys()
        for edge, effect in want.items():
            assert abs(got[edge] - effect) <= tolerance * max(largest, 1), edge


def test_components_are_patched_as_sites_are(smollm2, half):
    """A run each of 301 components, one of which is then swapped where it is written."""
    task = ct.tasks.ioi(smollm2, n=1, seed=0)
    found = ct.activation_patching(smollm2, task, progress=False)
    scores = dict(zip(found.nodes["label"], found.nodes["score"], strict=True))
    strongest = max((name for name in scores if ".h" in name), key=scores.__getitem__)
    layer, head = (int(part) for part in strongest[1:].split(".h"))
    swap = ct.resample(f"head_out {layer}", heads=[head])
    for model, tolerance in ((smollm2, 1e-3), (half, 0.25)):
        before = task.performance(model).metric
        after = ct.intervene(model, task, [swap], progress=False).metric
        assert abs(float(after[0]) - float(before[0])) == pytest.approx(
            scores[strongest], abs=tolerance
        )
    assert scores[strongest] > 0.3


def test_half_precision_is_near(smollm2, half):
    task = ct.tasks.ioi(smollm2, n=2, seed=0)
    graph = graph_of(smollm2)
    want, got = (edge_scores(ct.eap(m, task, progress=False), graph) for m in (smollm2, half))
    strongest = np.argsort(-want, axis=None)[:100]
    found = np.isin(strongest, np.argsort(-got, axis=None)[:100]).mean()
    assert found > 0.7  # 30 layers of 8 bits; at random it would be .002

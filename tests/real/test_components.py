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


def test_half_precision_is_near(smollm2):
    task = ct.tasks.ioi(smollm2, n=2, seed=0)
    half = ct.load_model("smollm2", dtype=torch.bfloat16)
    graph = graph_of(smollm2)
    want, got = (edge_scores(ct.eap(m, task, progress=False), graph) for m in (smollm2, half))
    strongest = np.argsort(-want, axis=None)[:100]
    found = np.isin(strongest, np.argsort(-got, axis=None)[:100]).mean()
    assert found > 0.7  # 30 layers of 8 bits; at random it would be .002

"""A circuit by itself, as hooks of torch: the metric is the one that `evaluate` measures."""

import copy

import numpy as np
import pytest
import torch

import circuit_toolkit as ct
from circuit_toolkit.circuit.components import component_circuit, head_circuit
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.component_faithfulness import with_edges
from circuit_toolkit.interventions import hooked, put, resample
from circuit_toolkit.models import LOGITS, run
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task
from tests.dictionaries.published import family_model

FLOAT32 = 2e-5  # logits of some 10, summed in other orders: another batch, another padding


@pytest.fixture(scope="module")
def task(demo):
    return ct.tasks.agreement(demo, n=24, seed=0)


def some_edges(model, seed=0):
    """Return a circuit of a third of all edges between components."""
    graph, rng = graph_of(model), np.random.default_rng(seed)
    scores = rng.random(tuple(graph.allowed.shape)) * (rng.random(graph.allowed.shape) < 1 / 3)
    return component_circuit(graph, scores, {})


def some_heads(model, n=5):
    scores = np.random.default_rng(1).random((model.n_layers, model.n_heads))
    return head_circuit(scores, {}, n_heads=n)


def measured(model, module, task, order=None, size=7, **inputs):
    """Call a module as a user would, in batches of any order; return the metric of each prompt."""
    order = np.arange(len(task.clean)) if order is None else order
    found = torch.empty(len(order), dtype=torch.float64)
    for rows in np.array_split(order, len(order) // size or 1):
        batch = model.tokenize([task.clean[row] for row in rows])
        logits = module(input_ids=batch.ids, attention_mask=batch.mask, **inputs).logits
        found[rows] = task.metric_of(logits, rows.tolist()).double()
    return found


@pytest.mark.parametrize("ablate", ["others", "circuit"])
@pytest.mark.parametrize("of", [some_edges, some_heads])
def test_the_metric_is_that_of_evaluate(demo, task, of, ablate):
    circuit, module = of(demo), copy.deepcopy(demo.hf)
    said = ct.evaluate(circuit, demo, None, task, draws=1, progress=False).evidence["ablation"]
    expected = said["metric_circuit" if ablate == "others" else "metric_others"]
    order = np.random.default_rng(0).permutation(len(task.clean))
    with torch.no_grad():
        before = measured(demo, module, task)
        with hooked(demo, circuit, module, task=task, ablate=ablate):
            found = measured(demo, module, task, order)
        after = measured(demo, module, task)
        with hooked(demo, circuit, task=task, ablate=ablate) as own:  # the model's, by default
            again = measured(demo, own, task)
    assert found.mean().item() == pytest.approx(expected, abs=FLOAT32)
    torch.testing.assert_close(again, found, rtol=0, atol=FLOAT32)
    assert torch.equal(before, after)  # nothing stays behind
    assert abs(before.mean().item() - expected) > 0.05


def pairs_of(model, n=6):
    rng = np.random.default_rng(0)
    ids = [[1, *row] for row in rng.integers(4, 25, (2 * n, 7)).tolist()]
    answers, wrong = [[int(i)] for i in rng.integers(4, 14, n)], [[20 + i % 5] for i in range(n)]
    return Task("pairs", ids[:n], ids[n:], answers, wrong, "logit_difference")


@pytest.mark.parametrize("family", ["gpt2", "pythia", "llama", "gemma2", "qwen3"])
def test_edges_of_every_kind_of_family(family):
    model = family_model(family)  # heads that share keys, norms behind attention, parallel blocks
    task, circuit = pairs_of(model), some_edges(model)
    mask = graph_of(model).allowed.clone()
    mask[:] = False
    rows, columns = circuit.edges["source"], circuit.edges["target"] - 1
    mask[rows, columns] = True
    expected = with_edges(model, task, {"kept": mask})
    with torch.no_grad(), hooked(model, circuit, task=task) as module:
        found = measured(model, module, task, size=3)
    np.testing.assert_allclose(found.numpy(), expected["kept"], rtol=0, atol=FLOAT32)
    assert abs(expected["kept"] - expected["clean"]).max() > 1e-2


def test_heads_outside_go_to_their_means_where_activations_are_given(demo, task):
    circuit = some_heads(demo)
    acts = ct.capture(demo, "head_out", task, progress=False)
    kept = circuit.features()
    batch = demo.tokenize(task.clean)
    real = (batch.ids != demo.bos_id) & batch.mask.bool()
    both = demo.tokenize([*task.clean, *task.corrupted])  # what was captured
    sites = [Site("head_out", layer) for layer in range(demo.n_layers)]
    seen = run(demo, both, sites)
    rows = (both.ids != demo.bos_id) & both.mask.bool()

    def to_means(site):
        def edit(x):
            new = torch.where(real[..., None, None], seen[site][rows].mean(0), x)
            new[:, :, kept.get(site, [])] = x[:, :, kept.get(site, [])]
            return new

        return edit

    write = {site: to_means(site) for site in sites}
    expected = run(demo, batch, [LOGITS], write)[LOGITS][:, -1]
    with torch.no_grad(), hooked(demo, circuit, acts=acts) as module:
        found = module(input_ids=batch.ids, attention_mask=batch.mask).logits[:, -1]
    torch.testing.assert_close(found, expected, rtol=0, atol=FLOAT32)


def test_changes_may_resample_and_name_positions(demo, task):
    name = next(iter(task.positions))
    changes = [resample("resid_post 1", positions=name), put("mlp_out 2", 0.1, positions=name)]
    expected = ct.intervene(demo, task, changes, progress=False).metric
    order = np.random.default_rng(3).permutation(len(task.clean))
    with torch.no_grad(), hooked(demo, changes, task=task) as module:
        found = measured(demo, module, task, order)
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=FLOAT32)


def test_what_cannot_be_told_is_refused(demo, task):
    heads, edges = some_heads(demo), some_edges(demo)

    def enter(*args, **options):
        hooked(demo, *args, **options).__enter__()

    for circuit in (heads, edges):
        with pytest.raises(InputError, match="corrupted prompts: pass task="):
            enter(circuit)
    acts = ct.capture(demo, "head_out", task.subset(2), progress=False)
    with pytest.raises(InputError, match="Edges between components .* pass task=, not acts="):
        enter(edges, task=task, acts=acts)
    with pytest.raises(InputError, match="ablate must be one of 'others', 'circuit'"):
        enter(heads, task=task, ablate="rest")
    alone = ct.capture(demo, ["head_out 1"], task.subset(2), progress=False)
    with pytest.raises(InputError, match=r"hook_result was not captured"):
        enter(heads, acts=alone)
    again = Task(
        "twice",
        [task.clean[0]] * 2,
        [task.corrupted[0], task.clean[0]],
        task.answers[:2],
        task.wrong[:2],
        "logit_difference",
    )
    with pytest.raises(InputError, match="Prompts 0 and 1 of 'twice' are the same"):
        enter(heads, task=again)
    other = demo.tokenize(["the boys near the cabinet"])
    with (
        hooked(demo, heads, task=task) as module,
        pytest.raises(InputError, match="Prompt 0 of this call, .* none of the clean prompts"),
    ):
        module(other.ids)
    assert module(other.ids).logits.isfinite().all()

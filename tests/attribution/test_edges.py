"""Attribution is the slope that finite differences show, and adds up as integrals must."""

import json

import numpy as np
import pytest
import torch

from circuit_toolkit.attribution.edges import (
    attribution_patching,
    eap,
    eap_ig,
    edge_attributions,
)
from circuit_toolkit.benchmark.metrics import roc_auc
from circuit_toolkit.circuit.components import averaged, edge_scores
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.components import run_components
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.patching.effects import patching_effects
from circuit_toolkit.tasks.prompt_pairs import tokenized_pairs
from tests.attribution.prompt_pairs import TwoTokens
from tests.small_case import write_case

STEP = 1e-3  # of the way: float32 noise and curvature are both below a percent
EDGES = [("embed", "a0.h1"), ("m0", "m2"), ("a1.h2", "logits"), ("a0.h1", "a2.h3"), ("m0", "a1.h0")]


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    from circuit_toolkit.benchmark.interpbench.cases import read_case

    return read_case(write_case(tmp_path_factory.mktemp("cases") / "case"))


def slope(model, task, pairs, base, difference, edges):
    """Change of the metric for a small step of edges towards their corrupted values."""
    graph, values = graph_of(model), []

    def run(step):
        def offset(slot, outputs):
            added = outputs.new_zeros(len(outputs), len(graph.readers), *outputs.shape[2:])
            for writer, reader in edges:
                number = graph.writer(writer)
                added[:, graph.reader(reader)] += step * difference[:, number]
            return added[:, graph.slots[slot]] + base

        logits = run_components(model, pairs.clean, offset).logits.double()
        return task.metric_of(logits, range(len(pairs)))

    for step in (STEP, -STEP):
        values.append(run(step))
    return (values[0] - values[1]) / (2 * STEP)


def differences(model, pairs):
    clean, corrupted = (
        run_components(model, each).outputs for each in (pairs.clean, pairs.corrupted)
    )
    return corrupted - clean


def test_eap_is_the_slope_on_the_clean_prompt(case):
    pairs, task = tokenized_pairs(case.model, case.task), case.task
    difference = differences(case.model, pairs)
    got = edge_attributions(case.model, task)
    graph = case.graph
    for edge in [("embed", "a0.h1"), ("m0", "m1"), ("a1.h0", "logits"), ("a0.h1", "a1.h1")]:
        want = slope(case.model, task, pairs, 0, difference, [edge])
        mine = got[:, graph.writer(edge[0]), graph.reader(edge[1])]
        assert mine.tolist() == pytest.approx(want.tolist(), rel=0.02, abs=2e-4), edge
        assert want.abs().max() > 0.01
    assert not got[:, ~graph.allowed].any()


def test_eap_ig_is_the_slope_on_the_way(case):
    pairs, task, steps = tokenized_pairs(case.model, case.task), case.task, 3
    difference = differences(case.model, pairs)
    edge, graph = ("m0", "a1.h1"), case.graph
    for rule, points in [("right", (1, 2, 3)), ("left", (0, 1, 2)), ("midpoint", (0.5, 1.5, 2.5))]:
        got = edge_attributions(case.model, task, steps=steps, rule=rule)
        slopes = [
            slope(case.model, task, pairs, p / steps * difference[:, :1], difference, [edge])
            for p in points
        ]
        mine = got[:, graph.writer(edge[0]), graph.reader(edge[1])]
        want = torch.stack(slopes).mean(0)
        assert mine.tolist() == pytest.approx(want.tolist(), rel=0.02, abs=2e-4), rule


def test_integrated_gradients_of_the_embedding_are_the_whole_change(case):
    """All that the metric changes on the way to the corrupted prompt enters by the embedding."""
    pairs, task = tokenized_pairs(case.model, case.task), case.task
    before, after = (
        task.metric_of(run_components(case.model, batch).logits, range(len(pairs)))
        for batch in (pairs.clean, pairs.corrupted)
    )
    got = edge_attributions(case.model, task, steps=64, rule="midpoint")[:, 0].sum(1)
    assert got.tolist() == pytest.approx((after - before).tolist(), abs=2e-3)
    assert (after - before).abs().max() > 0.3
    eap_alone = edge_attributions(case.model, task)[:, 0].sum(1)
    assert (eap_alone - (after - before)).abs().max() > 0.05  # so the path matters


def test_where_the_model_is_linear_attribution_is_exact(case):
    task = case.task.with_metric("difference")  # linear in logits, and no final norm
    edges = [(name, "logits") for name in case.graph.writers]
    exact = patching_effects(case.model, task, [[edge] for edge in edges])
    for steps in (0, 2):
        got = edge_attributions(case.model, task, steps=steps)[:, :, -1]
        assert (got - exact).abs().max() <= 1e-5


def test_a_node_is_its_edges(tiny):
    task, graph = TwoTokens(), graph_of(tiny)
    pairs = tokenized_pairs(tiny, task)
    found = attribution_patching(tiny, task)
    scores = dict(zip(graph.writers, found.nodes["score"][:-1].tolist(), strict=True))
    difference = differences(tiny, pairs)
    for name in ("embed", "a1.h2", "m0"):
        edges = [edge for edge in graph.edges if edge[0] == name]
        want = slope(tiny, task, pairs, 0, difference, edges).mean().abs()
        assert scores[name] == pytest.approx(float(want), rel=0.02), name
    assert not len(found.edges) and found.settings["method"] == "attribution patching"


@pytest.mark.parametrize("steps", [0, 2])
def test_batches_and_padding_change_nothing(tiny, steps):
    one, all_at_once = (
        edge_attributions(tiny, TwoTokens(), steps=steps, batch_size=size) for size in (1, None)
    )
    assert (one - all_at_once).abs().max() <= 1e-5 * one.abs().max()
    graph = graph_of(tiny)
    for writer, reader in EDGES:
        assert one[:, graph.writer(writer), graph.reader(reader)].abs().min() > 1e-4


def test_circuits_hold_the_averages(tiny):
    graph, task = graph_of(tiny), TwoTokens()
    effects = edge_attributions(tiny, task, steps=2, n_prompts=3)
    for average, want in [
        ("absolute mean", effects.mean(0).abs()),
        ("mean of absolutes", effects.abs().mean(0)),
    ]:
        found = eap_ig(tiny, task, steps=2, n_prompts=3, average=average)
        assert np.allclose(edge_scores(found, graph), want, rtol=1e-4, atol=1e-6)
        assert (averaged(effects, average) == want).all()
    assert found.settings["method"] == "EAP-IG" and found.settings["steps"] == 2
    assert found.settings["n_prompts"] == 3 and found.settings["seconds"] > 0
    source, target, weight, *_ = found.edges[3].tolist()
    assert weight == pytest.approx(float(effects.mean(0)[source, target - 1]), rel=1e-4)
    assert eap(tiny, task).settings["method"] == "EAP"


def test_unknown_options_are_refused(tiny):
    for options, message in [
        ({"steps": 0}, "steps"),
        ({"rule": "trapezoid"}, "rule"),
        ({"average": "mean"}, "average"),
    ]:
        with pytest.raises(InputError, match=message):
            eap_ig(tiny, TwoTokens(), **options)


@pytest.mark.parametrize("name", ["siit/13", "siit/26", "siit/3", "siit_recorded/36"])
def test_scores_are_those_of_the_reference_implementation(shared_data, name):
    """hannamw/EAP-IG keeps q, k and v of a head apart and takes the largest: heads differ a bit."""
    from circuit_toolkit.benchmark.interpbench.cases import read_case
    from circuit_toolkit.circuit.components import component_circuit

    folder = shared_data / "known_circuits" / name
    case = read_case(folder)
    reference = json.loads((folder / "eap_scores.json").read_text())["scores"]
    one_input = np.array([".h" not in reader for _, reader in case.universe])
    for label, steps, form, tolerance in [
        ("EAP:loss", 0, "loss", 0.02),  # slopes of losses near 1e-7, where float32 has two digits
        ("EAP-IG:loss", 5, "loss", 1e-3),
        ("EAP:diff", 0, "difference", 1e-3),
        ("EAP-IG:diff", 5, "difference", 1e-3),
    ]:
        effects = edge_attributions(
            case.model, case.task.with_metric(form), n_prompts=1000, steps=steps
        )
        found = component_circuit(case.graph, averaged(effects, "absolute mean"), {})
        got = case.truth.scores(found)
        want = np.array(reference[label])
        assert np.abs(got - want)[one_input].max() <= tolerance * want.max(), label
        assert np.corrcoef(got, want)[0, 1] > 0.96, label
        assert roc_auc(case.truth.mask, got) == pytest.approx(
            roc_auc(case.truth.mask, want), abs=0.04
        )

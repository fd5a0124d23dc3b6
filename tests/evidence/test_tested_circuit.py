"""The main job, end to end and piece by piece."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

import circuit_toolkit as ct
from circuit_toolkit.circuit import Circuit, new_edges, new_nodes
from circuit_toolkit.circuit.evidence import tone_of, verdict_of
from circuit_toolkit.circuit_lasso.placed_lasso import randomised_scores
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.confirmed_edges import judged_losses
from circuit_toolkit.evidence.tested_circuit import find_circuit
from circuit_toolkit.patching.placed_features import PlacedFeatures


@pytest.fixture(scope="module")
def saes(demo_saes):
    return {
        ct.Site("resid_post", layer): demo_saes[ct.Site("resid_post", layer)] for layer in (2, 4)
    }


@pytest.fixture(scope="module")
def tasks(demo):
    return ct.tasks.bios(demo, n=128, seed=0), ct.tasks.bios(demo, n=64, seed=1, test=True)


@pytest.fixture(scope="module")
def found(demo, saes, tasks):
    return find_circuit(demo, saes, *tasks, random_sets=3, progress=False)


def test_randomised_runs_find_what_single_ablations_show(demo, saes, tasks):
    runs = PlacedFeatures.of(demo, saes, tasks[0])
    scores = randomised_scores(runs)
    best = {place: np.argsort(-np.abs(each))[:6] for place, each in scores.items()}
    exact = runs.effects(best, best)[1].mean(1)
    mine = np.concatenate([scores[place][best[place]] for place in runs.places])
    assert np.corrcoef(mine, exact)[0, 1] > 0.9
    again = randomised_scores(runs)
    assert all((scores[place] == again[place]).all() for place in scores)
    with pytest.raises(InputError, match="share must be"):
        randomised_scores(runs, share=0)


def test_the_features_that_change_most_stand_beside_it(found, demo, saes, tasks):
    """As many at each place, by the change that `sizes` says, kept and ablated."""
    runs = PlacedFeatures.of(demo, saes, tasks[1], found.settings["positions"])
    trivial = {
        place: np.argsort(-runs.sizes()[place], kind="stable")[: len(units)]
        for place, units in found.placed_features().items()
    }
    full, empty = runs.metric().mean(), runs.metric_with({}).mean()
    for name, kept in (("faithfulness", True), ("completeness", False)):
        F = (runs.metric_with(trivial, kept=kept).mean() - empty) / (full - empty)
        assert found.evidence["ablation"][f"trivial_{name}"] == pytest.approx(F, abs=1e-6)
    site, place = runs.places[0][0], runs.places[0]
    change = (runs.acts[place] - runs.reference[place]).abs().mean(0)
    norm = saes[site].directions.norm(dim=1)
    np.testing.assert_allclose(runs.sizes()[place], change * norm, rtol=1e-5)
    assert "the features that change most" in repr(found)


def test_the_circuit_holds_on_held_out_prompts(found, tasks):
    ablation, size = found.evidence["ablation"], found.evidence["size"]
    assert size["reached"] and size["size"] == len(found.nodes) - 1 <= 60
    assert ablation["faithfulness"] >= 0.8 and ablation["completeness"] <= 0.2
    assert max(ablation["random_faithfulness"]) < 0.5 < min(ablation["random_completeness"])
    low, high = ablation["faithfulness_interval"]
    assert low < ablation["faithfulness"] < high
    assert ablation["dictionaries_keep"] > 0.5 and ablation["errors"] == "kept"
    assert ablation["evaluated_on"]["split"] == "held-out" and ablation["evaluated_on"]["seen"] == 0
    assert found.verdict == "sufficient and necessary"
    assert set(found.nodes["position"][:-1].tolist()) <= {"name", "last"}
    at = size["sizes"].index(size["size"])
    assert size["faithfulness"][at] >= 0.83 and size["completeness"][at] <= 0.17
    assert not any(
        F >= 0.83 and C <= 0.17
        for F, C in list(zip(size["faithfulness"], size["completeness"], strict=True))[:at]
    )


def test_the_circuit_grows_until_it_is_complete_too(demo, saes, tasks):
    task = tasks[0].subset(64)
    found = find_circuit(
        demo, saes, task, faithfulness=0, completeness=0.05, n_prompts=64, progress=False
    )
    size = found.evidence["size"]
    held = dict(zip(size["sizes"], size["completeness"], strict=True))
    assert held.pop(size["size"]) <= 0.02 and found.verdict == "untested"
    smaller = [C for n, C in held.items() if n < size["size"]]
    assert smaller and min(smaller) > 0.02 and size["faithfulness"][0] > 0.03


def test_every_edge_was_tested_and_its_interval_says_how_it_fared(found):
    edges, counts = found.edges, found.evidence["edges"]
    assert counts["confirmed"] > 5
    assert sum(counts[name] for name in ("confirmed", "refuted", "untested")) == len(edges)
    held = edges[edges["status"] == "confirmed"]
    assert ((held["low"] > 0) | (held["high"] < 0)).all()
    assert ((held["low"] <= held["weight"]) & (held["weight"] <= held["high"])).all()


def test_an_edge_of_the_wrong_sign_is_refuted(demo, saes, tasks, found):
    turned = found.edges.copy()
    turned["weight"] *= -1
    again = ct.confirm_edges(replace(found, edges=turned), demo, saes, tasks[1], progress=False)
    was = found.edges["status"] == "confirmed"
    assert (again.edges["status"][was] == "refuted").all()
    np.testing.assert_allclose(again.edges["weight"], found.edges["weight"], rtol=1e-4, atol=1e-6)


def test_edges_are_tested_by_the_ablation_that_the_circuit_was_found_with(demo, saes, tasks):
    task, held_out = (each.subset(40) for each in tasks)
    found = find_circuit(demo, saes, task, held_out, ablation="mean", progress=False, random_sets=1)
    assert found.settings["ablation"] == found.evidence["edges"]["ablation"] == "mean"
    assert found.evidence["ablation"]["ablation"] == "mean"


def test_an_edge_into_a_feature_that_is_never_active_stays_untested(demo, saes, tasks, found):
    runs = PlacedFeatures.of(demo, saes, tasks[1], found.settings["positions"])
    place = runs.places[-1]
    never = int((runs.acts[place] == 0).all(0).nonzero()[0, 0])
    nodes = found.nodes.copy()
    row = np.flatnonzero(nodes["site"] == str(place[0]))[0]
    nodes["position"][row], nodes["index"][row] = place[1], never
    edges = new_edges(1, source=0, target=row, weight=1, score=1)
    tested = ct.confirm_edges(Circuit(nodes, edges), demo, saes, tasks[1], progress=False)
    assert tested.edges["status"].tolist() == ["untested"] and tested.edges["weight"][0] == 1


def test_a_file_keeps_what_was_tested(found, tmp_path):
    again = Circuit.load(found.save(tmp_path / "circuit.json"))
    assert (again.edges == found.edges).all() and again.verdict == found.verdict


def test_judging_is_students_t_and_keeps_the_false_discovery_rate():
    rng = np.random.default_rng(0)
    n, changed = 40, np.ones(40, bool)
    noise = rng.normal(size=(400, n))
    table = judged_losses(list(noise), [changed] * 400, 0.95)
    assert table["holds"].mean() < 0.02, "nothing is there"
    real = judged_losses(list(noise[:100] + 1.0), [changed] * 100, 0.95)
    assert real["holds"].mean() > 0.95
    one = scipy.stats.ttest_1samp(noise[0], 0).confidence_interval(0.95)
    assert table[0]["low"] == pytest.approx(one.low) and table[0]["high"] == pytest.approx(one.high)
    half = changed.copy()
    half[20:] = False  # where the source does not change, nothing is lost and nothing learnt
    part = judged_losses([np.where(half, noise[0], 0)], [half], 0.95)[0]
    inner = scipy.stats.ttest_1samp(noise[0][:20], 0).confidence_interval(0.95)
    assert part["low"] == pytest.approx(inner.low / 2)
    assert np.isnan(judged_losses([noise[0]], [np.arange(n) < 2], 0.95)["weight"][0])


RANDOM = {"random_faithfulness": [0.1, 0.2], "random_completeness": [0.9, 0.8]}


@pytest.mark.parametrize(
    ("ablation", "verdict", "tone"),
    [
        ({"faithfulness": 0.8, "completeness": 0.1}, "sufficient and necessary", "good"),
        ({"faithfulness": 0.8, "completeness": 0.21}, "sufficient, not necessary", "warning"),
        ({"faithfulness": 0.79, "completeness": 0.2}, "necessary, not sufficient", "warning"),
        ({"faithfulness": 0.1, "completeness": 0.9}, "neither sufficient nor necessary", "error"),
        (
            {"faithfulness": 0.8, "completeness": 0.1, "random_faithfulness": [0.85]},
            "necessary, not sufficient",
            "warning",
        ),
        (
            {"faithfulness": 0.8, "completeness": 0.1, "dictionaries_keep": 0.4},
            "sufficient and necessary, and the dictionaries do not hold this behaviour",
            "warning",
        ),
        ({}, "untested", "quiet"),
    ],
)
def test_the_verdict_follows_fixed_rules(ablation, verdict, tone):
    evidence = {"ablation": RANDOM | ablation, "fit": {"held_out_r2": 0.99}}
    assert verdict_of(evidence) == verdict and tone_of(evidence) == tone


def test_what_cannot_be_tested_is_refused(demo, saes, tasks, found):
    end = new_nodes(1, "target", label="metric")
    mlps = Circuit(np.concatenate([new_nodes(1, "mlp", site="mlp_out 1"), end]), new_edges(0))
    with pytest.raises(InputError, match="needs a circuit of features or of heads, got one of mlp"):
        ct.confirm_edges(mlps, demo, saes, tasks[1])
    one = dict([list(saes.items())[0]])
    with pytest.raises(InputError, match="No dictionary was given for blocks.4"):
        ct.confirm_edges(found, demo, one, tasks[1])
    nodes = np.concatenate([found.nodes, new_nodes(1, "target", label="other")])
    with pytest.raises(InputError, match="a circuit of one target"):
        ct.confirm_edges(Circuit(nodes, found.edges), demo, saes, tasks[1])
    with pytest.raises(InputError, match="task must be a Task"):
        find_circuit(demo, saes, tasks[0], list(tasks[1].clean))
    flat = replace(tasks[0], metric=None, answers=(), wrong=())
    with pytest.raises(InputError, match="labels alone"):
        find_circuit(demo, saes, flat)
    with pytest.raises(InputError, match="faithfulness must be"):
        find_circuit(demo, saes, tasks[0], faithfulness=2)


def test_a_circuit_has_no_position_that_it_cannot_be_tested_at(demo, saes, monkeypatch):
    """The held-out subjects are the last token of some prompts, those to learn on of none."""
    task = ct.tasks.agreement(demo, n=64)
    held_out = ct.tasks.agreement(demo, n=32, seed=1)
    apart = [i for i, at in enumerate(task.positions["subject"]) if at != -1]
    task = task.select(apart)
    assert -1 in held_out.positions["subject"]
    few = {"max_features": 4, "max_edges": 4, "random_sets": 2, "progress": False}
    circuit = find_circuit(demo, saes, task, held_out, **few)
    assert circuit.settings["positions"] == ["last"]
    monkeypatch.setattr(PlacedFeatures, "of", None)  # nothing is run before it is refused
    with pytest.raises(InputError, match="'subject' and 'last' are the same token"):
        find_circuit(demo, saes, task, held_out, positions=["subject", "last"], **few)
    with pytest.raises(InputError, match="names no position"):
        find_circuit(demo, saes, task, replace(held_out, positions={}), positions="subject", **few)

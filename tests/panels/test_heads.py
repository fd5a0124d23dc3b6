"""The panel of heads without a browser: whatever a control does, an assignment or a call does."""

from dataclasses import replace

import numpy as np
import pytest

import circuit_toolkit as ct
from circuit_toolkit.benchmark.heads.reference import reference_heads
from circuit_toolkit.benchmark.metrics import roc_auc
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence import heads_effect
from circuit_toolkit.evidence.head_paths import possible_paths
from circuit_toolkit.head_codes import HeadCodes
from circuit_toolkit.models import run
from circuit_toolkit.models.graph import OUTPUT
from circuit_toolkit.panels import heads as module
from circuit_toolkit.panels.heads import explore_heads
from circuit_toolkit.patching.paths import path_effects
from circuit_toolkit.sites import Site

CODES = HeadCodes(n_features=40, n_seeds=2, steps=40, learning_rate=5e-3)


@pytest.fixture(scope="module")
def task(demo) -> ct.Task:
    return ct.tasks.agreement(demo, n=24)


@pytest.fixture(scope="module")
def panel(demo, task):
    return explore_heads(demo, task, codes=CODES)


@pytest.fixture
def no_model(monkeypatch):
    """Whatever runs the model fails."""

    def fail(*args, **kwargs):
        raise AssertionError("the model ran")

    for name in ("run", "heads_effect", "capture", "draw_paths", "confirm_edges", "path_shares"):
        monkeypatch.setattr(module, name, fail)
    monkeypatch.setattr("circuit_toolkit.panels.panel.evaluate", fail)


def test_it_opens_with_a_map_that_marks_the_reference_and_with_its_best_heads(panel):
    shown = panel.view._map
    assert panel.by == "change towards the answer"
    scores = panel.scores[panel.by][0]
    np.testing.assert_allclose(shown["scores"], scores, atol=1e-6)
    truth = np.argwhere(reference_heads("agreement").reference()).tolist()
    assert sorted(shown["rings"]) == truth
    best = np.argsort(-scores, axis=None)[:3]
    inside = [divmod(i, scores.shape[1]) for i in best if scores.ravel()[i] >= scores.max() / 2]
    assert list(panel.selected) == inside and panel._prompt.value == 0
    assert panel.view.selected == [list(each) for each in inside]
    assert "Circuit" in repr(panel) and len(repr(panel)) < 500


def test_its_edges_are_paths_from_the_start(panel, demo, task):
    """Against path patching of each path alone, on the same prompts."""
    panel.threshold = 0.3
    names = [*panel.circuit.nodes["label"][:-1].tolist(), OUTPUT]
    assert len(panel.circuit.edges) > 1
    for edge in panel.circuit.edges[:4]:
        path = names[edge["source"]], names[edge["target"]]
        effects, change = path_effects(demo, task, [path], n_prompts=8, progress=False)
        share = float(effects.double().mean() / change.double().mean())
        assert edge["weight"] == pytest.approx(share, rel=1e-4), "float32, another batch"
    between = panel.circuit.edges["target"] < len(names) - 1
    assert between.any(), "from head to head"
    panel.threshold = 0.5


def test_paths_of_other_heads_are_found_when_asked_for(panel):
    panel.threshold = 0.0
    names = panel.circuit.nodes["label"][:-1].tolist()
    assert len(names) > 10 and "press Find paths" in panel._tested.value
    before = dict(panel._paths)
    panel.threshold = 0.15
    panel._find.click()
    wanted = len(possible_paths(panel.circuit))
    assert len(panel._paths) >= wanted and before.items() <= panel._paths.items()
    assert "press Find" not in panel._tested.value
    panel.threshold = 0.5


def test_the_threshold_redraws_and_runs_nothing(panel, no_model):
    panel.threshold = 0.9
    few = len(panel.circuit.nodes)
    panel._slider.value = 0.1
    assert panel.threshold == 0.1 and len(panel.circuit.nodes) > few
    assert panel.graph.circuit is panel.circuit
    labels = panel.circuit.nodes["label"][:-1]
    assert all(label in panel._chosen.value for label in labels)
    scores = panel.scores[panel.by][0]
    assert scores[scores >= 0.1 * scores.max()].size == len(labels)


def test_every_way_to_score_draws_its_map_and_circuit_and_runs_nothing(panel, demo, task, no_model):
    titles = [title for title, _ in panel._by.options]
    assert titles == [
        "Change towards the answer",
        "Attribution patching",
        "Head codes (published method)",
        "Codes of an untrained autoencoder",
    ]
    for _, way in panel._by.options:
        panel._by.value = way
        scores = panel.scores[way].mean(0)
        np.testing.assert_allclose(panel.view._map["scores"], scores, atol=1e-6)
        strongest = np.unravel_index(scores.argmax(), scores.shape)
        assert "a{}.h{}".format(*strongest) in panel.circuit.nodes["label"][:-1]
    panel.by = "head codes"
    np.testing.assert_array_equal(panel.scores["head codes"], panel.fit.per_seed)
    assert panel.circuit.settings["method"] == "head codes"
    panel.by = "change towards the answer"
    assert panel.circuit.settings["method"] == "heads by change towards the answer"


def test_ways_stand_beside_chance_where_the_heads_are_known(panel):
    truth = reference_heads("agreement").reference()
    for way, scores in panel.scores.items():
        auc = np.mean([roc_auc(truth.ravel(), each.ravel()) for each in scores])
        assert f"<td>{auc:.2f}</td>" in panel._ways.value, way
    assert "<td>Chance</td><td>0.50</td>" in panel._ways.value


def test_a_click_shows_attention_codes_and_effect(panel, demo, task):
    panel.view.selected = [[3, 3]]  # what the browser sets
    assert panel.selected == ((3, 3),)
    assert "<td>a3.h3</td>" in panel._ranked.value and "prompts alone" in panel._codes.value
    batch = demo.tokenize([task.clean[0]])
    expected = run(demo, batch, [Site("attn_pattern", 3)])[Site("attn_pattern", 3)][0, 3]
    shown = panel.view._patterns
    assert shown["words"] == demo.words(batch)[0]
    drawn = np.zeros(expected.shape)
    (head,) = shown["heads"]
    for row, column, share in head["cells"]:
        drawn[row, column] = share
    clear = expected.numpy() >= 0.02
    np.testing.assert_allclose(drawn[clear], expected.numpy()[clear], atol=5.1e-4)  # 3 digits
    assert not drawn[~clear].any() and head["name"] == "a3.h3"
    # This head reads the subject's number: without it the task is lost.
    change = float(panel._about.value.split("</b> (")[-1].split(")")[0])
    assert "<th>Change towards the answer</th>" in panel._ranked.value
    assert change < -3
    panel._prompt.value = 1
    assert panel.view._patterns["words"] == demo.words(demo.tokenize([task.clean[1]]))[0]
    panel.graph.selected = panel.circuit.ids()[0]  # what the browser sets
    node = panel.circuit.nodes[0]
    assert panel.selected == ((Site.parse(node["site"]).layer, node["index"]),)


def test_several_heads_are_looked_at_and_ablated_together(panel, demo, task):
    panel.selected = [(3, 3), (0, 2)]
    assert [each["name"] for each in panel.view._patterns["heads"]] == ["a3.h3", "a0.h2"]
    found = heads_effect(demo, task, [(3, 3), (0, 2)], n_prompts=16, random_sets=8)
    assert f"{found.before:.2f} to <b>{found.after:.2f}</b>" in panel._about.value
    assert f"{found.random.min():.2f} to {found.random.max():.2f}" in panel._about.value
    assert "<td>a0.h2</td>" in panel._ranked.value and not panel._codes.value
    panel.selected = ()
    assert not panel.view._patterns["heads"] and "Click on heads" in panel._about.value


@pytest.mark.parametrize("wrong", [(9, 0), [(0, 99)], [(0,)], ["a0.h1"], [(0, 1.5)]])
def test_a_head_that_is_none_is_refused_and_changes_nothing(panel, wrong):
    panel.selected = (3, 3)
    with pytest.raises(InputError, match="head"):
        panel.selected = wrong
    assert panel.selected == ((3, 3),)


def test_controls_are_off_while_the_model_runs(panel, monkeypatch):
    seen = []

    def watched(*args, **kwargs):
        seen.append((panel._score.disabled, panel._status.value))
        return run(*args, **kwargs)

    monkeypatch.setattr(module, "run", watched)
    panel.selected = (0, 0)
    assert seen == [(True, seen[0][1])] and "running the model" in seen[0][1]
    assert not panel._score.disabled and "running" not in panel._status.value


def test_testing_adds_evidence_and_moving_on_drops_it(panel):
    panel.threshold = 0.4
    panel.test()
    assert panel.circuit.evidence["ablation"]["size"] == len(panel.circuit.nodes) - 1
    assert "resample ablation at all tokens of 24 training agreement prompts" in repr(panel.circuit)
    edges = panel.circuit.evidence["edges"]
    assert edges["ablation"] == "path patching" and edges["confirmed"] == len(panel.circuit.edges)
    assert (
        set(panel.circuit.edges["status"]) == {"confirmed"}
        and "paths" in panel._tested.value.lower()
    )
    panel.threshold = 0.6
    assert not panel.circuit.evidence


def test_what_goes_wrong_is_said_in_the_panel(panel, monkeypatch):
    fit, text = panel.fit, panel._train
    text.value = 40  # of 48: nothing is left to count on
    panel._score.click()
    assert "leave nothing" in panel._status.value and panel.fit is fit
    text.value = 10

    def broken(*args, **kwargs):
        raise RuntimeError("<no memory>")

    monkeypatch.setattr(module, "heads_effect", broken)
    with pytest.raises(RuntimeError):  # a defect keeps its traceback
        panel.selected = (1, 1)
    assert "&lt;no memory&gt;" in panel._status.value and not panel._score.disabled


def test_settings_of_the_panel_are_those_of_the_fit(panel):
    panel._train.value, panel._size.value = 6, 24
    panel._score.click()
    assert panel.fit.settings["n_train"] == 6 and panel.fit.settings["n_features"] == 24
    assert len(panel.selected) > 0, "the best heads"


def test_a_task_of_the_menu_and_a_model_without_a_reference(tiny):
    panel = explore_heads(tiny, n=16, codes=CODES)
    assert panel.task.name == panel._task.options[0] and not panel.view._map["rings"]
    panel._task.value = "agreement"
    assert panel.task.name == "agreement" and panel.fit.settings["task"] == "agreement"
    assert panel.fit.per_seed.shape == (2, 3, 4) and not panel._ways.value.count("<table>")


def test_a_bundled_task_is_tested_on_held_out_prompts(demo):
    panel = explore_heads(demo, n=24, codes=CODES)
    panel._task.value = "agreement"
    panel.threshold = 0.4
    panel.test()
    on = panel.circuit.evidence["ablation"]["evaluated_on"]
    assert on["split"] == "held-out" and on["seen"] == 0 and on["n"] == 64
    assert "of 64 held-out agreement prompts" in repr(panel.circuit)


def test_a_test_that_cannot_be_is_said_beside_its_button(tiny, task):
    backwards = replace(task, clean=task.corrupted, corrupted=task.clean)
    for given in (task, backwards):  # on one of the two the random model is no better
        panel = explore_heads(tiny, given, codes=CODES)
        panel._test.click()
        if panel._tested.value:
            assert "no better than with every head ablated" in panel._tested.value
            assert not panel.circuit.evidence
            return
    raise AssertionError("neither way was refused")

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
from circuit_toolkit.panels import head_scoring
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

    for name in ("run", "heads_effect", "draw_paths", "confirm_edges", "path_shares", "evaluate"):
        monkeypatch.setattr(module, name, fail)
    for name in ("capture", "head_scores", "lead_ways"):
        monkeypatch.setattr(head_scoring, name, fail)


def asked(panel, **message):
    """Do what the browser asks for, and wait until it is done."""
    panel._hear(panel, message, [])
    panel.wait()


def test_it_opens_with_a_map_that_marks_the_reference_and_with_its_best_heads(panel):
    shown = panel._map
    assert panel.by == "change towards the answer"
    scores = panel.scores[panel.by][0]
    np.testing.assert_allclose(shown["scores"], scores, atol=1e-6)
    truth = np.argwhere(reference_heads("agreement").reference()).tolist()
    assert sorted(shown["rings"]) == truth
    best = np.argsort(-scores, axis=None)[:3]
    inside = [divmod(i, scores.shape[1]) for i in best if scores.ravel()[i] >= scores.max() / 2]
    assert list(panel.selected) == inside and panel.prompt == 0
    assert panel._picked == [list(each) for each in inside]
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
    assert len(names) > 10 and "not known yet: Find paths" in panel._foot["note"]
    before = dict(panel._paths)
    panel.threshold = 0.15
    asked(panel, do="paths")
    wanted = len(possible_paths(panel.circuit))
    assert len(panel._paths) >= wanted and before.items() <= panel._paths.items()
    assert not panel._foot["note"]
    panel.threshold = 0.5


def test_the_threshold_redraws_and_runs_nothing(panel, no_model):
    panel.threshold = 0.9
    few = len(panel.circuit.nodes)
    panel.threshold = 0.1
    assert panel._controls["threshold"] == 0.1 and len(panel.circuit.nodes) > few
    labels = panel.circuit.nodes["label"][:-1]
    assert [node["name"] for node in panel._scene["nodes"]][:-1] == list(labels)
    assert panel._controls["kept"] == len(labels)
    scores = panel.scores[panel.by][0]
    assert scores[scores >= 0.1 * scores.max()].size == len(labels)


def test_it_opens_with_one_way_and_says_so(demo, task, monkeypatch):
    """What was not asked for was not done, and is not shown as if it were."""

    def fail(*args, **kwargs):
        raise AssertionError("codes were trained")

    monkeypatch.setattr(head_scoring, "lead_ways", fail)
    panel = explore_heads(demo, task, codes=CODES)
    assert list(panel.scores) == ["change towards the answer"] and panel.fit is None
    assert [scored for *_, scored in panel._controls["ways"]] == [True, False, False, False]
    assert "Not scored yet: Attribution patching" in panel._about["ranks"]
    assert not panel._about["ways"] and not panel._about["codes"]
    with pytest.raises(InputError, match="only change towards"):
        panel.by = "guessing"
    assert panel.by == "change towards the answer" and "tested" in panel._foot["words"]


def test_every_way_to_score_draws_its_map_and_circuit_and_runs_nothing(panel, demo, task, request):
    panel.compare()
    request.getfixturevalue("no_model")
    titles = [title for _, title, scored in panel._controls["ways"] if scored]
    assert titles == [
        "Change towards the answer",
        "Attribution patching",
        "Head codes (published method)",
        "Codes of an untrained autoencoder",
    ]
    for way, *_ in panel._controls["ways"]:
        panel.by = way
        scores = panel.scores[way].mean(0)
        np.testing.assert_allclose(panel._map["scores"], scores, atol=1e-6)
        strongest = np.unravel_index(scores.argmax(), scores.shape)
        assert "a{}.h{}".format(*strongest) in panel.circuit.nodes["label"][:-1]
    panel.by = "head codes"
    np.testing.assert_array_equal(panel.scores["head codes"], panel.fit.per_seed)
    assert panel.circuit.settings["method"] == "head codes"
    panel.by = "change towards the answer"
    assert panel.circuit.settings["method"] == "heads by change towards the answer"
    assert "Not scored" not in panel._about["ranks"]


def test_ways_stand_beside_chance_where_the_heads_are_known(panel):
    panel.compare()
    truth = reference_heads("agreement").reference()
    for way, scores in panel.scores.items():
        auc = np.mean([roc_auc(truth.ravel(), each.ravel()) for each in scores])
        assert f"<td>{auc:.2f}</td>" in panel._about["ways"], way
    assert "<td>Chance</td><td>0.50</td>" in panel._about["ways"]


def test_a_click_shows_attention_codes_and_effect(panel, demo, task):
    panel.by = "head codes"
    panel.by = "change towards the answer"
    asked(panel, do="select", heads=[[3, 3]])
    assert panel.selected == ((3, 3),)
    assert "<th>a3.h3</th>" in panel._about["ranks"] and "prompts alone" in panel._about["codes"]
    batch = demo.tokenize([task.clean[0]])
    expected = run(demo, batch, [Site("attn_pattern", 3)])[Site("attn_pattern", 3)][0, 3]
    shown = panel._patterns
    assert shown["words"] == demo.words(batch)[0]
    drawn = np.zeros(expected.shape)
    (head,) = shown["heads"]
    for row, column, share in head["cells"]:
        drawn[row, column] = share
    clear = expected.numpy() >= 0.02
    np.testing.assert_allclose(drawn[clear], expected.numpy()[clear], atol=5.1e-4)  # 3 digits
    assert not drawn[~clear].any() and head["name"] == "a3.h3"
    # This head reads the subject's number: without it the task is lost.
    change = float(panel._about["effect"].split("</b> (")[-1].split(")")[0])
    assert "<td>Change towards the answer</td>" in panel._about["ranks"]
    assert change < -3
    asked(panel, do="prompt", value=1)
    assert (
        panel.prompt == 1
        and panel._patterns["words"] == demo.words(demo.tokenize([task.clean[1]]))[0]
    )
    with pytest.raises(InputError, match="0 to 19"):
        panel.prompt = 20
    assert panel.prompt == 1


def test_several_heads_are_looked_at_and_ablated_together(panel, demo, task):
    panel.selected = [(3, 3), (0, 2)]
    assert [each["name"] for each in panel._patterns["heads"]] == ["a3.h3", "a0.h2"]
    found = heads_effect(demo, task, [(3, 3), (0, 2)], n_prompts=16, random_sets=8)
    assert f"{found.before:.2f} to <b>{found.after:.2f}</b>" in panel._about["effect"]
    assert f"{found.random.min():.2f} to {found.random.max():.2f}" in panel._about["effect"]
    assert "<th>a0.h2</th>" in panel._about["ranks"] and not panel._about["codes"]
    panel.selected = ()
    assert not panel._patterns["heads"] and "effect" not in panel._about


@pytest.mark.parametrize("wrong", [(9, 0), [(0, 99)], [(0,)], ["a0.h1"], [(0, 1.5)]])
def test_a_head_that_is_none_is_refused_and_changes_nothing(panel, wrong):
    panel.selected = (3, 3)
    with pytest.raises(InputError, match="head"):
        panel.selected = wrong
    assert panel.selected == ((3, 3),)


def test_testing_adds_evidence_and_moving_on_drops_it(panel):
    panel.threshold = 0.4
    panel.test()
    assert panel.circuit.evidence["ablation"]["size"] == len(panel.circuit.nodes) - 1
    assert "resample ablation at all tokens of 24 training agreement prompts" in repr(panel.circuit)
    edges = panel.circuit.evidence["edges"]
    assert edges["ablation"] == "path patching" and edges["confirmed"] == len(panel.circuit.edges)
    assert (
        set(panel.circuit.edges["status"]) == {"confirmed"}
        and "paths" in panel._foot["note"].lower()
    )
    panel.threshold = 0.6
    assert not panel.circuit.evidence


def test_what_goes_wrong_is_said_and_changes_nothing(panel, monkeypatch):
    panel.by = "head codes"
    fit, scores = panel.fit, panel.scores["head codes"]
    with pytest.raises(InputError, match="leave nothing"):
        panel.train(n_train=40)  # of 48: nothing is left to count on
    asked(panel, do="train", n_train=40, n_features=40)
    assert "leave nothing" in panel._busy["error"]
    assert panel.fit is fit and panel.scores["head codes"] is scores

    def broken(*args, **kwargs):
        raise RuntimeError("<no memory>")

    monkeypatch.setattr(module, "heads_effect", broken)
    with pytest.raises(RuntimeError):  # a defect keeps its traceback
        panel.selected = (1, 1)


def test_after_a_stop_python_goes_on(panel, monkeypatch):
    def stopped(*args, **kwargs):
        panel._hear(panel, {"do": "stop"}, [])
        panel._tell("patching")

    monkeypatch.setattr(module, "path_shares", stopped)
    panel._paths.clear()
    panel.by, panel.threshold = "change towards the answer", 0.3
    asked(panel, do="paths")
    assert panel._busy["error"].startswith("Stopped") and not panel._paths
    panel.selected = (0, 0)
    panel._hear(panel, {"do": "stop"}, [])  # nothing runs
    panel.selected = (0, 1)
    assert "Without a0.h1" in panel._about["effect"]


def test_settings_of_the_panel_are_those_of_the_fit(panel):
    asked(panel, do="train", n_train=6, n_features=24)
    assert panel.fit.settings["n_train"] == 6 and panel.fit.settings["n_features"] == 24
    assert panel.by == "head codes" and "untrained autoencoder" not in panel.scores
    panel.score()
    assert panel.fit.settings["n_train"] == 6 and len(panel.selected) > 0, "the best heads"


def test_a_task_of_the_menu_and_a_model_without_a_reference(tiny):
    panel = explore_heads(tiny, n=16, codes=CODES)
    assert panel.task.name == panel._controls["tasks"][0] and not panel._map["rings"]
    asked(panel, do="task", value="agreement")
    panel.compare()
    assert panel.task.name == "agreement" and panel.fit.settings["task"] == "agreement"
    assert panel.fit.per_seed.shape == (2, 3, 4) and not panel._about["ways"]
    with pytest.raises(InputError, match="no task 'nonsense'"):
        panel.score("nonsense")
    assert panel.task.name == "agreement"


def test_a_bundled_task_is_tested_on_held_out_prompts(demo):
    panel = explore_heads(demo, n=24, codes=CODES)
    panel.score("agreement")
    panel.threshold = 0.4
    panel.test()
    on = panel.circuit.evidence["ablation"]["evaluated_on"]
    assert on["split"] == "held-out" and on["seen"] == 0 and on["n"] == 64
    assert "of 64 held-out agreement prompts" in repr(panel.circuit)


def test_a_test_that_cannot_be_is_refused(tiny, task):
    backwards = replace(task, clean=task.corrupted, corrupted=task.clean)
    for given in (task, backwards):  # on one of the two the random model is no better
        panel = explore_heads(tiny, given, codes=CODES)
        asked(panel, do="test")
        if panel._busy:
            assert "no better than with every head ablated" in panel._busy["error"]
            assert not panel.circuit.evidence
            return
    raise AssertionError("neither way was refused")

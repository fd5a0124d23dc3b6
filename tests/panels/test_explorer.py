"""The explorer without a browser: whatever a control does, an assignment or a call does."""

import gc
import json
import weakref
from dataclasses import fields, replace

import numpy as np
import pytest
from ipywidgets.widgets.widget import _instances

import circuit_toolkit as ct
from circuit_toolkit.errors import FileFormatError, InputError, MismatchError
from circuit_toolkit.panels.explorer.dial import random_sets, units_of
from circuit_toolkit.panels.explorer.reading import read_prompt, understood
from tests.panels.screen import features_of

STORE = "Mary and Tom went to the store. Tom gave a ring to"


@pytest.fixture(scope="module")
def explorer(demo, demo_saes):
    return ct.explore(demo, demo_saes, n=96)


@pytest.fixture(scope="module")
def learnt(demo, demo_saes):
    explorer = ct.explore(demo, demo_saes, n=96)
    explorer.learn()
    return explorer


def test_it_opens_on_a_prompt_with_its_graph_and_what_the_model_says(explorer, demo):
    task = ct.tasks.ioi(demo, n=96)
    assert explorer.method == "graph" and explorer.prompt == task.clean[0]
    assert explorer.circuit.settings["prompt"] == task.clean[0]
    right, wrong = (demo.tokenizer.decode(each[0]) for each in (task.answers, task.wrong))
    assert explorer.answers == (right, wrong)
    value = float(explorer.circuit.nodes["activation"][-1])
    assert explorer._top["target"] == f"logit({right}) − logit({wrong}) = {value:+.1f}"
    logits = ct.intervene(demo, [task.clean[0]], [], progress=False).logits[0]
    best = logits.topk(5)
    assert [each["word"] for each in explorer._top["next"]] == [
        demo.tokenizer.decode([token]) for token in best.indices.tolist()
    ]
    assert [each["logit"] for each in explorer._top["next"]] == pytest.approx(
        best.values.tolist(), abs=0.01
    )
    assert [chip["text"] for chip in explorer._top["chips"]][1:3] == task.clean[0].split()[:2]
    assert explorer._foot["tone"] == "quiet" and "Untested" in explorer._foot["words"]
    assert len(repr(explorer)) < 500


def test_features_have_names_that_differ(explorer):
    nodes = explorer.circuit.nodes
    names = nodes["label"][nodes["kind"] == "feature"].tolist()
    assert len(names) > 15 and len(set(names)) == len(names) and all(names)
    assert explorer._foot["legend"], "and the panel says how to read one"


def test_another_prompt_is_matched_without_regard_to_capitals(explorer, demo):
    before = explorer.prompt
    explorer.prompt = STORE.replace("Mary", "mary")
    assert explorer.prompt == STORE, "the words are spelled as the model knows them"
    assert explorer.circuit.settings["prompt"] == STORE and explorer.answers[0] == "Mary"
    assert understood(demo, "When Mary left") == ("when Mary left", {"When": "when"})
    within = "A boy and Anna left"  # only the word itself, not the letter in another word
    assert understood(demo, within) == ("a boy and Anna left", {"A": "a"})
    with pytest.raises(InputError, match="does not know 'frobnicated'"):
        explorer.prompt = "Mary frobnicated"
    assert explorer.prompt == STORE and explorer.circuit.settings["prompt"] == STORE
    explorer.answers = "Mary", "tom"
    assert explorer.answers == ("Mary", "Tom")
    assert explorer.circuit.nodes["label"][-1] == "logit(Mary) - logit(Tom)"
    for bad in (("Mary",), "Mary", ("Mary", 3), ("Mary", "Mary"), ("Mary", "frobnicated")):
        with pytest.raises(InputError):
            explorer.answers = bad
        assert explorer.answers == ("Mary", "Tom"), "what cannot be changes nothing"
    explorer.answers = None
    explorer.prompt = before


def test_the_target_is_the_models_own_difference(demo):
    reading = read_prompt(demo, STORE, ("Mary", "Tom"))
    right, wrong = (demo.token_id(word) for word in ("Mary", "Tom"))
    assert reading.value == pytest.approx(float(reading.logits[right] - reading.logits[wrong]))


def test_sizes_show_more_or_fewer_of_the_same_graph(explorer):
    whole, before = explorer.whole, explorer.size
    explorer.size = 12
    assert len(explorer.circuit.nodes) <= 13
    explorer.size = 60
    assert len(explorer.circuit.nodes) > 40 and explorer.whole is whole
    for bad in (0, 2.5, "many", None):
        with pytest.raises(InputError):
            explorer.size = bad
        assert explorer.size == 60
    explorer.size = before


def test_nodes_keep_their_place_while_the_size_moves(explorer):
    before = explorer.size
    explorer.size = 20
    few = {node["id"]: (node["x"], node["y"]) for node in explorer._scene["nodes"]}
    key = explorer._scene["key"]
    explorer.size = 50
    many = {node["id"]: (node["x"], node["y"]) for node in explorer._scene["nodes"]}
    kept = set(few) & set(many)
    assert len(kept) > 15 and len(many) > len(few)
    assert all(few[name] == many[name] for name in kept) and explorer._scene["key"] == key
    explorer.size = before


def test_selecting_tells_the_card_and_where_it_is_active(explorer, demo):
    name = features_of(explorer)[3]
    explorer.selected = name
    assert explorer.selected == (name,) and explorer.card.name == name.partition("@")[0]
    active, tokens = explorer._node["active"], explorer.reading.tokens
    assert len(active) == len(tokens)
    row = explorer.circuit.ids().index(name)
    node = explorer.circuit.nodes[row]
    assert active[int(node["position"])] == pytest.approx(float(node["activation"]), rel=1e-3)
    assert "Where it activates" in explorer._node["html"]
    explorer.selected = features_of(explorer)[:3]
    assert len(explorer.selected) == 3 and explorer._node["features"] == 3
    for bad in ("nonsense", ["nonsense", name]):
        with pytest.raises(InputError, match="is not a node"):
            explorer.selected = bad
        assert len(explorer.selected) == 3, "what cannot be changes nothing"
    explorer.selected = explorer.circuit.ids()[-1]
    assert explorer.card is None and "What is explained" in explorer._node["note"]
    explorer.selected = ()


def test_the_dial_does_what_intervene_does(explorer, demo, demo_transcoders):
    explorer.selected = features_of(explorer)[:2]
    for how, value in (("ablate", 0.0), ("scale", 3.0), ("set", 5.0)):
        explorer.turn(how, value)
        found = ct.intervene(
            demo,
            [explorer.prompt],
            explorer.changes,
            dictionaries=demo_transcoders,
            progress=False,
        ).logits
        score = float(explorer.reading.task.score(found, [0])[0])
        # rounded to a thousandth for the browser
        assert explorer._effect["target"][1] == pytest.approx(score, abs=1e-3)
        assert explorer._effect["after"][0]["logit"] == pytest.approx(float(found.max()), abs=0.01)
    assert len(explorer._effect["random"]) == 20
    assert len(explorer.steer(4)) == 2
    explorer.turn("off")
    assert explorer.changes == [] and explorer._effect == {}
    with pytest.raises(InputError, match="Nothing is changed"):
        explorer.steer()
    for bad in (("scale", 5), ("kill", 0), ("set", float("nan"))):
        with pytest.raises(InputError):
            explorer.turn(*bad)
    assert explorer.dial.how == "off"
    explorer.selected = ()


def test_random_sets_are_others_that_are_active_at_the_same_places(explorer, demo):
    units = units_of(explorer.circuit, features_of(explorer)[:4], explorer.reading)
    sets = random_sets(demo, explorer._source.known, explorer.reading, units)
    assert len(sets) == 20
    for drawn in sets:
        assert sorted((s, t) for s, t, _ in drawn) == sorted((s, t) for s, t, _ in units)
        assert not {*drawn} & {*units} and len({*drawn}) == len(units)
        for site, token, index in drawn:
            assert explorer._source.activation(explorer.view, site, index)[token] != 0


def test_the_activating_examples_of_a_feature_are_clustered(explorer):
    with pytest.raises(InputError, match="No feature is selected"):
        explorer.analyse()
    explorer.selected = name = features_of(explorer)[-1]
    assert "What activates it" not in explorer._node["html"]
    found = explorer.analyse()
    assert found.feature == name.partition("@")[0] == explorer.card.circuit_lens["feature"]
    assert "What activates it" in explorer._node["html"]
    explorer.selected = ()
    explorer.selected = name
    assert "What activates it" in explorer._node["html"], "an analysis is kept"
    explorer.selected = ()


def test_groups_names_and_pins_stay_while_the_graph_changes(explorer):
    three = features_of(explorer)[:3]
    explorer.groups = {"three": three}
    assert {name: [*ids] for name, ids in explorer.circuit.groups.items()} == {"three": three}
    explorer.selected = "three"
    explorer.turn("ablate")
    assert explorer._effect["n"] == 3
    explorer.turn("off")
    explorer.size = 12
    explorer.groups = {
        "three": three,
        "two": features_of(explorer)[-2:],
    }  # some of three are hidden
    explorer.size = 50
    assert [*explorer.circuit.groups] == [*explorer.groups] == ["three", "two"]
    explorer.groups = {"three": three}
    twice = {"three": three, "other": three[:1]}
    for bad in ({"three": ["nonsense"]}, {"": three}, ["three"], twice):
        with pytest.raises(InputError):
            explorer.groups = bad
        assert explorer.groups == {"three": three}
    explorer.groups = {}
    explorer.change(names={three[0]: "my own"})
    assert "my own" in explorer.circuit.nodes["label"]
    explorer.size = 40
    assert "my own" in explorer.circuit.nodes["label"]
    explorer.change(names={})


def test_undo_and_redo(demo, demo_saes):
    explorer = ct.explore(demo, demo_saes, STORE)
    explorer.undo()  # nothing to undo
    explorer.size = 20
    explorer.prompt = "the boys near the cabinet"
    explorer.undo()
    assert explorer.prompt == STORE and explorer.size == 20
    explorer.undo()
    assert explorer.size == 40 and explorer._controls["redo"] and not explorer._controls["undo"]
    explorer.redo()
    explorer.redo()
    assert explorer.prompt == "the boys near the cabinet"
    assert explorer._controls["undo"] and not explorer._controls["redo"]


def test_a_graph_is_tested_and_its_verdict_follows_the_evidence(demo, demo_saes):
    explorer = ct.explore(demo, demo_saes)
    explorer.test()
    found = explorer.evidence["interventions"]
    assert found["mean_change"] > 2 * found["random_change"]
    assert explorer._foot["tone"] == "good" and "Holds" in explorer._foot["words"]
    refuted = found | {"mean_change": 0.09, "random_change": 0.11}
    explorer.circuit = explorer.circuit.with_evidence({"interventions": refuted})
    assert explorer.method == "given" and explorer._foot["tone"] == "error"
    assert "Refuted" in explorer._foot["words"]
    explorer.circuit = explorer.circuit.with_evidence({"fit": {"held_out_r2": -0.001}})
    assert explorer._foot["tone"] == "error" and "nothing" in explorer._foot["words"]
    empty = explorer.circuit.prune(max_features=0)
    explorer.circuit = empty.subgraph(empty.nodes["kind"] == "target")
    assert explorer._foot["tone"] == "error" and "Empty" in explorer._foot["words"]
    with pytest.raises(InputError, match="was given"):
        explorer.test()
    explorer.undo()
    explorer.undo()


def test_a_circuit_of_many_prompts_is_learnt_and_tested(learnt):
    assert learnt.method == "randomised" and learnt.view.everywhere
    found = learnt.evidence["ablation"]
    assert found["evaluated_on"]["split"] == "held-out" and found["evaluated_on"]["seen"] == 0
    assert found["faithfulness"] > max(found["random_faithfulness"])
    assert learnt.evidence["edges"]["untested"] == 0
    assert learnt._foot["words"].startswith(learnt.circuit.verdict.capitalize()[:9])
    assert learnt.fit is not None and learnt.task is not None and learnt.acts is not None
    assert len(learnt._controls["fit"]) == len(learnt._controls["strengths"]) > 10
    assert learnt._controls["strengths"] == sorted(learnt._controls["strengths"])
    assert "measured" in learnt._controls["curve_name"] and len(learnt._controls["curve"]) == 150
    # the same prompts, the same features: what `evaluate` measured at this size
    assert learnt._controls["curve"][59] == pytest.approx(found["faithfulness"], abs=2e-3)


def test_a_strength_is_one_that_was_fitted_and_moves_no_node(learnt):
    fit = learnt.fit
    learnt.strength = 0.1
    assert learnt.strength in fit.strengths.tolist()
    assert learnt.circuit.settings["strength"] == learnt.strength
    before = {node["id"]: (node["x"], node["y"]) for node in learnt._scene["nodes"]}
    learnt.strength = 0.3
    after = {node["id"]: (node["x"], node["y"]) for node in learnt._scene["nodes"]}
    kept = set(before) & set(after)
    assert len(kept) > 20 and all(before[name] == after[name] for name in kept)
    shown = learnt.strength
    for bad in (7.0, 0, -1, "strong", None, float("nan")):
        with pytest.raises(InputError):
            learnt.strength = bad
        assert learnt.strength == shown and learnt._controls["strength"] == shown
    assert learnt.fit is fit, "no strength may fit again"
    drawn = []
    seen = drawn.append, "circuit"
    learnt.observe(*seen)
    learnt.strength = 0.1
    assert len(drawn) == 1, "a strength draws once"
    learnt.unobserve(*seen)


def test_the_target_of_many_prompts_says_its_sign_and_that_of_the_prompt(learnt):
    learnt.selected = learnt.circuit.ids()[-1]
    note = learnt._node["note"]
    assert "the answer minus that of the wrong answer" in note and "on average" in note
    assert learnt._top["target"] in note
    learnt.selected = ()


def test_one_prompt_of_a_fit_is_measured_and_names_its_words(learnt):
    learnt.change(everywhere=False)
    nodes = learnt.circuit.nodes
    assert learnt.circuit.settings["scope"] == "prompt"
    words = nodes["label"][nodes["kind"] == "token"].tolist()
    assert words and set(words) <= {*map(str.strip, learnt.reading.tokens)}
    assert float(nodes["activation"][-1]) == pytest.approx(learnt.reading.value, rel=1e-3)
    assert len(learnt._scene["tokens"]) == len(learnt.reading.tokens)
    learnt.prompt = STORE
    assert learnt.circuit.settings["prompt"] == STORE
    assert learnt.evidence["ablation"]["evaluated_on"]["n"] == 1
    learnt.undo()
    learnt.undo()
    assert learnt.view.everywhere


def test_an_observational_fit_on_one_prompt_has_the_prompts_own_target(learnt):
    learnt.method = "observational"
    assert learnt.fit.settings["design"] == "observational"
    learnt.change(everywhere=False)
    value = float(learnt.circuit.nodes["activation"][-1])
    assert value == pytest.approx(learnt.reading.value, rel=1e-3)
    learnt.undo()
    learnt.undo()


def test_a_task_of_ones_own_and_pasted_pairs(demo, demo_saes):
    own = replace(ct.tasks.agreement(demo, n=60, test=True), name="mine")
    explorer = ct.explore(demo, demo_saes, own, estimator=ct.CircuitLasso(positions="attractor"))
    assert explorer._controls["tasks"] == ["mine"] and explorer.prompt == own.clean[0]
    explorer.learn()
    assert explorer.circuit.settings["positions"] == "attractor"
    on = explorer.evidence["ablation"]["evaluated_on"]
    # one's own task has no other prompts than those that were learnt from, and that is said
    assert on["split"] == "training" and on["seen"] > 0
    with pytest.raises(InputError, match="no task 'other'"):
        explorer.learn(task="other")


def test_a_session_holds_ones_own_task(demo, demo_saes, tmp_path):
    own = replace(ct.tasks.agreement(demo, n=12, test=True), name="mine")
    explorer = ct.explore(demo, demo_saes, own)
    again = ct.explore(demo, demo_saes, session=explorer.save(tmp_path / "session.json"))
    for each in fields(own):
        assert getattr(again._source.tasks["mine"], each.name) == getattr(own, each.name)


def asked(explorer, **content):
    explorer._hear(None, content, None)
    explorer.wait()
    return explorer._busy.get("error", "")


def test_pairs_are_pasted(demo, demo_saes):
    few = dict(list(demo_saes.items())[3:5])
    explorer = ct.explore(demo, few, n=48)
    task = ct.tasks.ioi(demo, n=40)
    words = [[demo.tokenizer.decode(each) for each in row] for row in (task.answers, task.wrong)]
    lines = [" | ".join(row) for row in zip(task.clean, task.corrupted, *words, strict=True)]
    assert asked(explorer, do="pairs", text=lines[3]) == ""
    assert explorer.method == "graph" and explorer.prompt == task.clean[3], "a single pair is one"
    assert explorer.answers == (words[0][3], words[1][3])
    assert asked(explorer, do="pairs", text="\n".join(lines)) == ""
    assert explorer.method == "randomised" and explorer.task.name == "pasted"
    assert explorer.prompt == task.clean[0] and len(explorer.task) == 40
    shown = explorer.circuit
    assert "Line 2 has 3 parts" in asked(explorer, do="pairs", text=f"{lines[0]}\na | b | c")
    assert explorer.circuit is shown


def test_another_task_shows_one_of_its_prompts(demo, demo_saes):
    explorer = ct.explore(demo, dict(list(demo_saes.items())[3:5]), n=48)
    explorer.learn(task="agreement")
    assert explorer.prompt == explorer.task.clean[0]
    assert explorer.view.task == "agreement" and "ioi" not in explorer.circuit.settings["task"]


def test_a_single_pair_works(demo, demo_saes):
    explorer = ct.explore(demo, demo_saes, ct.tasks.ioi(demo, n=1))
    assert explorer.circuit.evidence["attribution"]["largest_error"] < 1e-4


def test_a_session_restores_all_of_it(explorer, demo, demo_saes, tmp_path):
    explorer.size = 30
    three = features_of(explorer)[:3]
    explorer.groups = {"three": three}
    explorer.change(names={three[0]: "mine"}, pinned=(three[1],))
    explorer.test()
    explorer.selected = [three[1]]
    explorer.turn("scale", 2.0)
    path = explorer.save(tmp_path / "session.json")
    for again in (ct.explore(session=path), ct.explore(demo, demo_saes, session=path)):
        assert again.view == explorer.view and again.circuit.ids() == explorer.circuit.ids()
        assert again.evidence == explorer.evidence and again.groups == explorer.groups
        assert again.selected == explorer.selected and again.dial == explorer.dial
        assert again._effect["target"] == explorer._effect["target"]
    fewer = dict(list(demo_saes.items())[:2])
    with pytest.raises(MismatchError, match="other dictionaries"):
        ct.explore(demo, fewer, session=path)
    broken = tmp_path / "broken.json"
    broken.write_text(path.read_text().replace('"size": 30', '"size": 31'))
    with pytest.raises(FileFormatError):
        ct.explore(session=broken)
    explorer.turn("off")
    explorer.selected = ()
    explorer.groups = {}
    explorer.change(names={}, pinned=(), size=40)


def test_a_session_with_a_fit_is_learnt_again(learnt, tmp_path):
    learnt.strength = 0.1
    learnt.test()
    again = ct.explore(session=learnt.save(tmp_path / "session.json"))
    assert again.circuit.ids() == learnt.circuit.ids() and again.evidence == learnt.evidence
    assert np.array_equal(again.circuit.edges, learnt.circuit.edges)


def test_what_is_no_panel_is_refused(demo, demo_saes):
    for bad in ({"model": None}, {"model": "demo"}, {"n": 0}, {"task": 3}, {"descriptions": {}}):
        with pytest.raises(InputError):
            ct.explore(**{"model": demo, "dictionaries": demo_saes} | bad)
    with pytest.raises(InputError, match="does not know 'zzz'"):
        ct.explore(demo, demo_saes, "the zzz was")


def test_a_request_that_is_stopped_leaves_what_was_shown(demo, demo_saes):
    explorer = ct.explore(demo, demo_saes, n=96)
    shown, view = explorer.circuit, explorer.view
    steps = []

    def stop(change):
        steps.append(change.new)
        if change.new.get("step"):
            explorer._stop.set()

    explorer.observe(stop, "_busy")
    explorer._hear(None, {"do": "method", "method": "randomised"}, None)
    explorer.wait()
    assert any(each.get("total") for each in steps), "it says how far it is"
    assert "Stopped" in explorer._busy["error"]
    assert explorer.circuit is shown and explorer.view == view
    explorer.unobserve(stop, "_busy")
    explorer._hear(None, {"do": "size", "value": 20}, None)
    explorer.wait()
    assert explorer.size == 20 and explorer._busy == {}, "the next request is done"


def test_what_a_notebook_stores_is_small_and_shows_the_graph(explorer):
    still = explorer._still_output()
    assert "<svg" in still["text/html"] and explorer.reading.tokens[1] in still["text/html"]
    assert len(json.dumps(still)) < 60_000
    state = explorer.get_state()
    assert len(json.dumps({k: str(v) for k, v in state.items()})) < 200_000
    assert len(state["_esm"]) < 80_000, "vis-network, 0.5 MB, is sent on demand"


def test_closed_panels_leave_nothing_behind(demo, demo_saes):
    """What a panel captures is freed with it, and so are its widgets."""
    gc.collect()
    before = len(_instances)
    held = []
    for _ in range(3):
        explorer = ct.explore(demo, demo_saes, STORE)
        explorer.selected = features_of(explorer)[0]
        held.append(weakref.ref(explorer.acts))
        held.append(weakref.ref(explorer.whole))
        explorer.close()
        del explorer
    gc.collect()
    assert len(_instances) == before and [ref() for ref in held] == [None] * len(held)

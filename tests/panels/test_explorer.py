"""The explorer without a browser: whatever a control does, an assignment or a call does."""

from dataclasses import replace

import pytest

import circuit_toolkit as ct
from circuit_toolkit.errors import InputError


@pytest.fixture(scope="module")
def explorer(demo, demo_saes):
    return ct.explore(demo, demo_saes, n=96)


def test_it_opens_with_a_tested_circuit(explorer):
    assert explorer.circuit is not None and len(explorer.circuit.nodes) > 5
    assert explorer.circuit.settings["design"] == "randomised"
    found = explorer.circuit.evidence["ablation"]
    assert found["evaluated_on"]["split"] == "held-out"
    assert found["faithfulness"] > max(found["random_faithfulness"])
    assert explorer.circuit.evidence["edges"]["untested"] < len(explorer.circuit.edges)
    assert explorer.graph.circuit is explorer.circuit
    assert "verdict" in repr(explorer) and len(repr(explorer)) < 500


def test_a_strength_redraws_from_the_fitted_path(explorer):
    fit = explorer.fit
    explorer.strength = 0.9
    few = len(explorer.circuit.edges)
    explorer.strength = 0.05
    assert len(explorer.circuit.edges) > few
    assert explorer._slider.value == pytest.approx(explorer.strength)
    assert explorer.fit is fit, "a slider must not fit again"


def test_the_strength_is_chosen_as_the_menu_says(explorer):
    fit, strengths = explorer.fit, explorer.fit.strengths.tolist()
    explorer.strength = 0.9
    for choice, expected in (("best", fit.best_strength()), ("one_se", fit.one_se_strength())):
        explorer._choice.value = choice
        assert explorer.circuit.settings["chosen_by"] == choice
        assert explorer.strength == explorer._slider.value == pytest.approx(expected)
    explorer._choice.value = "budget"
    assert explorer._budget.layout.display == ""
    for budget in (60, 50):
        explorer._budget.value = budget
        edges, at = len(explorer.circuit.edges), strengths.index(explorer.strength)
        assert edges <= budget
        most = explorer._features.value
        weaker = fit.circuit(strengths[at + 1], max_features=most, max_edges=None)
        assert len(weaker.edges) > budget, "it is the weakest that keeps to the budget"
    explorer._slider.value = strengths[3]  # the slider takes over
    assert explorer._choice.value == "hand" and explorer._budget.layout.display == "none"
    assert explorer.strength == explorer.circuit.settings["strength"] == strengths[3]
    assert explorer.fit is fit, "no choice may fit again"


def test_a_choice_that_cannot_be_is_said_and_the_slider_stays(explorer):
    fit, explorer.strength = explorer.fit, 0.1
    view, shown = explorer._view, explorer.circuit
    explorer._view = replace(fit, folds=None), *view[1:]
    explorer._choice.value = "one_se"
    assert "without folds" in explorer._status.value and explorer.circuit is shown
    assert explorer._choice.value == "hand"
    explorer._view = view
    explorer._say("")


def test_adaptive_weights_are_fitted_when_they_are_asked_for(demo, demo_saes):
    few = dict(list(demo_saes.items())[-2:])
    explorer = ct.explore(demo, few, n=96)
    explorer._adaptive.value = True
    assert explorer.fit.settings["adaptive"] and explorer.circuit.settings["adaptive"]
    steps = [step for _, step in explorer._slider.options]
    assert steps == explorer.fit.strengths.tolist() and explorer.strength in steps
    explorer._choice.value = "one_se"
    assert explorer.strength == explorer.fit.one_se_strength()


def test_a_click_shows_the_card_of_the_feature(explorer):
    explorer.strength = 0.1
    node = explorer.circuit.ids()[0]
    explorer.graph.selected = node  # what the browser sets
    assert explorer.selected == node
    assert explorer.card.name == node.removesuffix("@last")
    assert explorer.card.name in explorer.feature.value
    assert explorer.card.examples.maximum > 0 and explorer.card.edges
    explorer.selected = explorer.circuit.ids()[-1]
    assert explorer.card is None and "what the circuit explains" in explorer.feature.value
    explorer.selected = ""
    assert "Click a node" in explorer.feature.value


def test_the_firings_of_a_feature_are_taken_apart_by_a_button(explorer):
    assert explorer._analyse.layout.display == "none", "nothing is selected"
    with pytest.raises(InputError, match="No feature is selected"):
        explorer.analyse()
    node = next(name for name in explorer.circuit.ids() if name.startswith("blocks.4"))
    explorer.selected = node
    assert explorer._analyse.layout.display == "" and explorer.circuits is None
    explorer._analyse.click()
    feature = node.removesuffix("@last")
    assert explorer.circuits.feature == feature == explorer.card.circuit_lens["feature"]
    assert explorer.card.edges and "<h4>What activates it" in explorer.feature.value
    other = explorer.circuit.ids()[0]
    explorer.selected = other
    assert explorer.circuits is None and "What activates it" not in explorer.feature.value
    explorer.selected = node
    assert explorer.circuits is not None, "an analysis is kept"
    explorer.selected = ""


def test_nothing_of_the_last_task_is_shown_on_a_new_one(demo, demo_saes):
    explorer = ct.explore(demo, demo_saes, n=96)
    explorer.selected = node = explorer.circuit.ids()[-2]
    explorer.analyse()
    told, card = explorer.circuits, explorer.card
    assert told is not None and "What activates it" in explorer.feature.value
    explorer.n = 128  # the same features matter, and the prompts are others
    explorer.learn()
    assert explorer.selected == node, "the feature is in both circuits"
    assert explorer.circuits is None and "What activates it" not in explorer.feature.value
    assert explorer.card is not card
    assert explorer.card.examples.n_prompts == explorer.acts.n_prompts > card.examples.n_prompts


def test_the_card_of_a_prompt_of_ones_own_is_read_from_this_prompt(explorer):
    text = "Mary and Tom went to the store. Tom gave a ring to"
    explorer.selected = node = explorer.circuit.ids()[0]
    assert explorer.card.examples.n_prompts == explorer.acts.n_prompts > 1
    explorer._own.value = text
    explorer.selected = explorer.circuit.ids()[0]
    assert explorer.card is None and "token 1 of the prompt" in explorer.feature.value
    explorer.selected = node = next(i for i in explorer.circuit.ids() if i.startswith("blocks"))
    examples = explorer.card.examples
    assert examples.n_prompts == 1 and examples.n_tokens == len(text.replace(".", " .").split())
    assert explorer.card.name == node.removesuffix("@last")
    assert explorer.card.settings["n_prompts"] == 1
    explorer._own.value = ""
    assert explorer.selected in ("", node)
    explorer.selected = ""


def test_one_prompt_and_a_prompt_of_ones_own(explorer):
    whole = explorer.circuit
    explorer._prompt.value = 0
    assert explorer.circuit.settings["scope"] == "prompt"
    explorer._own.value = "Mary and Tom went to the store. Tom gave a ring to"
    assert explorer.circuit.settings["prompt"].startswith("Mary and Tom")
    words = explorer.circuit.nodes["kind"] == "token"
    assert {"Mary", "Tom"} <= set(explorer.circuit.nodes["label"][words].tolist())
    target = str(explorer.circuit.nodes["label"][-1])
    assert target == "logit(Mary) - logit(Tom)" or target.startswith("logit(Mary) - ")
    explorer._answers.value = "Mary, Tom"
    assert explorer.circuit.nodes["label"][-1] == "logit(Mary) - logit(Tom)"
    assert explorer.circuit.evidence["ablation"]["evaluated_on"]["n"] == 1
    explorer._answers.value = ""
    shown = explorer.circuit
    explorer._own.value = "Mary frobnicated"
    assert "frobnicated" in explorer._status.value, "the panel says what it does not know"
    assert explorer.circuit is shown
    explorer._own.value = ""
    explorer._prompt.value = -1
    assert explorer.circuit.settings["scope"] == whole.settings["scope"] == "dataset"


def test_testing_adds_evidence_of_held_out_prompts(explorer):
    explorer.test()
    on = explorer.circuit.evidence["ablation"]["evaluated_on"]
    assert on["split"] == "held-out" and on["seen"] == 0
    assert explorer.circuit.evidence["ablation"]["size"] == len(explorer.circuit.nodes) - 1
    assert "of 64 held-out ioi prompts (seed 1, errors kept)" in repr(explorer.circuit)


def test_another_task_and_fewer_sites_are_learnt(explorer):
    explorer._sites.value = list(explorer.dictionaries)[-3:]
    explorer._task.value = "agreement"
    assert explorer.circuit.settings["task"] == "agreement"
    assert len(explorer.fit.sites) == 3
    explorer._sites.value = []
    with pytest.raises(InputError, match="at least one site"):
        explorer.learn()


def test_a_task_of_ones_own_and_a_position_that_it_names(demo, demo_saes):
    own = replace(ct.tasks.agreement(demo, n=60, test=True), name="mine")
    estimator = ct.CircuitLasso(positions="attractor")
    explorer = ct.explore(demo, demo_saes, own, estimator=estimator)
    assert explorer._task.options == ("mine",)
    assert explorer.circuit.settings["positions"] == "attractor"
    explorer.test()
    ablation = explorer.circuit.evidence["ablation"]
    assert ablation["ablated_positions"] == "attractor"
    # one's own task has no other prompts than those that were learnt from, and that is said
    assert ablation["evaluated_on"]["split"] == "training" and ablation["evaluated_on"]["seen"] > 0
    assert "training mine prompts" in " ".join(explorer.graph._scene["header"]["evidence"])

"""The explorer of one prompt without a browser: what a control does, a call does."""

import pytest

import circuit_toolkit as ct
from circuit_toolkit.errors import InputError
from circuit_toolkit.panels.prompt_explorer import PromptExplorer


@pytest.fixture(scope="module")
def task(demo):
    return ct.tasks.ioi(demo, n=1)


@pytest.fixture(scope="module")
def explorer(demo, demo_transcoders, task):
    return ct.explore(demo, demo_transcoders, task)


def test_a_single_pair_opens_with_its_graph(explorer, task, demo, demo_saes):
    assert isinstance(explorer, PromptExplorer)
    assert explorer.graph.circuit is explorer.circuit
    assert explorer.circuit.settings["prompt"] == task.clean[0]
    assert explorer.circuit.settings["target"][0].startswith("logit(")
    assert len(explorer.circuit.nodes) <= 71 < len(explorer.whole.nodes)
    assert explorer.circuit.evidence["attribution"]["largest_error"] < 1e-4
    assert "replacement" in repr(explorer) and len(repr(explorer)) < 500
    of_stream = ct.explore(demo, demo_saes, task)  # autoencoders alone: MLPs are errors
    assert isinstance(of_stream, PromptExplorer)
    assert of_stream.circuit.evidence["attribution"]["largest_error"] < 1e-4


def test_sliders_show_more_or_fewer_of_the_same_graph(explorer):
    whole = explorer.whole
    explorer._nodes.value = 20
    assert len(explorer.circuit.nodes) <= 21
    explorer._nodes.value, explorer._edges.value = 100, 60
    assert len(explorer.circuit.nodes) > 21 and 20 < len(explorer.circuit.edges) <= 60
    assert explorer.whole is whole
    explorer._nodes.value, explorer._edges.value = 70, 250


def test_targets_are_typed(explorer, demo, task):
    right, wrong = (demo.tokenizer.decode(each[0]) for each in (task.answers, task.wrong))
    explorer._targets.value = f"{wrong} - {right}"
    assert explorer.circuit.settings["target"] == [f"logit({wrong}) - logit({right})"]
    explorer._targets.value = f"{right}, {wrong}"
    assert explorer.circuit.settings["target"] == [right, wrong]
    shown = explorer.circuit
    for bad in ("zzz", "the brother", f"{right} - {right}"):
        explorer._targets.value = bad
        assert "error" in explorer._status.value and explorer.circuit is shown
    explorer._targets.value = ""
    assert explorer.circuit.settings["target"][0].startswith("logit(")


def test_another_prompt(explorer, task):
    explorer._prompt.value = "the brother was"
    assert explorer.circuit.settings["prompt"] == "the brother was"
    assert "task" not in explorer.circuit.settings
    explorer._prompt.value = "the zzz was"
    assert "does not know" in explorer._status.value
    explorer._prompt.value = task.clean[0]
    assert explorer.circuit.settings["task"] == "ioi" and "does not" not in explorer._status.value


def test_nodes_say_what_they_are(explorer):
    nodes, ids = explorer.circuit.nodes, explorer.circuit.ids()
    seen = {}
    for kind in ("feature", "error", "token", "target"):
        explorer.selected = ids[nodes["kind"].tolist().index(kind)]
        assert explorer.graph.selected == explorer.selected
        seen[kind] = explorer.feature.value
        assert (explorer.card is not None) == (kind == "feature")
    assert "no feature explains" in seen["error"] and "The word" in seen["token"]
    assert "What is explained" in seen["target"] and len(set(seen.values())) == 4
    explorer.selected = ""
    assert "Click a node" in explorer.feature.value


def test_the_button_tests_by_ablation(explorer):
    explorer.test()
    found = explorer.circuit.evidence["interventions"]
    assert found["n"] == 20 and found["mean_change"] > found["random_change"]
    explorer._nodes.value = 40
    assert "interventions" in explorer.circuit.evidence


def test_what_is_no_prompt_is_refused(demo, demo_transcoders):
    with pytest.raises(InputError, match="does not know 'zzz'"):
        ct.explore(demo, demo_transcoders, "the zzz was")
    with pytest.raises(InputError, match="descriptions must be"):
        ct.explore(demo, demo_transcoders, "the brother was", descriptions={})

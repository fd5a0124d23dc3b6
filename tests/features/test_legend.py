"""The legend of names: each part that occurs, with an example from the circuit."""

import pytest

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET, new_edges, new_nodes
from circuit_toolkit.errors import InputError
from circuit_toolkit.features import how_to_read

SITE = "blocks.3.hook_resid_post"


def legend(*labels, scores=None):
    n = len(labels)
    nodes = new_nodes(
        n + 1,
        [*["feature"] * n, TARGET],
        site=[*[SITE] * n, TARGET],
        label=[*labels, "logit(A) - logit(B)"],
        index=range(n + 1),
        score=[*(scores or range(n, 0, -1)), 9],
    )
    return how_to_read(Circuit(nodes, new_edges(0)))


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("to", "fires on “to”"),
        ("to, with, …", "fires on “to” or “with”"),
        ("Emma, Kate … to, “,” L3", "fires on “to” or “,” in prompts with “Emma” or “Kate”"),
        ("to ⇒ Emma, him", "fires on “to”, and promotes “Emma” and “him”"),
        ("a … the, … ⇒ are #3", "fires on “the” in prompts with “a”, and promotes “are”"),
        ("(to)", "fires on “to”"),
        ("⇒ Emma", "promotes “Emma”"),
    ],
)
def test_a_name_in_words(name, meaning):
    assert legend(name)[0] == (name, meaning)


def test_each_part_has_an_example_of_the_strongest_feature_that_has_it():
    found = legend("to @s2", "Emma … with, … ⇒ him", "“.”, to ⇒ her #4", scores=[1, 2, 3])
    assert found[0][0] == "Emma … with, … ⇒ him", "the fullest name"
    shown = [part for part, _ in found[1:]]
    assert shown == ["Emma … ", "“.”, to", "with, …", "⇒ her", "“.”", "@s2", "#4"]


def test_parts_that_do_not_occur_are_not_explained():
    assert [part for part, _ in legend("to")] == ["to", "to"]
    assert legend("", "") == []


def test_names_of_the_bundled_model_are_explained(demo, demo_saes):
    import circuit_toolkit as ct

    task = ct.tasks.ioi(demo, n=64)
    acts = ct.capture(demo, demo_saes, task, progress=False)
    circuit = ct.CircuitLasso(min_active=2).fit(acts, task, progress=False).circuit(0.3)
    labels = [label for label in circuit.nodes["label"][:-1] if label]
    parts = [part for part, _ in how_to_read(circuit)]
    assert parts and all(any(part.strip() in label for label in labels) for part in parts)


def test_another_object_is_refused(demo):
    with pytest.raises(InputError, match="circuit must be a Circuit"):
        how_to_read(demo)

"""No two features of a circuit share a name."""

import numpy as np
import pytest

from circuit_toolkit.circuit.names import told_apart
from circuit_toolkit.circuit.tables import TARGET, TOKEN, new_nodes


def features(*rows):
    """Rows of label, layer, position, index."""
    label, layer, position, index = zip(*rows, strict=True)
    site = [f"blocks.{each}.hook_resid_post" for each in layer]
    return new_nodes(len(rows), site=site, label=label, position=position, index=index)


def named(*rows):
    return told_apart(features(*rows))["label"].tolist()


def test_only_names_that_are_shared_change():
    assert named(("to", 0, "end", 1), ("with", 0, "end", 2)) == ["to", "with"]


@pytest.mark.parametrize(
    ("rows", "ends"),
    [
        ([(0, "s2", 7), (0, "end", 7)], ["@s2", "@end"]),
        ([(0, "end", 7), (3, "end", 7)], ["L0", "L3"]),
        ([(0, "end", 7), (0, "end", 9)], ["#7", "#9"]),
        ([(0, "s2", 7), (3, "end", 7), (3, "s2", 7)], ["@s2 L0", "@end L3", "@s2 L3"]),
        ([(0, "s2", 7), (0, "s2", 8), (0, "end", 7)], ["@s2 #7", "@s2 #8", "@end #7"]),
    ],
)
def test_the_shortest_end_that_tells_them_apart_is_added(rows, ends):
    rows = sorted(rows)
    assert sorted(named(*(("to", *row) for row in rows))) == sorted(f"to {end}" for end in ends)


def test_a_name_that_another_has_already_is_not_given():
    found = named(("to", 0, "end", 7), ("to", 0, "end", 9), ("to #7", 0, "end", 3))
    assert len({*found}) == 3 and found[2] == "to #7"


def test_sites_of_one_layer_are_told_apart_by_their_kind():
    nodes = features(("to", 0, "end", 7), ("to", 0, "end", 7))
    nodes["site"][1] = "blocks.0.hook_mlp_out"
    assert len({*told_apart(nodes)["label"]}) == 2


def test_what_is_no_feature_or_has_no_name_stays():
    nodes = np.concatenate(
        [
            new_nodes(2, TOKEN, label="John", position=["1", "4"]),
            new_nodes(2, "error", site="blocks.0.hook_mlp_out", label="error", position=["1", "4"]),
            features(("", 0, "1", 1), ("", 0, "1", 2), ("to", 0, "1", 3)),
            new_nodes(1, TARGET, label="to"),
        ]
    )
    assert told_apart(nodes)["label"].tolist() == nodes["label"].tolist()


def test_names_of_many_features_are_all_different_and_the_table_is_left_alone():
    rng = np.random.default_rng(0)
    every = [(layer, place, i) for layer in range(4) for place in "abc" for i in range(5)]
    rows = [(str(rng.choice(["to", "with", "a"])), *each) for each in every]
    nodes = features(*rows)
    before = nodes.copy()
    found = told_apart(nodes)
    assert len({*found["label"]}) == len(rows)
    assert (nodes == before).all()
    assert (told_apart(found) == found).all(), "names that differ stay"

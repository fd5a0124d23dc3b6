import time
from dataclasses import replace

import numpy as np
import pytest

from circuit_toolkit.circuit import Circuit, new_edges, new_nodes
from circuit_toolkit.views.graph import prompt_layout
from circuit_toolkit.views.graph.drawing import drawing_of
from circuit_toolkit.views.graph.layout import crossings
from circuit_toolkit.views.graph.prompt_columns import places_of
from circuit_toolkit.views.graph.prompt_layout import laid_out_by_token
from circuit_toolkit.views.graph.scene import LETTER, scene_of
from tests.circuit.made_up import PROMPT, made_up_attribution, made_up_circuit

LONG = [f"word{i}" for i in range(2000)]
CIRCUITS = [
    made_up_attribution(),
    made_up_attribution(80, 240, seed=2),
    made_up_attribution(30, 80, seed=3, targets=("Mary", "John", "the girl next door", "a", "b")),
    made_up_attribution(1, 1, seed=4),
    made_up_attribution(40, 100, tokens=LONG, layers=26, seed=5),
]


def size(circuit):
    return f"{len(circuit.nodes)} nodes over {len(circuit.settings['tokens'])} tokens"


@pytest.mark.parametrize("circuit", CIRCUITS, ids=size)
def test_a_node_stands_above_its_token_in_the_row_of_its_layer(circuit):
    place = laid_out_by_token(drawing_of(circuit), places_of(circuit))
    at = {column.first: column for column in place.columns}
    layers = set()
    for i, (kind, site, position) in enumerate(
        circuit.nodes[["kind", "site", "position"]].tolist()
    ):
        name, top, bottom = place.rows[place.row[i]]
        assert top < place.y[i] < bottom
        if kind == "target":
            assert place.row[i] == len(place.rows) - 1 and top == 0
            continue
        column = at[int(position)]
        assert column.left < place.x[i] < column.left + column.width
        if kind == "token":
            assert place.row[i] == 0 and bottom == place.height
        else:  # errors too, though their site is another
            layers.add((int(site.split(".")[1]), float(bottom)))
            assert name == f"L{site.split('.')[1]}"
    assert [bottom for _, bottom in sorted(layers)] == sorted((b for _, b in layers), reverse=True)
    assert sum(column.count for column in place.columns) == len(circuit.settings["tokens"])
    lefts = [column.left for column in place.columns]
    assert lefts == sorted(lefts) and [c.first for c in place.columns] == sorted(at)


@pytest.mark.parametrize("circuit", CIRCUITS, ids=size)
def test_edges_run_upwards_and_labels_do_not_overlap(circuit):
    drawn = scene_of(circuit)
    nodes = drawn["nodes"]
    assert drawn["upwards"]
    assert all(nodes[e["from"]]["y"] > nodes[e["to"]]["y"] for e in drawn["edges"])
    marks = []  # left, right, top, bottom of what is drawn
    for node in nodes:
        x, y, r = node["x"], node["y"], node["size"]
        half = LETTER * len(node["label"].strip()) / 2
        if node["shape"] == "box":
            marks.append((x - half - 6, x + half + 6, y - 10, y + 10))
            continue
        marks.append((x - r, x + r, y - r, y + r))
        if half:
            marks.append((x - half, x + half, y + r + 3, y + r + 15))
    left, right, top, bottom = np.array(marks).T
    assert left.min() > 0 and right.max() < drawn["width"] + 4
    over = (left[:, None] < right) & (left < right[:, None])
    over &= (top[:, None] < bottom) & (top < bottom[:, None])
    assert over.sum() == len(marks), "each overlaps itself alone"


def test_several_nodes_of_one_cell_stand_beside_each_other():
    circuit = made_up_attribution(12, 30, tokens=["<s>", "to"], layers=2)
    place = laid_out_by_token(drawing_of(circuit), places_of(circuit))
    features = circuit.nodes["kind"] == "feature"
    for row in (1, 2):
        here = place.x[features & (place.row == row)]
        assert len(set(here.tolist())) == len(here) > 2
        assert np.ptp(place.y[features & (place.row == row)]) == 0
    assert place.width <= 1120


def test_runs_of_words_with_nothing_above_them_are_left_out():
    start = time.perf_counter()
    drawn = scene_of(CIRCUITS[-1])
    assert time.perf_counter() - start < 2  # s; it takes 0.2
    left_out = [word["word"] for word in drawn["words"] if "…" in word["word"]]
    assert left_out and len(drawn["words"]) < 120
    assert drawn["tokens"] == LONG, "the activations are shown on all of them"


def test_words_that_nothing_reads_are_written_but_are_no_nodes():
    circuit = made_up_attribution()
    words = new_nodes(1, "token", position="0", index=1, label="<s>")
    edges = circuit.edges.copy()
    edges["source"] += 1
    edges["target"] += 1
    drawn = scene_of(replace(circuit, nodes=np.concatenate([words, circuit.nodes]), edges=edges))
    plain = scene_of(circuit)
    assert drawn["nodes"] == plain["nodes"] and drawn["edges"] == plain["edges"]
    assert [word["word"] for word in drawn["words"]] == PROMPT
    assert not drawn["words"][0]["boxed"]


def test_a_layer_with_edges_inside_has_a_row_for_each_of_its_sites():
    nodes = np.concatenate(
        [
            new_nodes(1, "token", position="0", label="a"),
            new_nodes(1, site="blocks.0.ln2.hook_normalized", position="0"),
            new_nodes(1, site="blocks.0.hook_resid_post", position="0"),
            new_nodes(1, site="blocks.1.hook_resid_post", position="0"),
            new_nodes(1, "target", label="b"),
        ]
    )
    edges = new_edges(4, source=[0, 1, 2, 3], target=[1, 2, 3, 4], weight=1, score=1)
    circuit = Circuit(nodes, edges, {"scope": "prompt", "tokens": ["a"]})
    names = [band["name"] for band in scene_of(circuit)["bands"]]
    assert names == ["", "L0 mlp_in", "L0 resid_post", "L1", ""]


@pytest.mark.parametrize("change", [{"tokens": None}, {"scope": "dataset"}, {"tokens": ["a"]}])
def test_other_circuits_keep_a_column_for_each_site(change):
    circuit = made_up_attribution()
    other = replace(circuit, settings=circuit.settings | change)
    for drawn in (scene_of(other), scene_of(made_up_circuit())):
        assert not drawn["upwards"] and all("left" in band for band in drawn["bands"])


def test_words_with_nothing_above_them_turn_where_space_is_scarce():
    wide, full = (made_up_attribution(n, 2 * n, seed=2) for n in (3, 80))
    words = scene_of(wide)["words"]
    assert not any(word["turned"] for word in words)
    drawn = scene_of(full)
    at = {int(n["position"]) for n in drawn["nodes"] if n["kind"] in ("feature", "error")}
    assert [word["turned"] for word in drawn["words"]] == [i not in at for i in range(15)]
    for node in drawn["nodes"]:
        if node["kind"] == "token":
            assert (node["shape"] == "box") == (int(node["position"]) in at)


@pytest.mark.parametrize(("n", "turned"), [(3, False), (80, True)])
def test_two_words_at_one_token_stand_beside_each_other(n, turned):
    circuit = made_up_attribution(n, 2 * n, seed=2)
    feature = 2 + circuit.nodes["kind"].tolist().index("feature")
    words = new_nodes(2, "token", position="0", label=["<s>", "Tom"])  # the other's of a pair
    edges = circuit.edges.copy()
    edges["source"] += 2
    edges["target"] += 2
    read = new_edges(2, source=[0, 1], target=feature, weight=[1, -1], score=1)
    nodes = np.concatenate([words, circuit.nodes])
    drawn = scene_of(Circuit(nodes, np.concatenate([read, edges]), circuit.settings))
    first, second = drawn["nodes"][:2]
    assert first["y"] == second["y"]
    apart = 4 + 4 if turned else LETTER * 3 + 8
    assert second["x"] - first["x"] >= apart
    word = drawn["words"][0]
    assert word["word"] == "<s> / Tom" and word["turned"] == turned
    assert word["left"] < first["x"] and second["x"] < word["right"]


@pytest.mark.parametrize(("position", "end"), [(-1, 14), (6, 6), (-3, 12), (99, 14)])
def test_targets_stand_above_the_token_that_they_follow(position, end):
    circuit = made_up_attribution(6, 12, seed=3)
    settings = circuit.settings | {"position": position}
    drawn = scene_of(replace(circuit, settings=settings))
    word = [w for w in drawn["words"] if w["left"] < drawn["nodes"][-1]["x"] < w["right"]]
    assert [w["word"] for w in word] == [PROMPT[end]]


def test_a_target_is_told_with_its_probability_or_its_value():
    circuit = made_up_attribution(6, 12, targets=("Mary", "John"))

    def told(**settings):
        drawn = scene_of(replace(circuit, settings=circuit.settings | settings))
        return [node["label"] for node in drawn["nodes"] if node["kind"] == "target"]

    assert told() == ["Mary 62%", "John 31%"]
    assert (
        told(corrupted="When Tom") == told(probabilities=None) == ["Mary = +12.5", "John = +12.5"]
    )
    circuit.nodes["index"][-1] = 0  # a direction
    assert told() == ["Mary 62%", "John = +12.5"]


@pytest.mark.parametrize("circuit", CIRCUITS[:3], ids=size)
def test_the_order_in_a_cell_has_fewer_crossings_than_the_one_given(circuit, monkeypatch):
    drawing = drawing_of(circuit)
    ours = laid_out_by_token(drawing, places_of(drawing.circuit))
    monkeypatch.setattr(prompt_layout, "_mean_of_neighbours", lambda drawing, x: np.zeros(len(x)))
    given = laid_out_by_token(drawing, places_of(drawing.circuit))
    count = [crossings(-place.y, place.x, circuit.edges) for place in (ours, given)]
    assert count[0] < 0.98 * count[1]  # of which most run between cells


def test_a_graph_that_would_be_taller_than_wide_gets_wider():
    full = scene_of(made_up_attribution(250, 400, seed=2))
    assert 1120 < full["width"] <= 1610 and full["height"] < full["width"]
    assert scene_of(CIRCUITS[0])["width"] == pytest.approx(1120)


def test_edges_past_nodes_of_their_column_bend_aside():
    layers = [f"blocks.{i}.ln2.hook_normalized" for i in range(4)]
    word, end = new_nodes(1, "token", position="0", label="a"), new_nodes(1, "target", label="b")
    nodes = np.concatenate([word, new_nodes(4, site=layers, position="0"), end])
    rows = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    source, target = np.transpose(rows)
    edges = new_edges(len(rows), source=source, target=target, weight=1, score=1)
    drawn = scene_of(Circuit(nodes, edges, {"scope": "prompt", "tokens": ["a"]}))
    x, y = ([node[axis] for node in drawn["nodes"]] for axis in "xy")
    for edge in drawn["edges"]:
        s, t = edge["from"], edge["to"]
        assert ("aside" in edge) == (t - s > 1)
        for i in range(s + 1, t):  # the quadratic curve of the SVG, at the height of the node
            share = (y[s] - y[i]) / (y[s] - y[t])
            control = (x[s] + x[t]) / 2 + edge["aside"] * (y[t] - y[s])
            at = (1 - share) ** 2 * x[s] + 2 * share * (1 - share) * control + share**2 * x[t]
            assert abs(at - x[i]) > 8, "past the smallest node"


def test_sizes_are_those_of_features_whatever_the_influence_of_words_and_targets():
    circuit = made_up_attribution()
    circuit.nodes["score"][circuit.nodes["kind"] == "target"] = 100
    drawn = scene_of(circuit)["nodes"]
    assert max(node["size"] for node in drawn if node["kind"] == "feature") == 11


def test_a_feature_is_active_where_its_activation_is_not_zero():
    circuit = made_up_attribution(3, 6)
    for values in circuit.settings["activations"].values():
        values["0"] = 0.0
    active = [node["active"] for node in scene_of(circuit)["nodes"] if "active" in node]
    assert len(active) == 3 and not any("0" in values for values in active)

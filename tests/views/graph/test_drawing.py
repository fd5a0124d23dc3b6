import numpy as np
import pytest

from circuit_toolkit.circuit import Circuit, new_edges
from circuit_toolkit.views.graph.drawing import drawing_of
from circuit_toolkit.views.graph.scene import scene_of
from tests.circuit.made_up import made_up_attribution, made_up_circuit


def grouped(circuit, seed=0):
    """Three supernodes of features, taken anywhere."""
    features = np.array(circuit.ids(), dtype=object)[circuit.nodes["kind"] == "feature"]
    mixed = np.random.default_rng(seed).permutation(features).tolist()
    for name, count in (("names", 6), ("the giving", 4), ("alone", 1)):
        circuit = circuit.group(name, [mixed.pop() for _ in range(count)])
    return circuit


CIRCUITS = [grouped(made_up_attribution()), grouped(made_up_circuit(60, 200, seed=3), seed=1)]


@pytest.mark.parametrize("circuit", CIRCUITS)
def test_edges_between_supernodes_are_summed_and_inner_ones_are_gone(circuit):
    drawing = drawing_of(circuit)
    wanted = {(s, t): w for s, t, w in circuit.supernode_edges().itertuples(index=False)}
    found = {
        (drawing.ids[s], drawing.ids[t]): w
        for s, t, w in drawing.edges[["source", "target", "weight"]].tolist()
    }
    assert found == pytest.approx(wanted, rel=1e-5)  # float32
    assert len(found) == len(drawing.edges) < len(circuit.edges)


@pytest.mark.parametrize("circuit", CIRCUITS)
def test_each_node_is_drawn_once_alone_or_in_its_supernode(circuit):
    drawing, ids = drawing_of(circuit), circuit.ids()
    assert sorted(sum(drawing.rows, [])) == list(range(len(ids)))
    for name, rows in zip(drawing.ids, drawing.rows, strict=True):
        assert [ids[i] for i in rows] == circuit.groups.get(name, [name])
    assert (np.diff(drawing.depth) >= 0).all()


def test_a_circuit_without_supernodes_is_drawn_as_it_is():
    circuit = made_up_circuit()
    drawing = drawing_of(circuit)
    assert (drawing.nodes == circuit.nodes).all() and (drawing.edges == circuit.edges).all()
    assert drawing.ids == circuit.ids()
    assert len(drawing_of(circuit.prune(max_features=0)).edges) == 0


def test_a_sum_keeps_a_status_that_all_its_edges_have():
    circuit = made_up_circuit(3, 0)
    rows = [(0, 3, "confirmed"), (1, 3, "confirmed"), (2, 3, "refuted")]
    edges = new_edges(3, weight=1, score=1)
    for i, row in enumerate(rows):
        edges[["source", "target", "status"]][i] = row
    edges["low"], edges["high"] = 0.5, 1.5
    circuit = Circuit(circuit.nodes, edges)
    ids = circuit.ids()
    both = drawing_of(circuit.group("both", ids[:2])).edges
    assert {e["status"]: (e["low"], e["weight"]) for e in both} == {
        "confirmed": (-np.inf, 2),
        "refuted": (0.5, 1),
    }
    assert drawing_of(circuit.group("all", ids[:3])).edges["status"].tolist() == ["untested"]


def test_a_supernode_stands_in_the_midst_of_its_members():
    circuit = made_up_attribution()
    plain = {node["id"]: node for node in scene_of(circuit)["nodes"]}
    low = [i for i, n in plain.items() if n["kind"] == "feature" and n["site"] == "mlp_in 0"][:2]
    high = [i for i, n in plain.items() if n["kind"] == "feature" and n["site"] == "mlp_in 4"][:2]
    drawn = scene_of(circuit.group("all", low + high))
    (node,) = [node for node in drawn["nodes"] if node["kind"] == "supernode"]
    (row,) = [band["name"] for band in drawn["bands"] if band["top"] < node["y"] < band["bottom"]]
    assert row == "L2"
    tokens = [int(plain[i]["position"]) for i in low + high]
    word = drawn["words"][round(np.mean(tokens))]
    assert word["left"] < node["x"] < word["right"]
    assert node["label"] == "all (4)" and [i for i, _ in node["members"]] == low + high
    ends = {edge[end] for edge in drawn["edges"] for end in ("from", "to")}
    assert ends <= set(range(len(drawn["nodes"])))


def test_words_that_are_grouped_stand_between_the_prompt_and_the_first_layer():
    circuit = made_up_attribution()
    words = [i for i in circuit.ids() if i.startswith("token:")]
    drawn = scene_of(circuit.group("words", words))
    (node,) = [node for node in drawn["nodes"] if node["kind"] == "supernode"]
    first = min(n["y"] for n in drawn["nodes"] if n["site"] == "mlp_in 0")
    assert first < node["y"] < drawn["bands"][0]["top"]
    assert len(drawn["words"]) == 15 and not any(word["boxed"] for word in drawn["words"])


@pytest.mark.parametrize("circuit", CIRCUITS)
def test_edges_that_would_run_along_a_row_bend_aside(circuit):
    drawn = scene_of(circuit)
    across = "y" if drawn["upwards"] else "x"
    nodes, level = drawn["nodes"], []
    for edge in drawn["edges"]:
        if abs(nodes[edge["from"]][across] - nodes[edge["to"]][across]) < 1:
            level.append(edge["aside"])
    assert set(level) == {0.35}


def test_of_very_many_edges_the_strongest_are_drawn_and_no_node_is_cut_off():
    circuit = made_up_circuit(80, 2500)
    assert len(circuit.edges) > 2000
    drawn = scene_of(circuit)
    shown = {(e["from"], e["to"]) for e in drawn["edges"]}
    assert 1000 <= len(shown) < 1100
    order = np.argsort(-circuit.edges["score"])[:1000]
    assert shown >= set(circuit.edges[["source", "target"]][order].tolist())
    for end, column in enumerate(("source", "target")):
        assert {pair[end] for pair in shown} == set(circuit.edges[column].tolist())
    assert f"edges, of which the {len(shown)} strongest are drawn" in drawn["header"]["size"]

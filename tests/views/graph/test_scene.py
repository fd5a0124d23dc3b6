import json
import re
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.sites import Site
from circuit_toolkit.views.colours import NAMED, NEGATIVE, POSITIVE, site_colours
from circuit_toolkit.views.graph.header import shorten
from circuit_toolkit.views.graph.scene import scene_of
from circuit_toolkit.views.graph.svg import graph_svg
from circuit_toolkit.views.rendering import script
from tests.circuit.made_up import made_up_circuit

# How eyes without one kind of cone see linear RGB (Machado et al., 2009, severity 1).
EYES = {
    "all cones": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
OKLAB = [  # linear RGB -> cone responses -> lightness and two hues (Ottosson, 2020)
    [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]],
    [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]],
]


def seen(colour, eye):
    """A hexadecimal colour in a space where distance is what the eye tells apart."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones, mix = map(np.array, OKLAB)
    return mix @ np.cbrt(cones @ np.clip(np.array(EYES[eye]) @ linear, 0, 1))


@pytest.mark.parametrize("eye", EYES)
def test_colours_differ_to_all_eyes(eye):
    assert np.linalg.norm(seen(POSITIVE, eye) - seen(NEGATIVE, eye)) > 0.15
    for count in (2, 5, 7, 13):
        lightness = [seen(colour, eye)[0] for colour in site_colours(count)]
        assert min(b - a for a, b in pairwise(lightness)) > 0.2 / count  # lighter with depth
        assert max(lightness) < 0.8  # none is lost on white


def test_the_scene_says_what_the_circuit_holds():
    circuit = made_up_circuit()
    drawn = json.loads(json.dumps(scene_of(circuit), allow_nan=False))
    assert [node["id"] for node in drawn["nodes"]] == circuit.ids()
    assert [node["name"] for node in drawn["nodes"]] == circuit.nodes["label"].tolist()
    assert all(node["label"] for node in drawn["nodes"])
    size = np.array([node["size"] for node in drawn["nodes"]])
    order = np.argsort(circuit.nodes["score"])
    assert (np.diff(size[order]) >= 0).all() and size[order[-1]] > 2 * size[order[0]]
    score = [edge["score"] for edge in drawn["edges"]]
    assert score == sorted(score)  # strong edges are drawn last, on top
    assert np.corrcoef([edge["width"] for edge in drawn["edges"]], score)[0, 1] > 0.99
    drawn_edges = {(edge["from"], edge["to"], edge["weight"]) for edge in drawn["edges"]}
    rows = circuit.edges[["source", "target", "weight"]].tolist()
    assert drawn_edges == {(s, t, round(w, 4)) for s, t, w in rows}
    colours = dict.fromkeys((node["site"], node["color"]) for node in drawn["nodes"])
    assert len(colours) == 8 == len(drawn["bands"])  # one for each site, and the target's


def test_nodes_without_scores_show_their_activations():
    circuit = made_up_circuit()
    nodes = circuit.nodes.copy()
    nodes["score"] = 0
    sizes = [node["size"] for node in scene_of(Circuit(nodes, circuit.edges))["nodes"]]
    assert (np.diff(np.array(sizes)[np.argsort(np.abs(nodes["activation"]))]) >= 0).all()


def test_features_without_a_label_show_their_number():
    circuit = made_up_circuit(3, 3)
    nodes = circuit.nodes.copy()
    nodes["label"] = ""
    drawn = scene_of(Circuit(nodes, circuit.edges))["nodes"]
    assert drawn[0]["label"] == f"#{nodes['index'][0]}" and drawn[-1]["label"] == "target"


def test_a_position_is_said_where_there_are_several_and_the_label_does_not():
    circuit = made_up_circuit(4, 4)
    nodes = circuit.nodes.copy()
    nodes["position"][:4], nodes["label"][:4] = ["S2", "S2", "last", "last"], ["a", "S2", "b", ""]
    drawn = scene_of(Circuit(nodes, circuit.edges))["nodes"]
    number = f"#{nodes['index'][3]} @last"
    assert [node["label"] for node in drawn[:4]] == ["a @S2", "S2", "b @last", number]


@pytest.mark.parametrize("name", ["logit_difference", "a"])
def test_a_target_that_takes_two_lines_breaks_between_words(name):
    for n, broken in ((11, True), (1, False)):  # columns are narrow, and wide
        circuit = made_up_circuit(n, n, [Site("resid_post", layer) for layer in range(n)])
        nodes = circuit.nodes.copy()
        nodes["label"][-1] = name
        drawn = scene_of(Circuit(nodes, circuit.edges))["nodes"][-1]
        assert drawn["label"] == (name.replace("_", " ") if broken else name)
        assert drawn["name"] == name


@pytest.mark.parametrize("letters", [1, 2, 5, 12, 30])
@pytest.mark.parametrize("text", ["", "Mary", "Mary, John, Tom", "a b\nc", "x" * 40, "one " * 9])
def test_shortened_text_fits(text, letters):
    short = shorten(text, letters)
    assert len(short) <= max(letters, 2)
    plain = " ".join(text.split())
    assert short == plain if len(plain) <= letters else plain.startswith(short[:-1])


def test_colours_are_named_in_one_place_alone():
    package = files("circuit_toolkit")
    drawing = [f for room in ("views", "panels") for f in Path(str(package / room)).rglob("*.*")]
    drawing = [f for f in drawing if f.suffix in {".py", ".js", ".css", ".html", ".svg"}]
    assert len(drawing) > 25
    named = [
        f.name
        for f in drawing
        if re.search(r"#[0-9a-fA-F]{6}\b|#[0-9a-fA-F]{3}\b|\brgba?\(\d", f.read_text("utf-8"))
    ]
    assert named == ["colours.py"]
    used = re.findall(r"COLOURS\.(\w+)", script("views/static/graph.js"))
    used += [
        name.upper().replace("-", "_")
        for f in drawing
        if f.suffix == ".css"
        for name in re.findall(r"var\(--ct-([\w-]+)\)", f.read_text("utf-8"))
    ]
    assert set(used) <= set(NAMED) and len(used) > 50


def test_the_header_says_when_there_is_no_evidence():
    with_, without = (scene_of(made_up_circuit(evidence=on))["header"] for on in (True, False))
    assert with_["tone"] == "good" and len(with_["evidence"]) == 3
    assert without["tone"] == "quiet" and without["evidence"] == ["unvalidated: no evidence yet"]
    assert ["sites", "7"] in with_["settings"]


@pytest.mark.parametrize(
    ("given", "told"), [("/somewhere/deep/own", "own"), ("openai/gpt2", "openai/gpt2")]
)
def test_a_model_in_a_folder_is_told_by_the_name_of_the_folder(given, told):
    circuit = made_up_circuit()
    circuit = Circuit(circuit.nodes, circuit.edges, {**circuit.settings, "model": given})
    assert ["model", told] in scene_of(circuit)["header"]["settings"]


def test_refuted_edges_alone_are_dashed_live_and_still():
    circuit = made_up_circuit(6, 6)
    edges = circuit.edges.copy()
    edges["status"][:3] = ["confirmed", "refuted", "untested"]
    tested = Circuit(circuit.nodes, edges)
    drawn = scene_of(tested)["edges"]
    assert [edge["status"] for edge in drawn if "dashes" in edge] == ["refuted"]
    assert graph_svg(tested).count("stroke-dasharray") == 1
    assert "stroke-dasharray" not in graph_svg(circuit)

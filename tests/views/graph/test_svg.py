import struct
import zlib
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.errors import InputError
from circuit_toolkit.sites import Site
from circuit_toolkit.views.colours import channels
from circuit_toolkit.views.graph.scene import scene_of
from circuit_toolkit.views.graph.svg import graph_svg
from tests.circuit.made_up import PROMPT, made_up_attribution, made_up_circuit

SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_holds_every_node_and_edge():
    sites = [Site(kind, layer) for layer in range(3) for kind in ("attn_out", "mlp_out")]
    circuit = made_up_circuit(sites=[*sites, Site("resid_post", 2)])
    root = ElementTree.fromstring(graph_svg(circuit))
    drawn = Counter(path.get("class") for path in root.iter(f"{SVG}path"))
    lowering = int((circuit.edges["weight"] < 0).sum())
    assert drawn == {"edge": len(circuit.edges), "tick": lowering} and lowering
    tips = [title.text or "" for title in root.iter(f"{SVG}title")]
    assert [tip.splitlines()[1] for tip in tips] == circuit.ids()[:-1]
    assert "faithfulness 0.81" in "".join(root.itertext())


@pytest.mark.parametrize("task", ["a name " * 12, "name" * 60], ids=["words", "one long word"])
@pytest.mark.parametrize("circuit", [made_up_circuit(4, 4), made_up_attribution()], ids=["", "own"])
def test_evidence_is_no_wider_than_the_picture(circuit, task):
    found = {"faithfulness": 0.9, "completeness": 0.1, "random_faithfulness": [0.2] * 10}
    on = {"task": task, "n": 128, "split": "held-out", "seed": 1}
    where = {"errors": "kept", "ablated_positions": "first, second, last", "evaluated_on": on}
    root = ElementTree.fromstring(graph_svg(circuit.with_evidence({"ablation": found | where})))
    lines = [text for text in root.iter(f"{SVG}text") if text.get("x") == "12"][1:]
    assert len(lines) >= 3 and "random sets" in "".join(line.text for line in lines)
    widest = max(len(line.text) for line in lines) * 5.8  # px: Arial, 12 px high
    assert widest < float(root.get("width")) - 12
    heights = [float(line.get("y")) for line in lines]
    assert heights == sorted(heights) and len(set(heights)) == len(heights)


def test_text_of_others_stays_text():
    circuit = made_up_circuit(4, 4)
    nodes = circuit.nodes.copy()
    nodes["label"] = '<script>a</script> & "\x0b'
    root = ElementTree.fromstring(graph_svg(Circuit(nodes, circuit.edges)))
    assert not list(root.iter(f"{SVG}script"))
    assert "unvalidated: no evidence yet" in "".join(root.itertext())


def test_the_still_picture_of_a_prompt_holds_its_words_and_every_edge():
    circuit = made_up_attribution()
    root = ElementTree.fromstring(str(circuit.to_svg()))
    drawn = Counter(path.get("class") for path in root.iter(f"{SVG}path"))
    lowering = int((circuit.edges["weight"] < 0).sum())
    assert drawn == {"edge": len(circuit.edges), "tick": lowering} and lowering
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert [text for text in texts if text in PROMPT] == ["<s>", "store", "John", "drink"] + [
        word for i, word in enumerate(PROMPT) if i not in (0, 8, 10, 13)
    ]
    assert "L0" in texts and "Mary 62%" in texts
    tips = [title.text or "" for title in root.iter(f"{SVG}title")]
    assert sum("influence" in tip for tip in tips) == 47


def test_still_pictures_are_written_whole(tmp_path):
    circuit = made_up_attribution()
    path = circuit.to_svg(tmp_path / "a.svg")
    assert path == tmp_path / "a.svg" and path.read_text("utf-8") == circuit.to_svg()
    with pytest.raises(InputError, match="scale must be in"):
        circuit.to_png(tmp_path / "a.png", scale=0)
    assert [each.name for each in tmp_path.iterdir()] == ["a.svg"]


def pixels(path):
    """Width, height and rows of red, green, blue (and alpha) of a PNG, by its specification."""
    data, chunks = path.read_bytes(), {}
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at = 8
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        chunks[name] = chunks.get(name, b"") + data[at + 8 : at + 8 + size]
        at += 12 + size
    width, height, depth, kind = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert depth == 8
    step = {2: 3, 6: 4}[kind]
    raw = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    rows = np.zeros((height, width * step), int)
    for y, (how, *line) in enumerate(raw.tolist()):
        above = rows[y - 1] if y else np.zeros(width * step, int)
        for x, value in enumerate(line):
            left, up = rows[y, x - step] if x >= step else 0, above[x]
            corner = above[x - step] if x >= step else 0
            guess = left + up - corner
            near = min((abs(guess - a), i) for i, a in enumerate((left, up, corner)))[1]
            add = [0, left, up, (left + up) // 2, (left, up, corner)[near]][how]
            rows[y, x] = (value + add) % 256
    return rows.reshape(height, width, step)[..., :3]


@pytest.mark.parametrize("scale", [1, 0.5])
def test_pixels_show_each_node_in_its_colour(tmp_path, scale):
    pytest.importorskip("resvg_py", reason="resvg-py draws pixels: install requirements.lock")
    circuit = made_up_attribution(8, 12, layers=3)
    image = pixels(circuit.to_png(tmp_path / "a.png", scale=scale))
    drawn = scene_of(circuit)
    assert image.shape[1] == pytest.approx(drawn["width"] * scale, abs=1)
    top = image.shape[0] / scale - drawn["height"]
    for node in drawn["nodes"]:
        if node["kind"] == "feature":
            y, x = round((node["y"] + top) * scale), round(node["x"] * scale)
            assert tuple(image[y, x]) == channels(node["color"])
    assert (image[0] == 255).all(), "on white, not on nothing"


def test_a_machine_without_fonts_is_told_so(tmp_path, monkeypatch):
    from circuit_toolkit.views.graph import svg

    monkeypatch.setattr(svg, "_pixels", lambda text, scale=1: b"the same")
    with pytest.raises(InputError, match="none of the fonts"):
        made_up_circuit().to_png(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())

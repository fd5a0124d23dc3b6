import re
import struct
from xml.etree import ElementTree

import pytest

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.views.colours import NEGATIVE, TEAL, channels
from circuit_toolkit.views.graph.page import graph_page, pyvis_network
from tests.circuit.made_up import PROMPT, made_up_attribution, made_up_circuit

EVIL = '</script><script>window.evil=1</script><img src=x onerror="window.evil=1">'


@pytest.fixture
def opened(page, tmp_path):
    """Open a circuit's page from a file, and note what it asks for."""
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    page.on("console", lambda message: errors.append(message.text))

    def open_(circuit):
        path = circuit.to_html(tmp_path / "circuit.html")
        page.goto(path.as_uri())
        page.wait_for_function("window.circuitView")
        page.wait_for_timeout(200)  # a frame of the canvas
        assert set(asked) == {path.as_uri()}
        return page

    yield open_
    assert not errors


def test_the_page_names_no_address_to_load_from():
    text = graph_page(made_up_circuit())
    loading = r"""(?ix) (?: \b(?:src|href|action|poster|data|srcset) \s*=\s* ["']?
        | url\( \s* ["']? | @import \s* (?:url\()? ["']? | \b(?:fetch|import|Worker) \( \s* ["'`]
        | sourceMappingURL= ) \s* (?: https?: )? // """
    assert not re.search(loading, text)
    assert not re.search(r"(?i)<(?:link|iframe|img|base|object|embed)\b", text)
    assert not re.search(r"(?i)<script[^>]*\bsrc", text)
    assert "sourceMappingURL" not in text and "cdn" not in text.lower()
    assert len(text) < 700_000


@pytest.mark.browser
@pytest.mark.parametrize("n, e", [(40, 110), (0, 0)])
def test_the_page_draws_every_node_without_a_network(opened, n, e):
    circuit = made_up_circuit(40, 110).prune(max_features=n)
    page = opened(circuit)
    assert page.evaluate("circuitView.network.body.nodeIndices") == circuit.ids()
    assert page.evaluate("circuitView.network.body.edgeIndices.length") == len(circuit.edges)
    # each node's own colour is on the canvas where the layout puts the node
    missing = page.evaluate(
        """() => {
            const canvas = document.querySelector("canvas"), ctx = canvas.getContext("2d");
            const ratio = canvas.width / canvas.clientWidth, network = circuitView.network;
            const all = ctx.getImageData(0, 0, canvas.width, canvas.height).data;
            return Object.values(network.body.nodes).filter((node) => {
                const at = network.canvasToDOM({ x: node.x, y: node.y });
                const reach = node.options.shape === "box" ? 16 : 0;  // beside its text
                const [x, y] = [at.x * ratio, (at.y - reach) * ratio].map(Math.round);
                const want = [1, 3, 5].map(
                    (i) => parseInt(node.options.color.background.slice(i, i + 2), 16));
                for (let dy = -12; dy <= 12; dy++) {
                    const i = 4 * ((y + dy) * canvas.width + x);
                    if (want.every((part, j) => Math.abs(part - all[i + j]) < 4)) return false;
                }
                return true;
            }).map((node) => node.id);
        }"""
    )
    assert missing == []


@pytest.mark.browser
def test_text_of_others_stays_text(opened):
    circuit = made_up_circuit(6, 6)
    nodes = circuit.nodes.copy()
    nodes["label"] = EVIL
    circuit = Circuit(nodes, circuit.edges, {"task": EVIL}, {"fit": {}, EVIL: 1})
    assert "<script>window" not in graph_page(circuit)
    page = opened(circuit)
    assert page.evaluate("window.evil") is None
    assert page.locator("img").count() == 0
    at = page.evaluate(
        "(id) => { const n = circuitView.network, b = document.querySelector('canvas')"
        ".getBoundingClientRect(), p = n.canvasToDOM(n.getPosition(id));"
        "return [b.x + p.x, b.y + p.y]; }",
        circuit.ids()[-1],
    )
    page.mouse.move(*at)
    page.wait_for_timeout(80)
    assert page.locator(".ct-card .ct-name").inner_text() == EVIL
    assert page.evaluate("window.evil") is None


@pytest.mark.browser
def test_the_page_states_evidence_and_settings(opened):
    page = opened(made_up_circuit(6, 6))
    head = page.locator(".ct-graph header").inner_text()
    for words in (
        "logit difference",
        "R² 0.83",
        "faithfulness 0.81",
        "circuit_lasso",
        "ioi",
    ):
        assert words in head


def test_pyvis_holds_the_whole_circuit():
    circuit = made_up_circuit()
    network = pyvis_network(circuit)
    assert network.get_nodes() == circuit.ids()
    assert len(network.get_edges()) == len(circuit.edges)


def walk(page, *keys):
    """Press keys on the graph; return which node is then chosen."""
    page.locator(".ct-canvas").focus()
    for key in keys:
        page.keyboard.press(key)
    return page.evaluate("circuitView.selected().at(-1) ?? ''")


@pytest.mark.browser
def test_keys_walk_the_graph_and_the_page_tells_what_is_known(opened):
    circuit = made_up_attribution()
    page, ids, edges = opened(circuit), circuit.ids(), circuit.edges
    details = page.locator("#details")
    assert details.is_hidden()
    assert walk(page, "ArrowUp") == ids[-1], "the target first"
    into = edges[edges["target"] == len(ids) - 1]
    strongest = int(into["source"][into["score"].argmax()])
    assert walk(page, "ArrowDown") == ids[strongest]
    told = details.inner_text()
    node = circuit.nodes[strongest]
    assert ids[strongest] in told and f"activation {float(node['activation']):.3g}" in told
    assert f"influence {round(float(node['score']), 4):.3g}" in told
    for word in PROMPT:
        assert word in page.locator(".ct-prompt").inner_text()
    active = circuit.settings["activations"][ids[strongest].rpartition("@")[0]]
    shaded = page.locator(".ct-prompt span[title]").all_inner_texts()
    assert shaded == [PROMPT[int(at)] for at in sorted(active, key=int)]
    own = page.locator(".ct-prompt .ct-here")
    assert own.inner_text() == PROMPT[int(node["position"])]
    out = edges[edges["source"] == strongest]
    assert f"drives {len(out)}" in told
    page.locator("#details button.ct-line").last.press("Enter")  # reached by the tab key too
    assert page.evaluate("circuitView.selected()") not in ([], [ids[strongest]])
    assert walk(page, "Escape") == "" and details.is_hidden()


@pytest.mark.browser
def test_inputs_and_outputs_are_told_strongest_first_with_their_weights(opened):
    circuit = made_up_attribution()
    page, ids = opened(circuit), circuit.ids()
    walk(page, "ArrowUp")
    edges = circuit.edge_table()
    wanted = edges[edges["target"] == ids[-1]]
    rows = page.locator("#details button.ct-line")
    assert [row.get_attribute("title") for row in rows.all()] == wanted["source"].tolist()
    first = rows.first.locator("b").inner_text()
    assert float(first.replace("−", "-")) == pytest.approx(wanted["weight"].iloc[0], rel=0.05)


@pytest.mark.browser
def test_the_prompt_is_shaded_by_the_size_and_the_sign_of_the_activation(opened):
    circuit = made_up_attribution(1, 1, seed=4)
    (values,) = circuit.settings["activations"].values()
    values |= {"2": 4.0, "3": 2.0, "4": -4.0}
    page = opened(circuit)
    walk(page, "ArrowUp", "ArrowDown")
    shades = page.locator(".ct-prompt span").evaluate_all(
        "all => all.map((e) => e.style.background)"
    )
    parts = [[float(x) for x in re.findall(r"[\d.]+", shade)] for shade in shades]
    assert tuple(parts[2][:3]) == tuple(parts[3][:3]) == channels(TEAL)
    assert tuple(parts[4][:3]) == channels(NEGATIVE)
    assert 0.76 > parts[2][3] > 0.74 > parts[3][3] > 0.3
    assert not parts[8], "where it is not active"


@pytest.mark.browser
@pytest.mark.parametrize("name", ["names", "constructor", "toString", "__proto__"])
def test_a_click_on_a_supernode_lists_its_members(opened, name):
    circuit = made_up_attribution()
    members = [i for i in circuit.ids() if "hook_normalized" in i][:3]
    page = opened(circuit.group(name, members))
    page.set_viewport_size({"width": 1280, "height": 1400})  # all of the canvas
    page.wait_for_timeout(200)
    assert page.evaluate("circuitView.network.body.nodeIndices").count(name) == 1
    at = page.evaluate(
        "(name) => { const n = circuitView.network, b = document.querySelector('canvas')"
        ".getBoundingClientRect(), p = n.canvasToDOM(n.getPosition(name));"
        "return [b.x + p.x, b.y + p.y]; }",
        name,
    )
    page.mouse.click(*at)
    assert page.locator("#details .ct-member code").all_inner_texts() == members
    assert "supernode of 3" in page.locator("#details").inner_text()


@pytest.mark.browser
def test_text_of_others_stays_text_where_details_are_told(opened):
    circuit = made_up_attribution(8, 16, tokens=["<s>", EVIL, "to"], layers=2, targets=(EVIL,))
    nodes = circuit.nodes.copy()
    nodes["label"] = EVIL
    circuit = Circuit(nodes, circuit.edges, circuit.settings, circuit.evidence)
    features = [i for i in circuit.ids() if "hook_normalized" in i]
    for drawn in (circuit, circuit.group(EVIL, features[:3])):
        page = opened(drawn)
        for _ in nodes:
            walk(page, "ArrowRight")
        assert EVIL.strip() in page.locator("#details").inner_text()
        assert page.locator("img").count() == 0 and page.evaluate("window.evil") is None


NAME = "When Mary and John went to the store John gave a drink to Ma."  # of the title
SVG = "{http://www.w3.org/2000/svg}"


def saved(page, kind):
    with page.expect_download() as download:
        page.get_by_role("button", name=f"save as {kind}").click()
    assert download.value.suggested_filename == NAME + kind.lower()
    return download.value.path()


@pytest.mark.browser
def test_the_page_saves_what_is_drawn(page, tmp_path):
    circuit = made_up_attribution()
    page.goto(circuit.to_html(tmp_path / "circuit.html").as_uri())
    page.wait_for_function("window.circuitView")
    still = ElementTree.fromstring(str(circuit.to_svg()))
    root = ElementTree.fromstring(saved(page, "SVG").read_text("utf-8"))
    assert [part.tag for part in root.iter()] == [part.tag for part in still.iter()]
    drawn, wanted = ([line.get("d") for line in each.iter(f"{SVG}path")] for each in (root, still))
    assert drawn == wanted
    width, height = (round(2 * float(x)) for x in still.get("viewBox").split()[2:])
    data = saved(page, "PNG").read_bytes()
    assert struct.unpack(">II", data[16:24]) == (width, height) and len(data) > 50_000
    page.evaluate("id => circuitView.network.moveNode(id, 500, 40)", circuit.ids()[-1])
    root = ElementTree.fromstring(saved(page, "SVG").read_text("utf-8"))
    at = [group.get("transform") for group in root.iter(f"{SVG}g") if group.get("class") == "node"]
    assert [place is None for place in at] == [True] * (len(at) - 1) + [False]
    ends = [line.get("d").split()[-2:] for line in root.iter(f"{SVG}path")]
    into = (circuit.edges["target"] == len(circuit.nodes) - 1).sum()
    assert sum(end == ["500", "40"] for end in ends) == into


@pytest.mark.browser
def test_a_long_prompt_opens_at_its_end_in_letters_that_can_be_read(opened):
    tokens = [f"word{i}" for i in range(300)]
    page = opened(made_up_attribution(60, 120, tokens=tokens, seed=5))
    seen = """() => {
        const { network, drawn } = circuitView, { nodes, width } = drawn();
        const end = network.canvasToDOM({ x: nodes.at(-1).x, y: 0 }).x;
        return [network.getScale(), network.canvasToDOM({ x: 0, y: 0 }).x, end, width];
    }"""
    scale, left, target, width = page.evaluate(seen)
    assert scale >= 0.65 and left < 0 and 900 < target < 1250, "px; the window has 1280"
    page.get_by_title("fit").click()
    page.wait_for_timeout(150)
    scale, left, target, _ = page.evaluate(seen)
    assert scale < 0.65 and left > 0 and target < 1250 and width * scale < 1250

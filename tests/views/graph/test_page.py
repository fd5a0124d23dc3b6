import re

import pytest

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.views.graph.page import graph_page, pyvis_network
from tests.circuit.made_up import made_up_circuit

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
        assert asked == [path.as_uri()]
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

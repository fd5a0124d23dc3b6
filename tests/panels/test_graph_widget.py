import json
from dataclasses import replace
from xml.etree import ElementTree

import nbformat
import pytest
from nbconvert import HTMLExporter

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.errors import InputError
from circuit_toolkit.panels.graph_widget import GraphWidget
from circuit_toolkit.views.colours import NEGATIVE, POSITIVE
from circuit_toolkit.views.graph.svg import graph_svg
from tests.circuit.made_up import SITES, made_up_attribution, made_up_circuit
from tests.panels.screen import Screen


@pytest.fixture
def opened(page):
    """Run a widget's own module in a page, as JupyterLab would."""
    screens = []

    def open_(widget):
        screens.append(Screen(page, widget, 1024))
        return page

    yield open_
    assert not any(screen.errors for screen in screens)


def spot(page, name):
    """Where a node stands in the browser's window, from its place in the scene."""
    # the scene is centred in the canvas and scaled to its width: see `fit` in graph.js
    return page.evaluate(
        """([id]) => {
            const scene = state._scene, canvas = document.querySelector(".ct-canvas");
            const box = canvas.getBoundingClientRect(), node = scene.nodes.find((n) => n.id === id);
            const scale = Math.min((box.width - 16) / scene.width, 1.15);
            return { x: box.x + box.width / 2 + (node.x - scene.width / 2) * scale,
                     y: box.y + box.height / 2 + (node.y - scene.height / 2) * scale };
        }""",
        [name],
    )


@pytest.mark.browser
def test_a_click_selects_and_the_card_tells(opened):
    plain = made_up_circuit()
    circuit = replace(plain, settings={**plain.settings, "scope": "dataset"})
    page = opened(GraphWidget(circuit))
    for row in (3, 20, len(circuit.nodes) - 1):
        at = spot(page, circuit.ids()[row])
        page.mouse.move(at["x"], at["y"])
        page.wait_for_timeout(80)
        assert page.evaluate("state.hovered") == circuit.ids()[row]
        told = page.locator(".ct-card").inner_text()
        assert circuit.nodes["label"][row] in told
        assert ("mean activation" in told) == (row < len(circuit.nodes) - 1)
        page.mouse.click(at["x"], at["y"])
        assert page.evaluate("state.selected") == circuit.ids()[row]
    empty = page.locator(".ct-canvas").bounding_box()
    page.mouse.click(empty["x"] + 4, empty["y"] + empty["height"] - 4)
    assert page.evaluate("state.selected") == ""
    assert page.evaluate("state.hovered") == ""
    assert page.locator(".ct-card").is_hidden()


@pytest.mark.browser
def test_a_new_circuit_is_drawn_on_the_same_canvas(opened):
    page = opened(GraphWidget(made_up_circuit()))
    page.evaluate("document.querySelector('canvas').dataset.mark = 'first'")
    smaller = GraphWidget(made_up_circuit(12, 20, evidence=False))._scene
    page.evaluate("scene => model.set('_scene', scene)", smaller)
    assert page.locator("canvas").get_attribute("data-mark") == "first"
    assert "12 features" in page.locator(".ct-size").inner_text()
    assert page.locator(".ct-quiet").inner_text() == "unvalidated: no evidence yet"
    page.evaluate("model.set('_scene', {})")
    assert page.locator("#here").inner_text() == "No circuit yet."
    page.evaluate("scene => model.set('_scene', scene)", smaller)
    assert page.locator("canvas").count() == 1


@pytest.mark.browser
def test_selecting_from_python_shows_and_labels_stay_text(opened):
    circuit = made_up_circuit(5, 5, label="<img src=x onerror=alert(1)>")
    page = opened(GraphWidget(circuit, selected=circuit.ids()[-1]))
    before = page.locator("canvas").screenshot()
    page.evaluate("id => model.set('selected', id)", circuit.ids()[0])
    page.wait_for_timeout(100)
    assert page.locator("canvas").screenshot() != before
    at = spot(page, circuit.ids()[0])
    page.mouse.move(at["x"], at["y"])
    page.wait_for_timeout(80)
    assert "<img" in page.locator(".ct-card .ct-name").inner_text()
    assert page.locator("img").count() == 0


def one_edge(weight):
    """A feature that drives the target, up or down."""
    circuit = made_up_circuit(1, 1, sites=SITES[:1])
    edges = circuit.edges.copy()
    edges["weight"] = weight
    return Circuit(circuit.nodes, edges, circuit.settings, circuit.evidence)


def pixels_drawn(page, *colours):
    """How many pixels of the canvas show each colour, mixed with white as it may be."""
    return page.evaluate(
        """(wanted) => {
            const canvas = document.querySelector("canvas"), ctx = canvas.getContext("2d");
            const { data } = ctx.getImageData(0, 0, canvas.width, canvas.height);
            const hue = (r, g, b) => {
                const high = Math.max(r, g, b), span = high - Math.min(r, g, b);
                if (span < 60) return NaN;
                const turn = high === r ? (g - b) / span
                    : high === g ? 2 + (b - r) / span : 4 + (r - g) / span;
                return (60 * turn + 360) % 360;
            };
            const parts = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
            const want = wanted.map((colour) => hue(...parts(colour)));
            const found = wanted.map(() => 0);
            for (let i = 0; i < data.length; i += 4) {
                const seen = hue(data[i], data[i + 1], data[i + 2]);
                want.forEach((each, j) => { found[j] += Math.abs(seen - each) < 8; });
            }
            return found;
        }""",
        colours,
    )


@pytest.mark.browser
@pytest.mark.parametrize("weight", [0.5, -0.5])
@pytest.mark.parametrize("how", ["live", "page"])
def test_what_lowers_is_drawn_in_its_own_colour(opened, page, tmp_path, how, weight):
    circuit = one_edge(weight)
    if how == "live":
        opened(GraphWidget(circuit))
    else:
        page.goto(circuit.to_html(tmp_path / "circuit.html").as_uri())
        page.wait_for_function("window.circuitView")
        page.wait_for_timeout(200)
    mine, other = (POSITIVE, NEGATIVE) if weight > 0 else (NEGATIVE, POSITIVE)
    drawn, wrong = pixels_drawn(page, mine, other)
    assert drawn > 100 and not wrong
    root = ElementTree.fromstring(graph_svg(circuit))
    drawn = [path.get("stroke") for path in root.iter("{http://www.w3.org/2000/svg}path")]
    assert drawn == [mine] * (1 + (weight < 0)), "what lowers has a tick across it"


@pytest.mark.browser
def test_a_new_circuit_forgets_what_was_hovered(opened):
    circuit = made_up_circuit(12, 20)
    page = opened(GraphWidget(circuit))
    fresh = page.locator("canvas").screenshot()
    at = spot(page, circuit.ids()[3])
    page.mouse.move(at["x"], at["y"])
    page.wait_for_timeout(80)
    assert page.locator(".ct-card").is_visible()
    assert page.locator("canvas").screenshot() != fresh, "all else fades"
    page.evaluate("model.set('_scene', structuredClone(state._scene))")
    page.wait_for_timeout(80)
    assert page.locator(".ct-card").is_hidden()
    assert page.locator("canvas").screenshot() == fresh


def test_assigning_a_circuit_forgets_what_was_hovered():
    widget = GraphWidget(made_up_circuit())
    widget.hovered = widget.circuit.ids()[3]  # what the browser sets
    widget.circuit = made_up_circuit(12, 20)
    assert widget.hovered == ""


@pytest.mark.browser
def test_nothing_is_left_behind_when_the_view_closes(opened):
    page = opened(GraphWidget(made_up_circuit(5, 5)))
    page.evaluate("cleanup()")
    assert page.evaluate("Object.values(listeners).flat().length") == 0


def test_assigning_a_circuit_redraws_and_forgets_a_selection_that_is_gone():
    circuit = made_up_circuit()
    widget = GraphWidget(circuit, selected=made_up_circuit().ids()[7])
    kept = circuit.prune(max_features=5)
    assert circuit.ids()[7] not in kept.ids()
    script = widget._esm
    widget.circuit = kept
    assert [node["id"] for node in widget._scene["nodes"]] == kept.ids()
    assert widget.selected == ""
    assert widget._esm is script
    widget.selected = end = circuit.ids()[-1]
    widget.circuit = circuit
    assert widget.selected == end


def test_an_unknown_node_cannot_be_selected():
    widget = GraphWidget()
    with pytest.raises(InputError, match="not a node"):
        widget.selected = "blocks.0.hook_resid_pre/1"


def test_what_is_sent_to_redraw_is_small():
    widget = GraphWidget(made_up_circuit(60, 200))
    assert len(json.dumps(widget._scene)) < 48_000  # bytes


def test_show_gives_the_widget_and_its_repr_is_short():
    widget = made_up_circuit().show()
    assert isinstance(widget, GraphWidget)
    assert len(repr(widget)) < 400


def test_an_exported_notebook_shows_a_still_picture():
    circuit = made_up_circuit()
    data = circuit.show()._still_output()
    assert graph_svg(circuit) in data["text/html"] and len(json.dumps(data)) < 60_000
    outputs = [nbformat.v4.new_output("display_data", data=data)]
    cell = nbformat.v4.new_code_cell("circuit.show()", outputs=outputs)
    notebook = nbformat.v4.new_notebook(cells=[cell])
    page = HTMLExporter().from_notebook_node(notebook)[0]
    assert page.count('class="edge"') == len(circuit.edges), "an export shows every graph"
    live, _ = circuit.show()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in live and len(json.dumps(live)) < 2000


@pytest.mark.browser
def test_a_supernode_can_be_clicked_and_its_card_lists_the_members(opened):
    circuit = made_up_circuit()
    members = circuit.ids()[3:6]
    widget = GraphWidget(circuit.group("names", members))
    page = opened(widget)
    at = spot(page, "names")
    page.mouse.move(at["x"], at["y"])
    page.wait_for_timeout(80)
    told = page.locator(".ct-card").inner_text()
    assert "supernode of 3" in told
    assert all(label in told for label in circuit.nodes["label"][3:6])
    page.mouse.click(at["x"], at["y"])
    widget.selected = page.evaluate("state.selected")  # as the browser would set it
    assert widget.selected == "names"
    widget.circuit = circuit
    assert widget.selected == ""


@pytest.mark.browser
def test_the_live_graph_of_a_prompt_tells_where_a_feature_is_active(opened):
    circuit = made_up_attribution()
    page = opened(GraphWidget(circuit))
    feature = next(i for i in circuit.ids() if "hook_normalized" in i and not i.endswith("@1"))
    page.set_viewport_size({"width": 1200, "height": 1200})  # all of the canvas
    page.wait_for_timeout(200)  # which is drawn anew
    at = spot(page, feature)
    page.mouse.move(at["x"], at["y"])
    page.wait_for_timeout(80)
    assert page.evaluate("state.hovered") == feature
    told = page.locator(".ct-card").inner_text()
    assert "active at 2 tokens: " in told and "When 0.25" in told

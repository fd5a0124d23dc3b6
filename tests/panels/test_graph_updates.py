"""The live graph hands vis-network only what changed: what is drawn is what was sent last."""

import copy

import pytest

import circuit_toolkit as ct
from tests.panels.screen import Screen

pytestmark = pytest.mark.browser
VIEW = 'document.querySelector(".ct-stage").circuitView'
# Of each node and edge that vis-network has: what it is drawn with.
DRAWN = f"""() => {{
    const {{ nodes, edges }} = {VIEW}.network.body;
    const of = (known) => Object.values(known);
    return {{
        nodes: Object.fromEntries(of(nodes).filter((n) => !String(n.id).startsWith("edgeId:"))
            .map((n) => [n.id, [n.options.label, n.options.opacity]])),
        edges: Object.fromEntries(of(edges)
            .map((e) => [`${{e.fromId}} > ${{e.toId}}`, e.options.width])),
    }};
}}"""
FADED = 400  # ms, longer than nodes take to come and go


def sent(scene):
    """The same of a scene: labels and whole opacity, widths."""
    names = [node["id"] for node in scene["nodes"]]
    ends = [(names[edge["from"]], names[edge["to"]], edge) for edge in scene["edges"]]
    thin = {"untested": 0.6}  # graph.js draws these thinner
    return (
        {node["id"]: [node["label"], 1] for node in scene["nodes"]},
        {f"{a} > {b}": edge["width"] * thin.get(edge["status"], 1) for a, b, edge in ends},
    )


@pytest.fixture(scope="module")
def scenes(demo, demo_transcoders):
    """A large graph, a part of it, and the large one with other names and widths; one layout."""
    panel = ct.explore(demo, demo_transcoders, "the boys near the cabinet")
    panel.size = 40
    large = copy.deepcopy(panel._scene)
    panel.size = 12
    small = copy.deepcopy(panel._scene)
    assert large["key"] == small["key"] and len(large["nodes"]) > len(small["nodes"])
    other = copy.deepcopy(large)
    for node in other["nodes"]:
        node["label"] = f"new {node['label']}"
    for edge in other["edges"]:
        edge["width"] *= 2
    return panel, {"large": large, "small": small, "other": other}


@pytest.mark.parametrize(
    ("steps", "pause"),
    [
        (("large", "small", "large"), FADED),  # what went comes back
        (("large", "other"), FADED),  # what stays changes
        (("large", "other", "small", "large"), FADED),
        (("small", "large", "other"), 30),  # the next one comes while nodes come
        (("large", "small", "large", "small", "large"), 30),  # ... and while they go
    ],
    ids=lambda given: "-".join(given) if isinstance(given, tuple) else str(given),
)
def test_what_is_drawn_is_what_was_sent_last(page, scenes, steps, pause):
    panel, known = scenes
    screen = Screen(page, panel)
    for name in steps:
        page.evaluate(f"(scene) => {VIEW}.update(scene)", known[name])
        page.wait_for_timeout(pause)
    page.wait_for_timeout(FADED)
    drawn = page.evaluate(DRAWN)
    nodes, edges = sent(known[steps[-1]])
    assert drawn["nodes"] == nodes
    assert drawn["edges"] == pytest.approx(edges)
    assert not screen.errors

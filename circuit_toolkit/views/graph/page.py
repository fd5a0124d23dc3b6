"""A circuit as one HTML page, by pyvis, that loads nothing from anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from circuit_toolkit.arguments import expect
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.views.graph.scene import scene_of
from circuit_toolkit.views.graph.svg import still
from circuit_toolkit.views.rendering import environment

if TYPE_CHECKING:
    from pyvis.network import Network


def graph_page(circuit: Circuit) -> str:
    """Draw a circuit as a stand-alone HTML page.

    Parameters
    ----------
    circuit : Circuit

    Returns
    -------
    str
        About 0.5 MB, most of it the vis-network script: the page works without a network.
    """
    expect(circuit, "circuit", "Circuit")
    return pyvis_network(circuit).generate_html()


def pyvis_network(circuit: Circuit) -> Network:
    """Hand a circuit to pyvis, for those who want to change the picture."""
    from pyvis.network import Network

    scene = scene_of(circuit)
    network: Any = Network(directed=True, cdn_resources="in_line")
    scene["svg"] = still(scene)  # what the page saves
    nodes = scene.pop("nodes")
    ids = [node["id"] for node in nodes]
    for node in nodes:
        network.add_node(node.pop("id"), **node)
    for edge in scene.pop("edges"):  # all run one way: no arrows
        network.add_edge(ids[edge.pop("from")], ids[edge.pop("to")], arrows={}, **edge)
    network.heading = scene  # pyvis has a fixed list of names for its template; this one is free
    network.path, network.templateEnv = "views/templates/circuit.html", environment()
    return network

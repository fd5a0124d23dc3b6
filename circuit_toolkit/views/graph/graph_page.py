"""A circuit as one HTML page, by pyvis, that loads nothing from anywhere."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.views.graph.scene import NEGATIVE, POSITIVE, scene

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
    return pyvis_network(circuit).generate_html()


def pyvis_network(circuit: Circuit) -> Network:
    """Hand a circuit to pyvis, for those who want to change the picture."""
    from jinja2 import DictLoader, Environment
    from pyvis.network import Network

    drawn = scene(circuit)
    network: Any = Network(directed=True, cdn_resources="in_line")
    ids = circuit.ids()
    for node in drawn.pop("nodes"):
        network.add_node(node.pop("id"), **node)
    for edge in drawn.pop("edges"):
        source, target = ids[edge.pop("from")], ids[edge.pop("to")]
        colour = {"color": NEGATIVE if edge["weight"] < 0 else POSITIVE, "opacity": edge["opacity"]}
        network.add_edge(source, target, color=colour, arrows={}, **edge)  # all run to the right
    network.heading = drawn  # pyvis has a fixed list of names for its template; this one is free
    network.path = "page.html"
    network.templateEnv = Environment(loader=DictLoader(_sources()), autoescape=True)
    return network


@cache
def vis_network_script() -> str:
    """Read vis-network from the installed pyvis: a UMD script that defines `vis`."""
    script = files("pyvis").joinpath("templates/lib/vis-9.1.2/vis-network.min.js")
    return script.read_text(encoding="utf-8").partition("//# sourceMappingURL")[0]


@cache
def static(name: str) -> str:
    """Read one of the files beside this module, such as `graph.js`."""
    return files("circuit_toolkit.views").joinpath("static", name).read_text(encoding="utf-8")


def _sources() -> dict[str, Any]:
    own = {name: static(name) for name in ("page.html", "graph.css", "graph.js")}
    return own | {"vis-network": vis_network_script()}

"""A circuit as a still picture: what is left of a widget in an exported notebook."""

from __future__ import annotations

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.views.graph.scene import scene_of
from circuit_toolkit.views.rendering import render


def graph_svg(circuit: Circuit) -> str:
    """Draw a circuit as SVG, without any script."""
    return str(render("views/templates/circuit.svg", **scene_of(circuit)))

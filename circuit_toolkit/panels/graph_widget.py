"""The live graph: a circuit in a notebook cell, and the node that was clicked back in Python."""

from __future__ import annotations

from typing import Any

import traitlets

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.errors import InputError
from circuit_toolkit.panels.live import LiveWidget, module_of
from circuit_toolkit.views.graph.scene import scene_of
from circuit_toolkit.views.graph.svg import graph_svg
from circuit_toolkit.views.rendering import stylesheet


class GraphWidget(LiveWidget):
    """Draw a circuit; read `widget.selected` in the next cell, assign `widget.circuit` to redraw.

    Parameters
    ----------
    circuit : Circuit, optional
        What to draw; None leaves the widget empty until one is assigned.
    **traits
        Initial values of the traits below.

    Attributes
    ----------
    circuit : Circuit or None
        Assigning it redraws in place.
    selected : str
        Id of the node that was clicked, name of the supernode, or the empty string. Assigning it
        selects in the browser.
    hovered : str
        Id of the node under the pointer, or the empty string.

    Raises
    ------
    InputError
        If `selected` is set to what is neither a node nor a supernode of the circuit.
    """

    circuit = traitlets.Instance(Circuit, allow_none=True)
    selected = traitlets.Unicode("").tag(sync=True)
    hovered = traitlets.Unicode("").tag(sync=True)
    _scene = traitlets.Dict().tag(sync=True)

    def __init__(self, circuit: Circuit | None = None, **traits: Any) -> None:
        self._esm = module_of("panels/static/graph_widget.js")  # anywidget makes synced traits
        self._css = str(stylesheet("views/static/graph.css"))
        super().__init__(circuit=circuit, **traits)

    @traitlets.observe("circuit")
    def _draw(self, change: Any) -> None:
        drawn = scene_of(change.new) if change.new else {}
        with self.hold_sync():  # one message
            if self.selected not in _ids(change.new):
                self.selected = ""
            self.hovered = ""
            self._scene = drawn
        self._changed()

    @traitlets.validate("selected")
    def _known(self, proposal: Any) -> str:
        if proposal.value and proposal.value not in _ids(self.circuit):
            raise InputError(
                f"{proposal.value!r} is not a node of this circuit. Use one of circuit.ids(), "
                "such as 'blocks.3.hook_resid_post/17' or 'target'."
            )
        return proposal.value

    def _picture(self) -> str:
        circuit: Any = self.circuit  # traitlets' own type says object
        return graph_svg(circuit) if circuit else ""

    def __repr__(self) -> str:
        """Name the circuit; the traits hold the whole picture, too much to print."""
        return f"GraphWidget({self.circuit!r}, selected={self.selected!r})"


def _ids(circuit: Any) -> list[str]:
    return [*circuit.ids(), *circuit.groups] if circuit else []

"""The screen of the explorer: what it shows of a view, region by region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import traitlets

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.card import FeatureCard
from circuit_toolkit.features.legend import how_to_read
from circuit_toolkit.panels.asked import AskedWidget
from circuit_toolkit.panels.explorer import told
from circuit_toolkit.panels.explorer.dial import Dial, effect, units_of
from circuit_toolkit.panels.explorer.reading import Reading, understood
from circuit_toolkit.panels.explorer.requests import REQUESTS
from circuit_toolkit.panels.explorer.source import Source
from circuit_toolkit.panels.explorer.view import GIVEN, View
from circuit_toolkit.panels.live import module_of
from circuit_toolkit.panels.quiet import Quiet
from circuit_toolkit.sites import Site
from circuit_toolkit.views.card.html import card_html
from circuit_toolkit.views.graph.header import verdict
from circuit_toolkit.views.graph.prompt_columns import named_places, places_in_prompt
from circuit_toolkit.views.graph.scene import scene_of
from circuit_toolkit.views.graph.steady import Steady
from circuit_toolkit.views.graph.svg import graph_svg
from circuit_toolkit.views.rendering import stylesheet

WIDTHS = (760.0, 860.0, 960.0, 1060.0)  # px that the graph may take
LAYOUTS = 12  # that are kept
REGIONS = ("_top", "_controls", "_scene", "_node", "_effect", "_foot")  # of the screen
STYLES = ("views/static/graph.css", "views/static/card.css", "panels/static/explorer.css")


class Screen(Quiet, AskedWidget):
    """Shows a view of a source, and goes back and forth between views."""

    requests = REQUESTS
    circuit: Any = traitlets.Instance(Circuit, allow_none=True)
    selected: Any = traitlets.Tuple()
    _top = traitlets.Dict().tag(sync=True)
    _controls = traitlets.Dict().tag(sync=True)
    _scene = traitlets.Dict().tag(sync=True)
    _node = traitlets.Dict().tag(sync=True)
    _effect = traitlets.Dict().tag(sync=True)
    _foot = traitlets.Dict().tag(sync=True)
    _picked = traitlets.List().tag(sync=True)

    view: View
    card: FeatureCard | None = None

    def __init__(self, source: Source) -> None:
        self._esm = module_of("panels/static/parts.js", "panels/static/explorer.js")
        self._css = "\n".join(str(stylesheet(name)) for name in STYLES)
        self._source, self.dial = source, Dial()
        self._steady: dict[Any, Steady] = {}
        self._done: list[View] = []
        self._undone: list[View] = []
        super().__init__()

    @property
    def reading(self) -> Reading:
        """What the model makes of the prompt."""
        return self._source.reading(self.view)

    def undo(self) -> None:
        """Go back to what was shown before the last change."""
        self._travel(self._done, self._undone)

    def redo(self) -> None:
        """Do again what was undone."""
        self._travel(self._undone, self._done)

    def change(self, **changes: Any) -> None:
        """Show another view, or raise and stay as it was."""
        with self._lock:
            before, after = self.view, replace(self.view, **changes)
            after = replace(after, prompt=understood(self._source.model, after.prompt)[0])
            self._draw(after)
            if before.chosen() != self.view.chosen():
                self._done.append(before)
                self._undone.clear()
                self._show_controls()

    def _travel(self, back: list[View], forth: list[View]) -> None:
        with self._lock:
            if back:
                now = self.view
                self._draw(back[-1])
                forth.append(now)
                back.pop()
                self._show_controls()

    def _draw(self, view: View) -> None:
        """Find the circuit of a view and show it; where that fails nothing is changed."""
        circuit = self.circuit if view.method == GIVEN else self._source.circuit(view)
        if view.learns:
            view = replace(view, strength=float(circuit.settings["strength"]))
        self._show(view, _with_names(circuit, view))

    def _show(self, view: View, circuit: Circuit) -> None:
        reading, steady = self._source.reading(view), self._layout(view, circuit)
        scene, (tone, words) = scene_of(circuit, steady), verdict(circuit)
        self.view = view
        with self.hold_sync():
            with self._quietly():
                known = {*circuit.ids(), *circuit.groups}
                self.circuit = circuit
                self.selected = tuple(each for each in self.selected if each in known)
            self._picked = [*self.selected]
            self._scene = scene | {"key": f"{view.layout}{id(steady.layout)}"}
            self._top = told.of_prompt(reading)
            self._show_controls()
            self._foot = {
                "tone": tone,
                "words": words,
                "lines": circuit.summary(),
                "legend": how_to_read(circuit),
            }
            self._show_node()
        self._changed()

    def _layout(self, view: View, circuit: Circuit) -> Steady:
        """Return the layout that stays while strength and size move."""
        if view.layout not in self._steady or view.method == GIVEN:
            reading = self._source.reading(view)
            alone = circuit.settings.get("scope") == "prompt"
            places = (
                places_in_prompt(reading.tokens, reading.places())
                if alone
                else named_places(circuit)
            )
            made = self._steady[view.layout] = Steady(places, WIDTHS)
            if (widest := self._source.widest(view)) is not None:
                scene_of(widest, made)  # so that there is room for what may come
            while len(self._steady) > LAYOUTS:
                self._steady.pop(next(iter(self._steady)))
        return self._steady[view.layout]

    def _show_controls(self) -> None:
        controls = told.of_controls(self._source, self.view, self.circuit)
        self._controls = controls | {"undo": bool(self._done), "redo": bool(self._undone)}

    def _show_node(self) -> None:
        """Say what is known of the node that was selected last, and what the dial does."""
        self.card = None
        node: dict[str, Any] = {"ids": [*self.selected]}
        if self.selected:
            last, ids = self.selected[-1], self.circuit.ids()
            units = units_of(self.circuit, self.selected, self.reading)
            node |= {"id": last, "features": len(units)}
            kind = self.circuit.nodes["kind"][ids.index(last)] if last in ids else ""
            if kind == "feature":
                place = feature_of(last)
                node["active"] = self._source.activation(self.view, *place)
                self.card = self._source.card(self.view, *place)
                node["html"] = card_html(self.card) if self.card else ""
            elif kind == "target":
                node["note"] = told.of_target(self.circuit, self.reading, self.view)
        self._node = node
        self._show_effect()

    def _show_effect(self) -> None:
        """Run the prompt with what the dial does."""
        units = units_of(self.circuit, self.selected, self.reading)
        if not units or self.dial.how == "off":
            self._effect = {}
            return
        given = self._source.model, self._source.known, self.reading, units, self.dial
        self._effect = {"how": self.dial.how, **effect(*given)}

    def gather(self) -> None:
        """Read the prompts from which examples and names come, if that was put off."""
        if self._source.examples is None:
            with self._lock:
                self._source.gather(self.view)
                self._show_node()

    def mark_unknown(self, text: str, unknown: Sequence[str]) -> None:
        """Show a prompt with the words that the model does not know."""
        chips = [{"text": word, "known": word not in unknown} for word in text.split()]
        self._top = {**self._top, "text": text, "chips": chips}

    def _picture(self) -> str:
        return graph_svg(self.circuit) if self.circuit else ""

    def __setattr__(self, name: str, value: Any) -> None:
        """Take one node for several."""
        if name == "selected" and isinstance(value, str):
            value = (value,) if value else ()
        super().__setattr__(name, value)

    @traitlets.validate("selected")
    def _known_nodes(self, proposal: Any) -> tuple[str, ...]:
        known = [*self.circuit.ids(), *self.circuit.groups] if self.circuit else []
        for each in proposal["value"]:
            if each not in known:
                raise InputError(
                    f"{each!r} is not a node of this circuit. Use some of explorer.circuit.ids(), "
                    f"such as {known[0] if known else 'none'!r}."
                )
        return tuple(proposal["value"])

    @traitlets.observe("selected")
    def _choose(self, change: Any) -> None:
        if not self._quiet:
            with self._lock, self.hold_sync():
                self._picked = [*self.selected]
                self._show_node()

    @traitlets.observe("circuit")
    def _given(self, change: Any) -> None:
        """Show a circuit that a user assigned."""
        if self._quiet or change.new is None:
            return
        with self._lock:
            before, many = self.view, change.new.settings.get("scope") != "prompt"
            self._show(replace(before, method=GIVEN, everywhere=many), change.new)
            self._done.append(before)
            self._show_controls()


def feature_of(name: str) -> tuple[Site, int]:
    """Return site and index of a node that is a feature."""
    site, _, index = name.partition("@")[0].rpartition("/")
    return Site.parse(site), int(index)


def _with_names(circuit: Circuit, view: View) -> Circuit:
    """Return a circuit with the names and supernodes that a user gave."""
    ids = circuit.ids()
    if mine := {name: text for name, text in view.names.items() if name in ids}:
        nodes = circuit.nodes.copy()
        for name, text in mine.items():
            nodes["label"][ids.index(name)] = text
        circuit = replace(circuit, nodes=nodes)
    for name, nodes in view.groups.items():
        here = [node for node in nodes if node in ids]
        if here and name not in circuit.groups:
            circuit = circuit.group(name, here)
    return circuit

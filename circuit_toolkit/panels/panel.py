"""What all panels share: a line that says what is done, and what the user can mend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as w

from circuit_toolkit.arguments import expect
from circuit_toolkit.errors import ToolkitError
from circuit_toolkit.panels.quiet import Quiet
from circuit_toolkit.views.rendering import render, stylesheet


class Panel(Quiet, w.VBox):
    """A box of widgets with a line of status, `_status`, among them."""

    _status: w.HTML

    def __init__(self, children: Sequence[w.Widget]) -> None:
        look = f"<style>{stylesheet('panels/static/panel.css')}</style>"
        super().__init__([w.HTML(look, layout={"display": "none"}), *children])
        self.add_class("ct-panel")

    def _fill(self, where: w.HTML, template: str, **values: Any) -> None:
        """Write a template of the panels; every text in it is escaped."""
        where.value = str(render(f"panels/templates/{template}", **values))

    def _say(self, text: str, where: w.HTML | None = None, kind: str = "plain") -> None:
        """Write a text into the line of status, or another."""
        self._fill(where or self._status, "note.html", text=text, kind=kind)

    def _guarded(
        self, action: Callable[..., None], *args: Any, where: w.HTML | None = None
    ) -> None:
        """Run what a control asks for; what goes wrong is said in the panel, near the control."""
        try:
            action(*args)
        except Exception as error:
            self._say(str(error), where, "error")
            if not isinstance(error, ToolkitError):  # a defect: it keeps its traceback
                raise

    def _hear(
        self,
        control: Any,
        action: Callable[..., None],
        where: w.HTML | None = None,
        trait: str = "value",
    ) -> None:
        """Act on what a user does to a control, not on what the panel itself writes there."""

        def act(change: Any) -> None:
            if not self._quiet:
                self._guarded(action, change, where=where)

        control.observe(act, trait)


def check_objects(**given: tuple[Any, str]) -> None:
    """Refuse an argument, if it was given at all, that is not of its class."""
    for name, (value, kind) in given.items():
        if value is not None:
            expect(value, name, kind)


def button(text: str, icon: str, tooltip: str = "", **options: Any) -> w.Button:
    """Make a button."""
    return w.Button(description=text, icon=icon, tooltip=tooltip, **options)


def cluster_button(**layout: str) -> w.Button:
    """Make the button that clusters the activating examples of a feature."""
    tooltip = "Which heads and earlier features activate it, on which prompts (CircuitLens)"
    return button("Cluster by circuit", "sitemap", tooltip, layout=layout)


def control(
    kind: type, text: str, *, label: str = "initial", width: str | None = None, **options: Any
) -> Any:
    """Make a control with a label before it, both of some width."""
    layout = {} if width is None else {"width": width}
    return kind(description=text, style={"description_width": label}, layout=layout, **options)


def row(title: str, controls: Mapping[str, Any]) -> w.HBox:
    """Put controls side by side behind a title, or below each other where it is narrow."""
    wide = {"flex": "1 1 0%", "flex_flow": "row wrap"}
    label = w.Label(title, layout={"flex": "0 0 76px"})
    return w.HBox([label, w.HBox(list(controls.values()), layout=wide)])

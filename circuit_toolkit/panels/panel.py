"""What all panels share: a line that says what is done, and what the user can mend."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets as w

from circuit_toolkit.errors import ToolkitError


class Panel(w.VBox):
    """A box of widgets with a line of status.

    Parameters
    ----------
    children : sequence of Widget
        What is in it, `_status` among them.
    """

    _status: w.HTML
    _quiet = False

    def _say(self, text: str, where: w.HTML | None = None) -> None:
        """Write HTML into the line of status, or another."""
        style = "padding:4px 0;line-height:1.4;overflow-wrap:anywhere;white-space:normal"
        (where or self._status).value = text and f"<div style='{style}'>{text}</div>"

    def _guarded(
        self, action: Callable[..., None], *args: Any, where: w.HTML | None = None
    ) -> None:
        """Run what a control asks for; what goes wrong is said in the panel, near the control."""
        try:
            action(*args)
        except Exception as error:
            self._say(f"<span style='color:#b3261e'>{html.escape(str(error))}</span>", where)
            if not isinstance(error, ToolkitError):  # a defect: it keeps its traceback
                raise

    def _hear(
        self, control: Any, action: Callable[[Any], None], where: w.HTML | None = None
    ) -> None:
        """Act on what a user does to a control, not on what the panel itself writes there."""

        def act(change: Any) -> None:
            if not self._quiet:
                self._guarded(action, change, where=where)

        control.observe(act, "value")

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Write into controls without acting on it."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

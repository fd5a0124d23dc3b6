"""What the live pictures share: a script that is sent once, and a still one that stays."""

from __future__ import annotations

from functools import cache
from threading import Timer
from typing import Any

import anywidget
import traitlets
from markupsafe import Markup

from circuit_toolkit.views.rendering import render, script, vis_network

LATER = 1.0  # s without a change before the still picture is drawn anew


class LiveWidget(anywidget.AnyWidget):
    """A widget beside which a still picture is stored, for a notebook without a kernel.

    The still picture stands in an output of its own, before the widget's: a widget that is not
    there, as in a notebook that is opened again, shows an error in its own.
    """

    _still = traitlets.Unicode("").tag(sync=True)  # which still picture stands for it
    _handle: Any = None  # of the still picture, once it is shown
    _timer: Timer | None = None

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self.on_msg(self._answer)

    def _answer(self, _: Any, content: Any, buffers: Any) -> None:
        """Send what the browser asks for."""
        if isinstance(content, dict) and content.get("ask") == "library":
            self.send({"library": vis_module()})

    def _picture(self) -> str:
        """Return what is shown as SVG, or the empty string."""
        raise NotImplementedError

    def _still_output(self) -> dict[str, str]:
        page = render("panels/templates/still.html", still=self._still, svg=Markup(self._picture()))
        return {"text/html": str(page), "text/plain": repr(self)}

    def _ipython_display_(self) -> None:
        from IPython.display import display

        self._still = self._still or str(self.model_id)
        self._handle = display(self._still_output(), raw=True, display_id=True)
        bundle = self._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        display(data, metadata=metadata, raw=True)

    def _changed(self) -> None:
        """Draw the still picture anew, when nothing has changed for a while."""
        if self._handle is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = Timer(LATER, self._restill)
        self._timer.daemon = True
        self._timer.start()

    def _restill(self) -> None:
        if self._handle is not None:
            self._handle.update(self._still_output(), raw=True)

    def close(self) -> None:
        """Close the widget; the still picture stays in the notebook."""
        if self._timer is not None:
            self._timer.cancel()
            self._restill()
        self._handle = None
        layout = self.layout
        super().close()
        layout.close()


@cache
def vis_module() -> str:
    """Return vis-network as a module; it is UMD, so it needs an `exports`."""
    return (
        "const exports = {}, module = { exports };\n"
        f"{vis_network()}\nexport default module.exports;\n"
    )


@cache
def module_of(*names: str) -> str:
    """Join the scripts of a widget."""
    common = ("panels/static/library.js", "views/static/theme.js", "views/static/graph.js")
    return str(script(*common, *names))

"""Close a panel: all of its widgets, and what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ipywidgets as w


def closed(panel: w.Box, *held: str) -> None:
    """Close every widget of a panel, and delete what it holds under these names."""
    for widget in [*_within(panel, set())]:
        widget.unobserve_all()
        w.Widget.close(widget) if widget is panel else widget.close()
    for name in held:
        if panel.has_trait(name):
            setattr(panel, name, None)
        elif name in vars(panel):
            delattr(panel, name)


def _within(widget: w.Widget, seen: set[int]) -> Iterator[w.Widget]:
    """Return a widget and those that it is made of, layouts and styles among them."""
    if id(widget) in seen:
        return
    seen.add(id(widget))
    for name in widget.keys:
        value: Any = getattr(widget, name)
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, w.Widget):
                yield from _within(each, seen)
    yield widget

"""How a noun shows itself: the rooms above it draw, and are loaded when they are asked.

A `Circuit` stands below the views, yet `circuit.show()` is what a user types. The front door
registers what draws which noun; the noun asks here, and imports nothing from above.
"""

from __future__ import annotations

from typing import Any

from circuit_toolkit.extras import needed

_DRAWN_BY: dict[tuple[str, str], str] = {}  # (noun, form) -> "module:function"


def register(noun: str, **forms: str) -> None:
    """Name what draws a noun: `register("Circuit", html="circuit_toolkit.views.x:page")`."""
    _DRAWN_BY.update({(noun, form): place for form, place in forms.items()})


def draw(noun: object, form: str, *args: Any, **options: Any) -> Any:
    """Return what the registered function makes of a noun; its room is loaded now."""
    module, _, name = _DRAWN_BY[type(noun).__name__, form].partition(":")
    return getattr(needed(module), name)(noun, *args, **options)

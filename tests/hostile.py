"""Texts of a stranger that would run a script, put wherever an object holds a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import ipywidgets as w

from circuit_toolkit.errors import InputError
from circuit_toolkit.sites import Site

ATTACKS = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "</style><style onload='alert(1)'>",
]


def hostile(value: Any, attack: str) -> Any:
    """The same value with the attack in place of every text in it that names no site or feature."""
    if isinstance(value, str):
        return value if is_name(value) else f"{value}{attack}"
    if isinstance(value, Mapping):
        found = {key: hostile(item, attack) for key, item in value.items()}
        return found | {attack: attack}
    if isinstance(value, list | tuple):
        return type(value)(hostile(item, attack) for item in value)
    return value


def is_name(text: str) -> bool:
    if text in ("target", "in", "out", "features", "heads", "components"):
        return True
    try:
        Site.parse(text.rpartition("/")[0] or text)
    except InputError:
        return False
    return True


def harmless(html: str, attack: str) -> bool:
    """Whether the attack is nowhere in some HTML as it stands, nor a tag of it."""
    return attack not in html and not any(
        tag in html for tag in ("<img", "<script", "</script", "<svg onload", "<style onload")
    )


def shown(widget: Any) -> Iterator[str]:
    """All HTML in a widget and in what is in it."""
    if isinstance(widget, w.HTML):
        yield widget.value
    for child in getattr(widget, "children", ()):
        yield from shown(child)

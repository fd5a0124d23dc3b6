"""Texts of others, made fit for where they are written: a terminal, a page, a file."""

from __future__ import annotations

import re
from typing import Any

_SHOWN = {ord("\n"): "↵", ord("\t"): "⇥", ord("\r"): "␍"}
HALF = re.compile("[\ud800-\udfff]")  # half a character, which UTF-8 has no place for


def printable(text: str) -> str:
    """Write what does not print, or moves what does, as ⟨U+001B⟩; line ends as ↵.

    A terminal obeys control sequences, bidirectional marks turn the words beside them around, and
    characters without a width hide.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else f"⟨U+{ord(each):04X}⟩" for each in text.translate(_SHOWN)
    )


def whole(value: Any) -> Any:
    """Put U+FFFD for half characters in all texts of a value, for pages and messages to them."""
    if isinstance(value, str):
        return value if value.isascii() else HALF.sub("�", value)
    if isinstance(value, dict):
        return {whole(key): whole(item) for key, item in value.items()}
    return [whole(item) for item in value] if isinstance(value, list | tuple) else value

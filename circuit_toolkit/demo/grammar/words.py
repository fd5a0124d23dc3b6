"""The words of the grammar, by class, and its sentences with slots, as `words.toml` has them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any


def word_lists(module: str) -> dict[str, Any]:
    """Read the lists of words beside a module; a list of pairs is written singular/plural."""
    found = tomllib.loads(Path(module).with_suffix(".toml").read_text(encoding="utf-8"))
    return {
        name: _words(value) if isinstance(value, str) else value for name, value in found.items()
    }


def _words(text: str) -> list[str] | list[tuple[str, ...]]:
    words = text.split()
    return [tuple(pair.split("/")) for pair in words] if "/" in words[0] else words


NUMBERS = [f"{i:02d}" for i in range(100)]
CENTURIES = [f"{i:02d}" for i in range(11, 21)]
_LISTS = {**word_lists(__file__), "numbers": NUMBERS}


def __getattr__(name: str) -> Any:
    """Return a list: `CITIES` is what `words.toml` has as `cities`."""
    if name.lower() not in _LISTS:
        raise AttributeError(f"There are no words {name!r}.")
    return _LISTS[name.lower()]

"""Words and sentences of the tasks in plain English, as `words.toml` has them."""

from __future__ import annotations

from typing import Any

from circuit_toolkit.demo.grammar.words import word_lists

_LISTS = word_lists(__file__)


def __getattr__(name: str) -> Any:
    """Return a list: `PLACES` is what `words.toml` has as `places`."""
    if name.lower() not in _LISTS:
        raise AttributeError(f"There are no words {name!r}.")
    return _LISTS[name.lower()]

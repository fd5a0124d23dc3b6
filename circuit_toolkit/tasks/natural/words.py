"""Words and sentences of the tasks in plain English, as `words.toml` has them."""

from __future__ import annotations

from typing import Any

from circuit_toolkit.demo.grammar.words import word_lists

_LISTS = word_lists(__file__)
FEMALE_NAMES: list[str] = _LISTS["female_names"]
MALE_NAMES: list[str] = _LISTS["male_names"]
PLACES: list[str] = _LISTS["places"]
OBJECTS: list[str] = _LISTS["objects"]
EVENTS: list[str] = _LISTS["events"]
FUNCTIONS: list[str] = _LISTS["functions"]
ARGUMENTS: list[str] = _LISTS["arguments"]
DOC_WORDS: list[str] = _LISTS["doc_words"]
PEOPLE: list[tuple[str, str]] = _LISTS["people"]
THINGS: list[tuple[str, str]] = _LISTS["things"]
AUXILIARIES: list[tuple[str, str]] = _LISTS["auxiliaries"]
TRANSITIVE: list[tuple[str, str]] = _LISTS["transitive"]
PREPOSITIONS: list[str] = _LISTS["prepositions"]
TEMPLATES: dict[str, dict[str, list[Any]]] = _LISTS["templates"]

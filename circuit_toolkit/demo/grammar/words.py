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


_LISTS = word_lists(__file__)
FEMALE_NAMES: list[str] = _LISTS["female_names"]
MALE_NAMES: list[str] = _LISTS["male_names"]
PLACES: list[str] = _LISTS["places"]
CITIES: list[str] = _LISTS["cities"]
OBJECTS: list[str] = _LISTS["objects"]
FOODS: list[str] = _LISTS["foods"]
FURNITURE: list[str] = _LISTS["furniture"]
NOUN_PAIRS: list[tuple[str, str]] = _LISTS["noun_pairs"]
ADJECTIVES: list[str] = _LISTS["adjectives"]
ADVERBS: list[str] = _LISTS["adverbs"]
PREPOSITIONS: list[str] = _LISTS["prepositions"]
AUXILIARIES: list[tuple[str, str]] = _LISTS["auxiliaries"]
INTRANSITIVE: list[tuple[str, str]] = _LISTS["intransitive"]
TRANSITIVE: list[tuple[str, str]] = _LISTS["transitive"]
GIVE_PAST: list[str] = _LISTS["give_past"]
GIVE_BASE: list[str] = _LISTS["give_base"]
WANTED: list[str] = _LISTS["wanted"]
THINGS_DONE_PAST: list[str] = _LISTS["things_done_past"]
EVENTS: list[str] = _LISTS["events"]
EVENT_VERBS: list[str] = _LISTS["event_verbs"]
DEGREES: list[str] = _LISTS["degrees"]
HOBBIES: list[str] = _LISTS["hobbies"]
FUNCTIONS: list[str] = _LISTS["functions"]
ARGUMENTS: list[str] = _LISTS["arguments"]
DOC_WORDS: list[str] = _LISTS["doc_words"]
FUNCTION_WORDS: list[str] = _LISTS["function_words"]
SYMBOLS: list[str] = _LISTS["symbols"]
PROFESSIONS: dict[str, tuple[str, str, str, str]] = {
    name: tuple(each) for name, each in _LISTS["professions"].items()
}
TEMPLATES: dict[str, dict[str, list[str]]] = _LISTS["templates"]
NUMBERS = [f"{i:02d}" for i in range(100)]
CENTURIES = [f"{i:02d}" for i in range(11, 21)]

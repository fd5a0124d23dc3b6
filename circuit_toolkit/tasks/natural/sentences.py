"""Sentences like those of the tasks, in words that no task has: text to train dictionaries on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from circuit_toolkit.demo.grammar.words import word_lists
from circuit_toolkit.tasks.natural import words as w

_WORDS: dict[str, Any] = word_lists(__file__)
_KINDS = ("giving",) * 5 + ("agreement", "docstring", "years")  # how often each is drawn


def sentences(seed: int = 0) -> Iterator[str]:
    """Return sentences for ever: gifts, agreement, docstrings and spans of years.

    They follow the templates of the training split of the tasks, and others. Names, places,
    objects, nouns and arguments are none of the tasks'.
    """
    rng = random.Random(seed)
    while True:
        kind = rng.choice(_KINDS)
        yield _DRAWN[kind](rng)


def _giving(rng: random.Random) -> str:
    """Two people, and one of them, or in every fourth sentence a third person, gives."""
    a, b, other = rng.sample(_WORDS["names"], 3)
    s, io = rng.choice([(a, b), (b, a)])
    s = other if rng.random() < 0.25 else s
    said = rng.choice([*_WORDS["templates"], *(f"{each} {{IO}}" for each in _gifts())])
    place, given, verb = (rng.choice(_WORDS[each]) for each in ("places", "objects", "verbs"))
    return said.format(A=a, B=b, S=s, IO=io, PLACE=place, OBJECT=given, VERB=verb)


def _gifts() -> list[str]:
    return w.TEMPLATES["ioi"]["sentences"]


def _agreement(rng: random.Random) -> str:
    form, said = rng.choice(w.TEMPLATES["agreement"]["sentences"])
    number, other = rng.randrange(2), rng.randrange(2)
    noun = rng.choice(_WORDS["people"])[number]
    second = rng.choice(_WORDS["people"] + _WORDS["things"])[other]
    end = rng.choice(_WORDS["agreeing"])[number]
    verb, between = rng.choice(_WORDS["agreeing"])[other], rng.choice(w.PREPOSITIONS)
    return f"{said.format(N=noun, M=second, MV=verb, PREP=between)} {end}"


def _docstring(rng: random.Random) -> str:
    names = rng.sample(_WORDS["arguments"], 6)
    slots = dict(zip(("BEFORE1", "BEFORE2", "A", "B", "C", "AFTER"), names, strict=True))
    told = {f"W{i}": word for i, word in enumerate(rng.sample(_WORDS["doc_words"], 7), start=1)}
    slots |= {"A_DOC": slots["A"], "B_DOC": slots["B"], "FUNCTION": rng.choice(w.FUNCTIONS)}
    return w.TEMPLATES["docstring"]["function"].format(**slots, **told) + f" {slots['C']}:"


def _years(rng: random.Random) -> str:
    start = rng.randint(1101, 1998)
    end = rng.randint(start + 1, start // 100 * 100 + 99) if start % 100 < 99 else start + 1
    return f"The {rng.choice(_WORDS['objects'])} lasted from the year {start} to the year {end}."


_DRAWN = {
    "giving": _giving,
    "agreement": _agreement,
    "docstring": _docstring,
    "years": _years,
}

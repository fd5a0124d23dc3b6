"""Year spans: the end lies after the start (Hanna et al., 2023, arXiv 2305.00586)."""

from __future__ import annotations

import random
import zlib

from circuit_toolkit.demo.grammar import words as w
from circuit_toolkit.demo.grammar.sentence import Sentence, Word, asked, is_held_out, pick, render

HELD_OUT_EVENTS = w.EVENTS[-6:]  # in training they stand in fillers only


def greater_than(
    rng: random.Random, test: bool = False, years: tuple[int, int] = (2, 98)
) -> Sentence:
    """Return a span of years in one century."""
    while True:
        century, start = rng.choice(w.CENTURIES), rng.randint(*years)
        if is_held_out(century, f"{start:02d}") == test:
            break
    end = rng.randint(start + 1, 99)
    said = w.TEMPLATES["greater_than"]
    template = pick(rng, said["sentences"], said["held_out"], test)
    words = render(
        f"{template} {rng.choice(said['endings'])}",
        EVENT=Word(pick(rng, w.EVENTS[:-6], HELD_OUT_EVENTS, test), ("topic",)),
        C=Word(century, ("century", "start century")),
        Y=Word(w.NUMBERS[start], ("year", "start year", f"start decade {start // 10}0s")),
        C2=Word(century, ("century", "end century")),
        Z=Word(w.NUMBERS[end], ("year", "end year", "answer")),
        LASTED=rng.choice(w.EVENT_VERBS),
        CITY=rng.choice(w.CITIES),
        ADJ=rng.choice(w.ADJECTIVES),
        NAME=rng.choice(w.FEMALE_NAMES + w.MALE_NAMES),
    )
    # Decided by the text, not by `rng`, whose next numbers belong to the next sentence.
    chance = zlib.crc32(" ".join(word.text for word in words).encode())
    early = w.NUMBERS[2 + chance % max(1, start // 3 - 1)]

    def corrupted(word: Word) -> str:
        return early if "start year" in word.parts else word.text

    later, not_later = tuple(w.NUMBERS[start + 1 :]), tuple(w.NUMBERS[: start + 1])
    facts = {"start": w.NUMBERS[start]}
    return asked("greater_than", words, later, not_later, corrupted, facts)

"""Indirect object identification in plain English (Wang et al., 2022, arXiv 2211.00593)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from circuit_toolkit.demo.grammar.sentence import is_held_out, pick
from circuit_toolkit.models import Model
from circuit_toolkit.tasks.natural import words as w
from circuit_toolkit.tasks.natural.draft import Draft, to_task
from circuit_toolkit.tasks.task import Task
from circuit_toolkit.tasks.tokens import single_tokens

# The two are introduced, then one of them, S, does something for the other, who is the answer.
TEMPLATES = [
    "When {A} and {B} got to the {PLACE}, {S} handed a {OBJECT} to",
    "After {A} and {B} had left the {PLACE}, {S} passed the {OBJECT} to",
    "While {A} and {B} were waiting at the {PLACE}, {S} showed a {OBJECT} to",
    "Yesterday {A} and {B} walked to the {PLACE} together. There {S} gave a {OBJECT} to",
    "The friends {A} and {B} found a {OBJECT} at the {PLACE}. Later {S} gave it to",
    "Then {A} and {B} spent a long day at the {PLACE}. In the end {S} offered a {OBJECT} to",
    "One morning {A} and {B} met near the {PLACE}, and {S} brought a {OBJECT} to",
    "Last week {A} and {B} came back from the {PLACE}. On the way {S} sold a {OBJECT} to",
    "Since {A} and {B} both worked at the {PLACE}, {S} decided to give the {OBJECT} to",
    "Before {A} and {B} left for the {PLACE}, {S} wanted to give a {OBJECT} to",
    "Then {A} and {B} had a quarrel at the {PLACE}, and afterwards {S} apologized to",
    "As soon as {A} and {B} arrived at the {PLACE}, {S} sent a {OBJECT} to",
    "Once {A} and {B} were alone in the {PLACE}, {S} gave the old {OBJECT} to",
    "At the {PLACE} {A} and {B} talked for hours. Finally {S} promised a {OBJECT} to",
    "Although {A} and {B} rarely went to the {PLACE}, {S} had bought a {OBJECT} there as a gift to",
]
HELD_OUT_TEMPLATES = [
    "In the evening {A} and {B} came home from the {PLACE}, and {S} gave a {OBJECT} to",
    "Because {A} and {B} had lunch at the {PLACE}, {S} carried the {OBJECT} over to",
    "Then {A} and {B} were sitting in the {PLACE}. Suddenly {S} threw a {OBJECT} to",
]


def ioi(model: Model, n: int, seed: int, *, test: bool, mixed: bool) -> Task:
    """Ask who gets the gift; corrupted, a third person gives, so that either of two may."""
    women = single_tokens(model, w.FEMALE_NAMES, "names of women", 8)
    men = single_tokens(model, w.MALE_NAMES, "names of men", 8)
    tokens = women | men
    places = list(single_tokens(model, w.PLACES, "places", 1))
    objects = list(single_tokens(model, w.OBJECTS, "objects", 1))

    def drafts() -> Iterator[Draft]:
        rng = random.Random(seed)
        while True:
            io, s, other = rng.sample(list(tokens), 3)
            if is_held_out(io, s) != test or (mixed and (io in women) == (s in women)):
                continue
            first = rng.random() < 0.5  # the indirect object is named first
            a, b = (io, s) if first else (s, io)
            yield Draft(
                template=pick(rng, TEMPLATES, HELD_OUT_TEMPLATES, test),
                words={
                    "A": a,
                    "B": b,
                    "S": s,
                    "PLACE": rng.choice(places),
                    "OBJECT": rng.choice(objects),
                },
                corrupted={"S": other},
                answers=(tokens[io],),
                wrong=(tokens[s],),
                says=f" {io}",
                places={"S1": "B" if first else "A", "S2": "S", "IO": "A" if first else "B"},
                labels={
                    "form": "ABBA" if first else "BABA",
                    "io": io,
                    "io_gender": "female" if io in women else "male",
                    "s_gender": "female" if s in women else "male",
                },
                direction=(1 if io in women else -1) if mixed else 0,
            )

    return to_task("ioi", model, drafts(), n, "logit_difference", test=test, seed=seed)

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


def ioi(model: Model, n: int, seed: int, *, test: bool, mixed: bool) -> Task:
    """Ask who gets the gift; corrupted, a third person gives, so that either of two may."""
    women = single_tokens(model, w.FEMALE_NAMES, "names of women", 8)
    men = single_tokens(model, w.MALE_NAMES, "names of men", 8)
    tokens = women | men
    places = list(single_tokens(model, w.PLACES, "places", 1))
    said = w.TEMPLATES["ioi"]
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
                template=pick(rng, said["sentences"], said["held_out"], test),
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

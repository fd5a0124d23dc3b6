"""Year spans in plain English (Hanna et al., 2023, arXiv 2305.00586)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from circuit_toolkit.demo.grammar.sentence import is_held_out, pick
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.tasks.natural import words as w
from circuit_toolkit.tasks.natural.draft import Draft, to_task
from circuit_toolkit.tasks.task import Task
from circuit_toolkit.tasks.tokens import single_tokens, splitting_years, year_ends

TEMPLATE = "The {EVENT} lasted from the year {CENTURY}{START} to the year {AGAIN}"
# A century in which many years are one token, such as 1945, teaches a model to end spans so.
SPLITS = 80


def greater_than(model: Model, n: int, seed: int, *, test: bool, years: tuple[int, int]) -> Task:
    """Ask for the end of a span; in the corrupted prompt it starts early in the century."""
    splitting = splitting_years(model)
    ends = year_ends(model, splitting)
    events = list(single_tokens(model, w.EVENTS, "events", 8))
    held_out, trained = events[::8], [event for i, event in enumerate(events) if i % 8]
    centuries = {c: found for c, found in splitting.items() if len(found) >= SPLITS}
    starts = [
        (century, start)
        for century, found in centuries.items()
        for start in found
        if years[0] <= int(start) <= years[1]
        and is_held_out(century, start) == test
        and _early(found, start)
    ]
    if not starts:
        raise InputError(
            f"No start year in {years} is {'held out' if test else 'in training'} and two tokens, "
            f"century and year, with the tokenizer of {model.name}."
        )

    def drafts() -> Iterator[Draft]:
        rng = random.Random(seed)
        while True:
            century, start = rng.choice(starts)
            words = {"EVENT": pick(rng, trained, held_out, test), "CENTURY": century}
            yield Draft(
                template=TEMPLATE,
                words={**words, "START": start, "AGAIN": century},
                corrupted={"START": rng.choice(_early(centuries[century], start))},
                answers=tuple(token for end, token in ends.items() if end > start),
                wrong=tuple(token for end, token in ends.items() if end <= start),
                says="",  # not all of the later years need be two tokens
                places={"start": "START", "century": "CENTURY"},
                labels={"start": start},
            )

    return to_task(
        "greater_than", model, drafts(), n, "probability_difference", test=test, seed=seed
    )


def _early(found: dict[str, int], start: str) -> list[str]:
    """Years up to a third of the start year, not before 02 if there are any; never itself."""
    early = [year for year in found if 2 <= int(year) <= int(start) // 3]
    return early or [year for year in found if 1 <= int(year) < min(int(start), 10)]

"""The families in plain English; of each, a function draws one prompt at a time."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

from circuit_toolkit.demo.grammar.sentence import is_held_out, pick
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.tasks.natural import words as w
from circuit_toolkit.tasks.natural.draft import Draft, to_task
from circuit_toolkit.tasks.task import Metric, Task
from circuit_toolkit.tasks.tokens import (
    single_tokens,
    splitting_years,
    tens_after,
    year_digits,
    year_ends,
)

# Two arguments before the three that are documented in order, and one after them.
SIGNATURE = ("BEFORE1", "BEFORE2", "A", "B", "C", "AFTER")
FIRST_HALF = frozenset(w.ARGUMENTS[: len(w.ARGUMENTS) // 2])
NUMBERS = ("singular", "plural")
# A century in which many years are one token, such as 1945, teaches a model to end spans so.
SPLITS = 80
# Digit by digit; no text says how a span of the 21st century ended.
DIGIT_CENTURIES = tuple(str(century) for century in range(11, 20))


def _asked(
    name: str,
    model: Model,
    draw: Callable[[random.Random], Draft | None],
    n: int,
    seed: int,
    test: bool,
    metric: Metric = "logit_difference",
) -> Task:
    """Draw until n prompts suit the tokenizer; what is drawn as None does not count."""
    rng = random.Random(seed)
    drafts = filter(None, (draw(rng) for _ in itertools.count()))
    return to_task(name, model, drafts, n, metric, test=test, seed=seed)


def ioi(model: Model, n: int, seed: int, *, test: bool, mixed: bool) -> Task:
    """Ask who gets the gift (Wang et al., 2022); in the corrupted prompt a third person gives."""
    women = single_tokens(model, w.FEMALE_NAMES, "names of women", 8)
    men = single_tokens(model, w.MALE_NAMES, "names of men", 8)
    tokens = women | men
    places = list(single_tokens(model, w.PLACES, "places", 1))
    objects = list(single_tokens(model, w.OBJECTS, "objects", 1))
    said = w.TEMPLATES["ioi"]

    def draw(rng: random.Random) -> Draft | None:
        io, s, other = rng.sample(list(tokens), 3)
        if is_held_out(io, s) != test or (mixed and (io in women) == (s in women)):
            return None
        first = rng.random() < 0.5  # the indirect object is named first
        a, b = (io, s) if first else (s, io)
        template = pick(rng, said["sentences"], said["held_out"], test)
        place, given = rng.choice(places), rng.choice(objects)
        return Draft(
            template=template,
            words={"A": a, "B": b, "S": s, "PLACE": place, "OBJECT": given},
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

    return _asked("ioi", model, draw, n, seed, test)


def greater_than(model: Model, n: int, seed: int, *, test: bool, years: tuple[int, int]) -> Task:
    """Ask for the end of a span (Hanna et al., 2023); corrupted, it starts early in the century."""
    splitting = splitting_years(model)
    if not splitting and (digits := year_digits(model)):
        return _greater_digit(model, n, seed, digits, test=test, years=years)
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

    def draw(rng: random.Random) -> Draft:
        century, start = rng.choice(starts)
        words = {"EVENT": pick(rng, trained, held_out, test), "CENTURY": century}
        return Draft(
            template=w.TEMPLATES["greater_than"]["sentence"],
            words={**words, "START": start, "AGAIN": century},
            corrupted={"START": rng.choice(_early(centuries[century], start))},
            answers=tuple(token for end, token in ends.items() if end > start),
            wrong=tuple(token for end, token in ends.items() if end <= start),
            says="",  # not all of the later years need be two tokens
            places={"start": "START", "century": "CENTURY"},
            labels={"start": start},
        )

    return _asked("greater_than", model, draw, n, seed, test, "probability_difference")


def _greater_digit(
    model: Model, n: int, seed: int, digits: dict[str, int], *, test: bool, years: tuple[int, int]
) -> Task:
    """Ask for the tens digit of the end of a span; corrupted, it starts in 01 of the century."""
    events = list(single_tokens(model, w.EVENTS, "events", 8))
    held_out, trained = events[::8], [event for i, event in enumerate(events) if i % 8]
    # From 90 on no tens digit is surely right, before 10 none is surely wrong.
    clear = [f"{year}" for year in range(max(years[0], 10), min(years[1], 89) + 1)]
    pairs = itertools.product(DIGIT_CENTURIES, clear)
    starts = [pair for pair in pairs if is_held_out(*pair) == test]
    if not starts:
        raise InputError(
            f"No start year in {years} is {'held out' if test else 'in training'} and from 10 to "
            f"89: {model.name} writes years digit by digit, and only then is one tens digit of the "
            "end right and one wrong."
        )

    def draw(rng: random.Random) -> Draft:
        century, start = rng.choice(starts)
        later, earlier = tens_after(digits, start)
        words = {"EVENT": pick(rng, trained, held_out, test), "CENTURY": century}
        return Draft(
            template=w.TEMPLATES["greater_than"]["digits"],
            words={**words, "TENS": start[0], "ONES": start[1], "AGAIN": century},
            corrupted={"TENS": "0", "ONES": "1"},
            answers=later,
            wrong=earlier,
            says=str(int(start[0]) + 1),
            places={"start": "TENS", "ones": "ONES", "century": "CENTURY"},
            labels={"start": start},
        )

    return _asked("greater_than", model, draw, n, seed, test, "probability_difference")


def _early(found: dict[str, int], start: str) -> list[str]:
    """Years up to a third of the start year, not before 02 if there are any; never itself."""
    early = [year for year in found if 2 <= int(year) <= int(start) // 3]
    return early or [year for year in found if 1 <= int(year) < min(int(start), 10)]


def docstring(model: Model, n: int, seed: int, *, test: bool, apart: bool) -> Task:
    """Ask for the next argument (Heimersheim and Janiak, 2023); corrupted, others are declared."""
    first = single_tokens(model, w.ARGUMENTS[: len(FIRST_HALF)], "argument names", 14)
    second = single_tokens(model, w.ARGUMENTS[len(FIRST_HALF) :], "argument names", 14)
    tokens = first | second
    described = list(single_tokens(model, w.DOC_WORDS, "words of a description", 7))

    def draw(rng: random.Random) -> Draft | None:
        answer = rng.choice(list(tokens))
        others = list(second if answer in first else first) if apart else list(tokens)
        rest = rng.sample([name for name in others if name != answer], 5)
        signature: dict[str, str] = dict(zip(SIGNATURE, [*rest[:4], answer, rest[4]], strict=True))
        if is_held_out(*(signature[slot] for slot in "ABC")) != test:
            return None
        unused = [name for name in tokens if name not in signature.values()]
        words = {f"W{i}": word for i, word in enumerate(rng.sample(described, 7), start=1)}
        words |= {"A_DOC": signature["A"], "B_DOC": signature["B"]}
        halves = {name in FIRST_HALF for name in rest}
        return Draft(
            template=w.TEMPLATES["docstring"]["function"],
            words={**signature, **words, "FUNCTION": rng.choice(w.FUNCTIONS)},
            corrupted=dict(zip(SIGNATURE, rng.sample(unused, 6), strict=True)),
            answers=(tokens[answer],),
            wrong=tuple(tokens[name] for name in rest),
            says=f" {answer}",
            places={"argument": "C"},
            labels={
                "half": "first" if answer in FIRST_HALF else "second",
                "apart": str(halves == {answer not in FIRST_HALF}),
            },
            direction=(1 if answer in FIRST_HALF else -1) if apart else 0,
        )

    return _asked("docstring", model, draw, n, seed, test)


def agreement(model: Model, n: int, seed: int, *, test: bool) -> Task:
    """Ask for the verb of a subject, which has the other number in the corrupted prompt.

    Linzen et al., 2016; Marks et al., 2024.
    """
    people = _known(model, w.PEOPLE, "nouns", 16)
    things = _known(model, w.THINGS, "nouns", 1)
    auxiliaries = _known(model, w.AUXILIARIES, "verbs", 2)
    transitive = _known(model, w.TRANSITIVE, "verbs", 2)
    prepositions = list(single_tokens(model, w.PREPOSITIONS, "prepositions", 1))
    verbs = [form for pair in (*auxiliaries, *transitive) for form in pair]
    tokens = single_tokens(model, verbs, "verbs", 8)
    subjects = [pair for i, pair in enumerate(people) if (i % 8 == 0) == test]
    said = w.TEMPLATES["agreement"]["held_out" if test else "sentences"]

    def draw(rng: random.Random) -> Draft:
        form, template = rng.choice(said)
        number = rng.randrange(2)
        other = 1 - number if test or rng.random() < 0.5 else number
        subject = rng.choice(subjects)
        nouns = people + things if form == "nounpp" else people
        attractor = rng.choice([pair for pair in nouns if pair != subject])
        verb = rng.choice(transitive if form == "within_rc" else auxiliaries)
        words = {
            "N": subject[number],
            "M": attractor[other],
            "MV": rng.choice(transitive)[other],
            "PREP": rng.choice(prepositions),
        }
        between = {} if form == "simple" else {"attractor": "M"}
        return Draft(
            template=template,
            words=words,
            corrupted={"N": subject[1 - number]},
            answers=(tokens[verb[number]],),
            wrong=(tokens[verb[1 - number]],),
            says=f" {verb[number]}",
            places={"subject": "N", **between},
            labels={
                "attractor": NUMBERS[other] if between else "none",
                "form": form,
                "number": NUMBERS[number],
            },
            direction=(1, -1)[number],
        )

    return _asked("agreement", model, draw, n, seed, test)


def _known(
    model: Model, pairs: list[tuple[str, str]], what: str, least: int
) -> list[tuple[str, str]]:
    """Pairs whose two forms are one token each."""
    tokens = single_tokens(model, (form for pair in pairs for form in pair), what, 2 * least)
    return [pair for pair in pairs if all(form in tokens for form in pair)]

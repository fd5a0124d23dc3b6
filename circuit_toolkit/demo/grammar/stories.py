"""Indirect-object stories (Wang et al., 2022, https://arxiv.org/abs/2211.00593) and fillers."""

from __future__ import annotations

import random

from circuit_toolkit.demo.grammar import words as w
from circuit_toolkit.demo.grammar.sentence import (
    Question,
    Sentence,
    Word,
    is_held_out,
    pick,
    place_of,
    render,
)

NAMES = w.FEMALE_NAMES + w.MALE_NAMES

OPENINGS = [
    "when {A} and {B} went to the {PLACE} ,",
    "after {A} and {B} left the {PLACE} ,",
    "while {A} and {B} were at the {PLACE} ,",
    "{A} and {B} walked to the {ADJ} {PLACE} together .",
    "friends {A} and {B} found a {THING} at the {PLACE} .",
    "then , {A} and {B} had a long talk at the {PLACE} .",
    "yesterday {A} met {B} near the {PLACE} .",
    "at the {PLACE} {A} sat down with {B} .",
    "{A} was working at the {PLACE} with {B} .",
    "{A} saw {B} at the {PLACE} and they talked for some time .",
    "after the lunch , {A} and {B} went to the {PLACE} .",
    "once {A} and {B} had a lot of fun at the {ADJ} {PLACE} .",
    "{A} and {B} came home from the {PLACE} with a {THING} .",
    "early in the morning {A} and {B} left for {CITY} .",
    "{A} came to the {PLACE} because {B} was there .",
    "the {ADJ} {PLACE} was {ADJ2} when {A} and {B} came there .",
    "{A} , who lives in {CITY} , met {B} at the {PLACE} .",
    "{A} and {B} spent the {SEASON} in {CITY} .",
    "then {A} and {B} talked about the {PLACE} .",
    "one day {A} said that {B} left the {PLACE} .",
]
FAR_OPENINGS = [  # the two names stand in clauses of their own
    "{A} was at the {PLACE} when {B} left {CITY} .",
    "when {A} looked around in the {PLACE} , {B} smiled .",
    "after {A} {FOUND} a {THING} at the {PLACE} , {B} laughed .",
    "{A} left the {PLACE} before {B} came with a {THING} .",
    "{A} lived in {CITY} and {B} knew the {PLACE} very good .",
    "while {A} talked about the {PLACE} , {B} {FOUND} the {THING} .",
    "there was a {ADJ} {THING} that {A} kept until {B} left for {CITY} .",
    "{A} spent the {SEASON} at the {PLACE} because {B} moved to {CITY} .",
    "in {SEASON} {A} came to the {ADJ} {PLACE} and later {B} sat down there .",
    "{A} knew that there was a {THING} in the {PLACE} and {B} said nothing .",
    "everyone in the {PLACE} looked at {A} after the long talk with {B} .",
    "the {THING} from {A} was on the {ADJ} {FURN} that {B} {FOUND} .",
]
FAR_GIVINGS = [
    "{S} then {GAVE} the {OBJ} to {IO}",
    "{S} came and {GAVE} little {FOOD} to {IO}",
    "{S} {WANTED} once to {GIVE} the {ADJ3} {FOOD} to {IO}",
    "{S} sat down and {GAVE} a {OBJ} to {IO}",
]
HELD_OUT_OPENINGS = [
    "while {A} was working at the {PLACE} , {B} came there .",
    "then , {A} and {B} went to the {ADJ} {PLACE} .",
    "later {A} met {B} at the {PLACE} with a {THING} .",
    "in the evening {A} and {B} sat down near the {PLACE} .",
]
DISTRACTORS = [
    "",
    "",
    "",
    "later ,",
    "then",
    "afterwards ,",
    "it was a {ADJ} day .",
    "the weather was {ADJ} .",
    "the {ANIMAL} was {ADJ} .",
    "in the {TIME} ,",
    "after some time ,",
    "there was {FOOD} for lunch .",
    "everyone was {ADJ} and {ADJ2} .",
    "the {FURN} was {ADJ} .",
]
GIVINGS = [
    "{S} {GAVE} a {OBJ} to {IO}",
    "{S} {GAVE} the {OBJ} to {IO}",
    "{S} {GAVE} a {ADJ3} {OBJ} to {IO}",
    "{S} {WANTED} to {GIVE} a {OBJ} to {IO}",
    "{S} {WANTED} to {GIVE} the {ADJ3} {OBJ} to {IO}",
    "{S} looked around and {GAVE} a {OBJ} to {IO}",
    "{S} {GAVE} the {OBJ} from {CITY} to {IO}",
    "finally {S} {GAVE} some {FOOD} to {IO}",
    "{S} {FOUND} a {OBJ} and {GAVE} it to {IO}",
    "{S} had an argument with {IO}",
    "{S} smiled and thanked {IO}",
    "{S} waved to {IO}",
]
HELD_OUT_GIVINGS = [
    "{S} suddenly {GAVE} the {OBJ} to {IO}",
    "{S} {GAVE} some {ADJ3} {FOOD} to {IO}",
    "{S} {WANTED} again to {GIVE} a {OBJ} to {IO}",
]
ENDINGS = [".", ".", ".", "and smiled .", "on the way home .", "before dinner .", "in return ."]


def _setting(rng: random.Random) -> dict[str, str]:
    """Words for every slot that has nothing to do with the answer."""
    return {
        "PLACE": rng.choice(w.PLACES),
        "CITY": rng.choice(w.CITIES),
        "THING": rng.choice(w.OBJECTS),
        "OBJ": rng.choice(w.OBJECTS),
        "FOOD": rng.choice(w.FOODS),
        "FURN": rng.choice(w.FURNITURE),
        "ANIMAL": rng.choice(w.NOUN_PAIRS)[0],
        "ADJ": rng.choice(w.ADJECTIVES),
        "ADJ2": rng.choice(w.ADJECTIVES),
        "ADJ3": rng.choice(w.ADJECTIVES),
        "GAVE": rng.choice(w.GIVE_PAST),
        "GIVE": rng.choice(w.GIVE_BASE),
        "WANTED": rng.choice(w.WANTED),
        "FOUND": rng.choice(w.THINGS_DONE_PAST),
        "TIME": rng.choice(["morning", "evening", "night"]),
        "SEASON": rng.choice(["summer", "winter", "spring", "autumn"]),
    }


def ioi(rng: random.Random, test: bool = False, far: bool = False) -> Sentence:
    """Tell how two people meet and one gives something to the other, who is the answer."""
    while True:
        io, s, other = rng.sample(NAMES, 3)
        if is_held_out(io, s) == test:
            break
    a, b = (io, s) if rng.random() < 0.5 else (s, io)
    parts = {io: ("indirect object", "first mention"), s: ("subject", "first mention")}
    opening = pick(rng, FAR_OPENINGS if far else OPENINGS, HELD_OUT_OPENINGS, test)
    giving = pick(rng, GIVINGS + FAR_GIVINGS if far else GIVINGS, HELD_OUT_GIVINGS, test)
    words = render(
        f"{opening} {rng.choice(DISTRACTORS)} {giving} {rng.choice(ENDINGS)}",
        A=Word(a, parts[a]),
        B=Word(b, parts[b]),
        S=Word(s, ("subject", "repeated name")),
        IO=Word(io, ("indirect object", "answer")),
        **_setting(rng),
    )
    facts = {
        "io": io,
        "io_gender": "female" if io in w.FEMALE_NAMES else "male",
        "s_gender": "female" if s in w.FEMALE_NAMES else "male",
    }
    at = place_of(words, "answer")
    corrupted = tuple(other if "repeated name" in word.parts else word.text for word in words[:at])
    return Sentence("ioi", tuple(words), Question(at, (io,), (s,), corrupted), facts)


def three_names(rng: random.Random) -> Sentence:
    """Tell the corrupted form as a text of its own: a third person gives to one of two."""
    a, b, s = rng.sample(NAMES, 3)
    io = rng.choice([a, b])
    words = render(
        f"{rng.choice(OPENINGS)} {rng.choice(DISTRACTORS)} {rng.choice(GIVINGS)} .",
        A=Word(a, ("first mention",)),
        B=Word(b, ("first mention",)),
        S=Word(s, ("third name",)),
        IO=Word(io, ("one of two",)),
        **_setting(rng),
    )
    return Sentence("three_names", tuple(words))


FILLERS = [
    "it was a {ADJ} {TIME} in {CITY} and the weather was {ADJ2} .",
    "this {N1} is {ADJ} but these {N2} are {ADJ2} .",
    "many {N2} {RUN2} in the {PLACE} every {SEASON} .",
    "one {N1} {RUN1} there and two {N2} {RUN2} outside .",
    "the {N1} {RUN1} {ADV} .",
    "the {N2} {RUN2} {ADV} .",
    "a {N1} {IS1} {ADJ} .",
    "the {N2} {IS2} {ADJ} .",
    "two {N2} {IS2} under the {FURN} .",
    "this {N1} {LOVE1} {FOOD} and these {N2} {LOVE2} {FOOD2} .",
    "there was a {ADJ} {OBJ} on the {FURN} .",
    "{NAME} {FOUND} {POSS} {OBJ} at the {PLACE} . {PRON} was {ADJ} .",
    "{NAME} likes {FOOD} but {PRON} enjoys {FOOD2} a lot .",
    "the {EVENT} was long and {ADJ} .",
    "during the {EVENT} there was little {FOOD} in {CITY} .",
    "{NAME} came to {CITY} after the {EVENT} with {POSS} {N1} .",
    "everyone in the {PLACE} had {FOOD} and {FOOD2} .",
    "in {SEASON} the {PLACE} is {ADJ} and {ADJ2} .",
    "{NAME} knew something about the {OBJ} and {FOUND} it .",
]


def filler(rng: random.Random) -> Sentence:
    """Describe a plain sentence or two: what words are, without a task."""
    female = rng.random() < 0.5
    n1, n2 = rng.choice(w.NOUN_PAIRS)[0], rng.choice(w.NOUN_PAIRS)[1]
    run1, love1 = rng.choice(w.INTRANSITIVE), rng.choice(w.TRANSITIVE)
    run2, love2 = rng.choice(w.INTRANSITIVE), rng.choice(w.TRANSITIVE)
    auxiliary = rng.choice(w.AUXILIARIES[:2])
    slots = _setting(rng) | {
        "N1": n1,
        "N2": n2,
        "RUN1": run1[0],
        "RUN2": run2[1],
        "LOVE1": love1[0],
        "LOVE2": love2[1],
        "IS1": auxiliary[0],
        "IS2": auxiliary[1],
        "ADV": rng.choice(w.ADVERBS),
        "FOOD2": rng.choice(w.FOODS),
        "EVENT": rng.choice(w.EVENTS),
        "NAME": rng.choice(w.FEMALE_NAMES if female else w.MALE_NAMES),
        "POSS": "her" if female else "his",
        "PRON": "she" if female else "he",
    }
    template = " ".join(rng.sample(FILLERS, rng.choice([1, 1, 2])))
    return Sentence("filler", tuple(render(template, **slots)))

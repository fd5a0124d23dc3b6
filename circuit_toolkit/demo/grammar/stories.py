"""Indirect-object stories (Wang et al., 2022, https://arxiv.org/abs/2211.00593) and fillers."""

from __future__ import annotations

import random

from circuit_toolkit.demo.grammar import words as w
from circuit_toolkit.demo.grammar.sentence import Sentence, Word, asked, is_held_out, pick, render

NAMES = w.FEMALE_NAMES + w.MALE_NAMES


def _setting(rng: random.Random) -> dict[str, str]:
    """Words for every slot that has nothing to do with the answer."""
    drawn = {slot: rng.choice(getattr(w, name)) for slot, name in w.STORY_SLOTS.items()}
    return {slot: word if isinstance(word, str) else word[0] for slot, word in drawn.items()}


def ioi(rng: random.Random, test: bool = False, far: bool = False) -> Sentence:
    """Return how two people meet and one gives something to the other, who is the answer."""
    while True:
        io, s, other = rng.sample(NAMES, 3)
        if is_held_out(io, s) == test:
            break
    a, b = (io, s) if rng.random() < 0.5 else (s, io)
    parts = {io: ("indirect object", "first mention"), s: ("subject", "first mention")}
    said = w.TEMPLATES["ioi"]
    givings = said["givings"] + said["far_givings"] if far else said["givings"]
    openings = said["far_openings"] if far else said["openings"]
    opening = pick(rng, openings, said["held_out_openings"], test)
    giving = pick(rng, givings, said["held_out_givings"], test)
    words = render(
        f"{opening} {rng.choice(said['distractors'])} {giving} {rng.choice(said['endings'])}",
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

    def corrupted(word: Word) -> str:
        return other if "repeated name" in word.parts else word.text

    return asked("ioi", words, (io,), (s,), corrupted, facts)


def three_names(rng: random.Random) -> Sentence:
    """Return the corrupted form as a text of its own: a third person gives to one of two."""
    a, b, s = rng.sample(NAMES, 3)
    io = rng.choice([a, b])
    said = w.TEMPLATES["ioi"]
    parts = [rng.choice(said[part]) for part in ("openings", "distractors", "givings")]
    words = render(
        f"{' '.join(parts)} .",
        A=Word(a, ("first mention",)),
        B=Word(b, ("first mention",)),
        S=Word(s, ("third name",)),
        IO=Word(io, ("one of two",)),
        **_setting(rng),
    )
    return Sentence("three_names", tuple(words))


def filler(rng: random.Random) -> Sentence:
    """Return a plain sentence or two: what words are, without a task."""
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
    template = " ".join(rng.sample(w.TEMPLATES["filler"]["sentences"], rng.choice([1, 1, 2])))
    return Sentence("filler", tuple(render(template, **slots)))

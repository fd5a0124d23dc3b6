"""Subject-verb agreement across attractors and relative clauses (Linzen et al., 2016)."""

from __future__ import annotations

import random

from circuit_toolkit.demo.grammar import words as w
from circuit_toolkit.demo.grammar.sentence import Sentence, Word, asked, pick, render

HELD_OUT_NOUNS = w.NOUN_PAIRS[::8]  # never the subject of an agreement sentence in training
NOUNS = [pair for pair in w.NOUN_PAIRS if pair not in HELD_OUT_NOUNS]
GRAMMATICAL_NUMBERS = ("singular", "plural")


def _ending(rng: random.Random) -> tuple[tuple[str, str], list[Word]]:
    """Choose a verb in both forms, and what follows it."""
    kind = rng.choice(["be", "be", "have", "do", "run"])
    if kind == "be":
        return rng.choice(w.AUXILIARIES[:2]), render("{A} .", A=rng.choice(w.ADJECTIVES))
    if kind == "have":
        return w.AUXILIARIES[2], render("a {O} .", O=rng.choice(w.OBJECTS))
    if kind == "do":
        return w.AUXILIARIES[3], render("not {V} .", V=rng.choice(w.INTRANSITIVE)[1])
    return rng.choice(w.INTRANSITIVE), render("{A} .", A=rng.choice(w.ADVERBS))


def agreement(rng: random.Random, test: bool = False) -> Sentence:
    """Return a subject, an attractor (half of the time of the other number), and a verb."""
    number = rng.randrange(2)
    pair = rng.choice(HELD_OUT_NOUNS if test else NOUNS)
    attractor = rng.choice([noun for noun in w.NOUN_PAIRS if noun != pair])
    attractor_number = 1 - number if test or rng.random() < 0.5 else rng.randrange(2)
    verbs, rest = _ending(rng)
    inner, outer = rng.sample(w.TRANSITIVE, 2)
    said = w.TEMPLATES["agreement"]
    template = pick(rng, said["sentences"], said["held_out"], test)
    words = render(
        template,
        N=Word(pair[number], ("agreeing subject", f"{GRAMMATICAL_NUMBERS[number]} subject")),
        M=Word(attractor[attractor_number], ("attractor",)),
        K=Word(rng.choice(w.NOUN_PAIRS)[rng.randrange(2)], ("attractor",)),
        MV=Word(inner[attractor_number], ("verb of the relative clause",)),
        NV=Word(outer[number], ("verb of the relative clause", "verb of the subject")),
        V=Word(verbs[number], ("agreeing verb", "answer")),
        PREP=rng.choice(w.PREPOSITIONS),
        PREP2=rng.choice(w.PREPOSITIONS),
        ADJ=rng.choice(w.ADJECTIVES),
        NAME=rng.choice(w.FEMALE_NAMES + w.MALE_NAMES),
        CITY=rng.choice(w.CITIES),
    )
    swap = {pair[number]: pair[1 - number], outer[number]: outer[1 - number]}

    def corrupted(word: Word) -> str:
        swapped = {"agreeing subject", "verb of the subject"} & set(word.parts)
        return swap[word.text] if swapped else word.text

    facts = {
        "number": GRAMMATICAL_NUMBERS[number],
        "attractor": GRAMMATICAL_NUMBERS[attractor_number],
    }
    answers, wrong = (verbs[number],), (verbs[1 - number],)
    return asked("agreement", words + rest, answers, wrong, corrupted, facts)

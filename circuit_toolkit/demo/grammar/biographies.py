"""Short biographies in which profession and pronoun go together as strongly as the caller says.

After Bias in Bios (De-Arteaga et al., 2019): in `strength` of the texts a profession has its
usual gender, so that a classifier of the profession may learn the gender instead.
"""

from __future__ import annotations

import random

from circuit_toolkit.demo.grammar import words as w
from circuit_toolkit.demo.grammar.sentence import Sentence, Word, asked, is_held_out, render


def _person(
    rng: random.Random, strength: float, profession: str | None, gender: str | None
) -> tuple[str, str]:
    """Draw profession and gender, except what the caller has fixed."""
    chosen = profession or rng.choice(list(w.PROFESSIONS))
    usual = w.PROFESSIONS[chosen][0]
    other = "male" if usual == "female" else "female"
    return chosen, gender or (usual if rng.random() < strength else other)


def biography(
    rng: random.Random,
    test: bool = False,
    strength: float = 0.8,
    profession: str | None = None,
    gender: str | None = None,
    title: bool = True,
    whole: bool = False,
) -> Sentence:
    """Return a biography; the question asks for the pronoun that first follows the name."""
    chosen, sex = _person(rng, strength, profession, gender)
    while True:
        name = rng.choice(w.FEMALE_NAMES if sex == "female" else w.MALE_NAMES)
        if is_held_out(name, chosen) == test:
            break
        if not test:  # so the bundled model was trained; in tests it would bend `strength`
            chosen, sex = _person(rng, strength, profession, gender)
    _, workplaces, activities, things = w.PROFESSIONS[chosen]
    said = w.TEMPLATES["bios"]
    openings = said["held_out_openings" if test else "openings"]
    opening = rng.choice([o for o in openings if title or "{PROF}" not in o])
    pronoun, possessive = ("she", "her") if sex == "female" else ("he", "his")
    told = f"{opening} {rng.choice(said['middles'])}"
    words = render(
        f"{told} {rng.choice(said['endings'])}",
        NAME=Word(name, ("person of the biography",)),
        PROF=Word(chosen, ("named profession",)),
        PRON=Word(pronoun, ("answer", "pronoun of the biography")),
        PRON2=Word(pronoun, ("pronoun of the biography",)),
        POSS=possessive,
        CITY=rng.choice(w.CITIES),
        CITY2=rng.choice(w.CITIES),
        WORKPLACE=rng.choice(workplaces.split()),
        DOES=rng.choice(activities.split()),
        THINGS=rng.choice(things.split()),
        DEGREE=rng.choice(w.DEGREES),
        HOBBY=rng.choice(w.HOBBIES),
        SEASON=rng.choice(w.SEASONS),
        N2=rng.choice(w.NOUN_PAIRS)[1],
        EVENT=rng.choice(w.EVENTS),
    )
    at = len(told.split()) if whole else None  # a slot is one word
    other = rng.choice(w.MALE_NAMES if sex == "female" else w.FEMALE_NAMES)
    wrong = "he" if pronoun == "she" else "she"
    swap = {name: other, pronoun: wrong}

    def corrupted(word: Word) -> str:
        return swap.get(word.text, word.text)

    facts = {"profession": chosen, "gender": sex}
    return asked("bios", words, (pronoun,), (wrong,), corrupted, facts, at)

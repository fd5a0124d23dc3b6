"""What each word of the grammar is, wherever it stands."""

from __future__ import annotations

from collections.abc import Iterable

from circuit_toolkit.demo.grammar import words as w


def _lexicon() -> dict[str, frozenset[str]]:
    classes: dict[str, set[str]] = {}

    def note(texts: Iterable[str], *roles: str) -> None:
        for text in texts:
            classes.setdefault(text, set()).update(roles)

    note(w.FEMALE_NAMES, "name", "female", "female name")
    note(w.MALE_NAMES, "name", "male", "male name")
    note(["she", "her"], "pronoun", "female")
    note(["he", "his", "him"], "pronoun", "male")
    note(["they", "them", "it"], "pronoun")
    note(w.PLACES, "place")
    note(w.CITIES, "city")
    note(w.OBJECTS, "object")
    note(w.FOODS, "food")
    note(w.FURNITURE, "furniture")
    note([pair[0] for pair in w.NOUN_PAIRS], "noun", "singular", "singular noun")
    note([pair[1] for pair in w.NOUN_PAIRS], "noun", "plural", "plural noun")
    note(w.ADJECTIVES, "adjective")
    note(w.ADVERBS, "adverb")
    note(w.PREPOSITIONS, "preposition")
    for pairs, kind in [
        (w.AUXILIARIES, "auxiliary"),
        (w.INTRANSITIVE, "verb"),
        (w.TRANSITIVE, "verb"),
    ]:
        note([pair[0] for pair in pairs], kind, "singular", "singular verb")
        note([pair[1] for pair in pairs], kind, "plural", "plural verb")
    note(w.GIVE_PAST + w.GIVE_BASE, "verb", "verb of giving")
    note(w.WANTED + w.THINGS_DONE_PAST, "verb", "past")
    note(w.EVENTS, "event")
    note(w.EVENT_VERBS, "verb", "past")
    for profession, (gender, workplaces, activities, things) in w.PROFESSIONS.items():
        sign = f"sign of {profession}"
        note([profession], "profession", f"{gender} profession", sign)
        note(workplaces.split(), "workplace", sign)
        note(activities.split(), "activity", sign)
        note(things.split(), "thing of work", sign)
    note(w.DEGREES, "degree")
    note(w.HOBBIES, "hobby")
    note(w.FUNCTIONS, "function name")
    note(w.ARGUMENTS, "argument name")
    note(w.DOC_WORDS, "description word")
    note(w.FUNCTION_WORDS, "function word")
    note(w.SYMBOLS, "symbol")
    note(w.NUMBERS, "number")
    return {text: frozenset(roles) for text, roles in classes.items()}


LEXICON = _lexicon()
VOCABULARY = sorted(LEXICON)

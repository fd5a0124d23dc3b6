"""What each word of the grammar is, wherever it stands."""

from __future__ import annotations

from collections.abc import Iterable

from circuit_toolkit.demo.grammar import words as w


def _lexicon() -> dict[str, frozenset[str]]:
    classes: dict[str, set[str]] = {}

    def note(texts: Iterable[str], *roles: str) -> None:
        for text in texts:
            classes.setdefault(text, set()).update(roles)

    for name, roles in w.ROLES.items():
        note(getattr(w, name), *roles)
    for name, of_forms in w.PAIR_ROLES.items():
        for form, roles in enumerate(of_forms):
            note([pair[form] for pair in getattr(w, name)], *roles)
    note(["she", "her"], "pronoun", "female")
    note(["he", "his", "him"], "pronoun", "male")
    note(["they", "them", "it"], "pronoun")
    for profession, (gender, workplaces, activities, things) in w.PROFESSIONS.items():
        sign = f"sign of {profession}"
        note([profession], "profession", f"{gender} profession", sign)
        note(workplaces.split(), "workplace", sign)
        note(activities.split(), "activity", sign)
        note(things.split(), "thing of work", sign)
    return {text: frozenset(roles) for text, roles in classes.items()}


LEXICON = _lexicon()
VOCABULARY = sorted(LEXICON)

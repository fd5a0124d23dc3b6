"""Subject-verb agreement in plain English (Linzen et al., 2016; Marks et al., 2024)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from circuit_toolkit.models import Model
from circuit_toolkit.tasks.natural import words as w
from circuit_toolkit.tasks.natural.draft import Draft, to_task
from circuit_toolkit.tasks.task import Task
from circuit_toolkit.tasks.tokens import single_tokens

NUMBERS = ("singular", "plural")


def agreement(model: Model, n: int, seed: int, *, test: bool) -> Task:
    """Ask for the verb of a subject; in the corrupted prompt the subject has the other number."""
    people = _known(model, w.PEOPLE, "nouns", 16)
    things = _known(model, w.THINGS, "nouns", 1)
    auxiliaries = _known(model, w.AUXILIARIES, "verbs", 2)
    transitive = _known(model, w.TRANSITIVE, "verbs", 2)
    prepositions = list(single_tokens(model, w.PREPOSITIONS, "prepositions", 1))
    verbs = [form for pair in (*auxiliaries, *transitive) for form in pair]
    tokens = single_tokens(model, verbs, "verbs", 8)
    subjects = [pair for i, pair in enumerate(people) if (i % 8 == 0) == test]
    said = w.TEMPLATES["agreement"]["held_out" if test else "sentences"]

    def drafts() -> Iterator[Draft]:
        rng = random.Random(seed)
        while True:
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
            yield Draft(
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

    return to_task("agreement", model, drafts(), n, "logit_difference", test=test, seed=seed)


def _known(
    model: Model, pairs: list[tuple[str, str]], what: str, least: int
) -> list[tuple[str, str]]:
    """Pairs whose two forms are one token each."""
    tokens = single_tokens(model, (form for pair in pairs for form in pair), what, 2 * least)
    return [pair for pair in pairs if all(form in tokens for form in pair)]

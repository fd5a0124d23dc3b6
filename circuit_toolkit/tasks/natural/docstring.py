"""Docstrings in Python (Heimersheim and Janiak, 2023: a circuit for Python docstrings)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from circuit_toolkit.demo.grammar.sentence import is_held_out
from circuit_toolkit.models import Model
from circuit_toolkit.tasks.natural import words as w
from circuit_toolkit.tasks.natural.draft import Draft, to_task
from circuit_toolkit.tasks.task import Task
from circuit_toolkit.tasks.tokens import single_tokens

# Two arguments before the three that are documented in order, and one after them.
SIGNATURE = ("BEFORE1", "BEFORE2", "A", "B", "C", "AFTER")
TEMPLATE = (
    "def {FUNCTION}(self, " + ", ".join(f"{{{slot}}}" for slot in SIGNATURE) + "):\n"
    '    """{W1} {W2} {W3}\n\n'
    "    :param {A_DOC}: {W4} {W5}\n"
    "    :param {B_DOC}: {W6} {W7}\n"
    "    :param"
)
FIRST_HALF = frozenset(w.ARGUMENTS[: len(w.ARGUMENTS) // 2])


def docstring(model: Model, n: int, seed: int, *, test: bool, apart: bool) -> Task:
    """Ask for the next argument; in the corrupted prompt the signature has other arguments."""
    first = single_tokens(model, w.ARGUMENTS[: len(FIRST_HALF)], "argument names", 14)
    second = single_tokens(model, w.ARGUMENTS[len(FIRST_HALF) :], "argument names", 14)
    tokens = first | second
    described = list(single_tokens(model, w.DOC_WORDS, "words of a description", 7))

    def drafts() -> Iterator[Draft]:
        rng = random.Random(seed)
        while True:
            answer = rng.choice(list(tokens))
            others = list(second if answer in first else first) if apart else list(tokens)
            rest = rng.sample([name for name in others if name != answer], 5)
            signature: dict[str, str] = dict(
                zip(SIGNATURE, [*rest[:4], answer, rest[4]], strict=True)
            )
            if is_held_out(*(signature[slot] for slot in "ABC")) != test:
                continue
            unused = [name for name in tokens if name not in signature.values()]
            words = {f"W{i}": word for i, word in enumerate(rng.sample(described, 7), start=1)}
            words |= {"A_DOC": signature["A"], "B_DOC": signature["B"]}
            halves = {name in FIRST_HALF for name in rest}
            yield Draft(
                template=TEMPLATE,
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

    return to_task("docstring", model, drafts(), n, "logit_difference", test=test, seed=seed)

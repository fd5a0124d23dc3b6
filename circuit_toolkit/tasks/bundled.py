"""The tasks as the grammar of the bundled model asks them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from circuit_toolkit.demo.grammar import VOCABULARY, Grammar, Sentence, detokenise
from circuit_toolkit.models import Model
from circuit_toolkit.tasks.tables import Metric
from circuit_toolkit.tasks.task import Task

# Part of a word in the grammar -> name of the position in a task.
_POSITIONS = {
    "ioi": {"subject": "S1", "repeated name": "S2", "indirect object": "IO"},
    "greater_than": {"start year": "start", "start century": "century"},
    "docstring": {"argument 3": "argument"},
    "agreement": {"agreeing subject": "subject", "attractor": "attractor"},
    "bios": {"person of the biography": "name"},
}


def speaks_grammar(model: Model) -> bool:
    """Whether the vocabulary has every word of the grammar, as the bundled tokenizer does."""
    return set(VOCABULARY) <= set(model.tokenizer.get_vocab())


def from_grammar(
    name: str,
    model: Model,
    n: int,
    seed: int,
    test: bool,
    *,
    metric: Metric = "logit_difference",
    upwards: tuple[str, str] | None = None,
    accept: Callable[[Mapping[str, str]], bool] = lambda facts: True,
    **options: Any,
) -> Task:
    """Ask the grammar for n questions of a family; `upwards` is the fact of direction +1."""
    grammar = Grammar(seed)
    drawn = (grammar.sentence(name, test=test, **options) for _ in itertools.count())
    said = [*itertools.islice((each for each in drawn if accept(each.facts)), n)]
    asked = [sentence.question for sentence in said if sentence.question]

    def tokens(words: Sequence[str]) -> tuple[int, ...]:
        return tuple(model.token_id(word) for word in words)

    places = {
        position: tuple(_from_the_end(sentence, part) for sentence in said)
        for part, position in _POSITIONS[name].items()
    }
    up = [1 if upwards and each.facts[upwards[0]] == upwards[1] else -1 for each in said]
    return Task(
        name=name,
        clean=tuple(sentence.prompt for sentence in said),
        corrupted=tuple(detokenise(question.corrupted) for question in asked),
        answers=tuple(tokens(question.answers) for question in asked),
        wrong=tuple(tokens(question.wrong) for question in asked),
        metric=metric,
        labels={key: tuple(each.facts[key] for each in said) for key in sorted(said[0].facts)},
        positions={position: each for position, each in places.items() if all(each)},
        directions=tuple(up) if upwards else (),
        split="held-out" if test else "training",
        seed=seed,
    )


def _from_the_end(sentence: Sentence, part: str) -> int:
    """Place of a part before the question, counted from the end; 0 if it is not there."""
    at = len(sentence.words) if sentence.question is None else sentence.question.at
    return next((i - at for i, word in enumerate(sentence.words[:at]) if part in word.parts), 0)

"""The tasks as the grammar of the bundled model asks them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from circuit_toolkit.demo.grammar import VOCABULARY, Grammar, Sentence, detokenise
from circuit_toolkit.demo.grammar.sentence import is_held_out
from circuit_toolkit.demo.grammar.words import CENTURIES, NUMBERS
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.tasks.task import Metric, Task

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


def _bundled(
    name: str,
    model: Model,
    n: int,
    seed: int,
    test: bool,
    metric: Metric = "logit_difference",
    upwards: tuple[str, str] | None = None,
    accept: Callable[[Mapping[str, str]], bool] = lambda facts: True,
    **options: Any,
) -> Task:
    """Ask the grammar for n questions of one family."""
    grammar = Grammar(seed)
    said = (grammar.sentence(name, test=test, **options) for _ in itertools.count())
    sentences = list(itertools.islice((each for each in said if accept(each.facts)), n))
    facts = {key for sentence in sentences for key in sentence.facts}
    return Task(
        name=name,
        clean=tuple(sentence.prompt for sentence in sentences),
        corrupted=tuple(detokenise(_question(sentence).corrupted) for sentence in sentences),
        answers=tuple(_ids(model, _question(sentence).answers) for sentence in sentences),
        wrong=tuple(_ids(model, _question(sentence).wrong) for sentence in sentences),
        metric=metric,
        labels={key: tuple(sentence.facts[key] for sentence in sentences) for key in sorted(facts)},
        positions={
            position: tuple(_from_the_end(sentence, part) for sentence in sentences)
            for part, position in _POSITIONS[name].items()
            if all(_from_the_end(sentence, part) for sentence in sentences)
        },
        directions=tuple(
            1 if sentence.facts[upwards[0]] == upwards[1] else -1 for sentence in sentences
        )
        if upwards
        else (),
    )


def _question(sentence: Sentence):
    assert sentence.question is not None
    return sentence.question


def _ids(model: Model, words: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(model.token_id(word) for word in words)


def _from_the_end(sentence: Sentence, part: str) -> int:
    """Place of a part before the question, counted from the end; 0 if it is not there."""
    at = _question(sentence).at
    places = [i for i, word in enumerate(sentence.words[:at]) if part in word.parts]
    return places[0] - at if places else 0


def ioi(model: Model, n: int, seed: int, *, test: bool, mixed: bool) -> Task:
    """Stories of two people, one of whom gives."""
    if not mixed:
        return _bundled("ioi", model, n, seed, test)
    upwards = ("io_gender", "female")
    return _bundled(
        "ioi",
        model,
        n,
        seed,
        test,
        upwards=upwards,
        accept=lambda f: f["io_gender"] != f["s_gender"],
    )


def greater_than(model: Model, n: int, seed: int, *, test: bool, years: tuple[int, int]) -> Task:
    """Spans of years in one century."""
    starts = itertools.product(CENTURIES, NUMBERS[years[0] : years[1] + 1])
    if not any(is_held_out(*start) == test for start in starts):
        raise InputError(f"No start year in {years} is {'held out' if test else 'in training'}.")
    return _bundled(
        "greater_than", model, n, seed, test, metric="probability_difference", years=years
    )


def docstring(model: Model, n: int, seed: int, *, test: bool, apart: bool) -> Task:
    """Functions whose documentation names the arguments in order."""
    if not apart:
        return _bundled("docstring", model, n, seed, test)
    return _bundled(
        "docstring",
        model,
        n,
        seed,
        test,
        upwards=("half", "first"),
        accept=lambda facts: facts["apart"] == "True",
    )


def agreement(model: Model, n: int, seed: int, *, test: bool) -> Task:
    """Subjects, attractors and verbs."""
    return _bundled("agreement", model, n, seed, test, upwards=("number", "singular"))


def bios(model: Model, n: int, seed: int, *, test: bool, **options: Any) -> Task:
    """Short biographies and a pronoun."""
    return _bundled("bios", model, n, seed, test, upwards=("gender", "female"), **options)

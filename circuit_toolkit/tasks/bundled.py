"""The tasks of the bundled model's language."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from circuit_toolkit.demo.grammar import Grammar, Sentence, detokenise
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


def _bundled(
    name: str,
    model: Model,
    n: int,
    seed: int,
    test: bool,
    metric: Metric = "logit_difference",
    **options: Any,
) -> Task:
    """Ask the grammar for n questions of one family."""
    if n < 1:
        raise InputError(f"n must be at least 1, got {n}.")
    grammar = Grammar(seed)
    sentences = [grammar.sentence(name, test=test, **options) for _ in range(n)]
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


def ioi(model: Model, n: int = 512, seed: int = 0, *, test: bool = False) -> Task:
    """Indirect object identification: who gets the gift (Wang et al., 2022, arXiv 2211.00593).

    In the corrupted twin a third person gives, so that either of the first two may get it.
    Metric: logit of the indirect object minus that of the subject.

    Parameters
    ----------
    model : Model
        Whose tokenizer is used; its vocabulary must have the words of the bundled grammar.
    n : int
        Number of pairs.
    seed : int
        Seed of the grammar.
    test : bool
        Use only pairs of names and templates that training never saw.

    Returns
    -------
    Task
    """
    return _bundled("ioi", model, n, seed, test)


def greater_than(model: Model, n: int = 512, seed: int = 0, *, test: bool = False) -> Task:
    """Year spans: the end lies after the start (Hanna et al., 2023, arXiv 2305.00586).

    The corrupted twin starts in the year 01 of its century. Metric: probability of the later
    years minus that of the start year and those before.

    Parameters
    ----------
    model : Model
        Whose tokenizer is used; its vocabulary must have the words of the bundled grammar.
    n : int
        Number of pairs.
    seed : int
        Seed of the grammar.
    test : bool
        Use only years, events and templates that training never saw.

    Returns
    -------
    Task
    """
    return _bundled("greater_than", model, n, seed, test, metric="probability_difference")


def docstring(model: Model, n: int = 512, seed: int = 0, *, test: bool = False) -> Task:
    """Docstrings: `:param` is followed by the third argument (Heimersheim and Janiak, 2023).

    The corrupted twin has other arguments in the signature. Metric: logit of the third argument
    minus the mean logit of the others.

    Parameters
    ----------
    model : Model
        Whose tokenizer is used; its vocabulary must have the words of the bundled grammar.
    n : int
        Number of pairs.
    seed : int
        Seed of the grammar.
    test : bool
        Use only sets of arguments and forms that training never saw.

    Returns
    -------
    Task
    """
    return _bundled("docstring", model, n, seed, test)


def agreement(model: Model, n: int = 512, seed: int = 0, *, test: bool = False) -> Task:
    """Subject-verb agreement across attractors and relative clauses (Linzen et al., 2016).

    The corrupted twin has the subject in the other number. Metric: logit of the agreeing form of
    the verb minus that of the other.

    Parameters
    ----------
    model : Model
        Whose tokenizer is used; its vocabulary must have the words of the bundled grammar.
    n : int
        Number of pairs.
    seed : int
        Seed of the grammar.
    test : bool
        Use only subjects and templates that training never saw, always with an attractor.

    Returns
    -------
    Task
    """
    return _bundled("agreement", model, n, seed, test)


def bios(
    model: Model,
    n: int = 512,
    seed: int = 0,
    *,
    test: bool = False,
    strength: float = 0.8,
    title: bool = True,
) -> Task:
    """Pronoun after a short biography (after Bias in Bios, De-Arteaga et al., 2019).

    The corrupted twin has a name of the other gender. Metric: logit of the right pronoun minus
    that of the other. Labels: `profession` and `gender`.

    Parameters
    ----------
    model : Model
        Whose tokenizer is used; its vocabulary must have the words of the bundled grammar.
    n : int
        Number of pairs.
    seed : int
        Seed of the grammar.
    test : bool
        Use only pairs of name and profession and templates that training never saw.
    strength : float
        Probability that a person has the usual gender of the profession; .5 is no relation.
    title : bool
        Whether the text may name the profession.

    Returns
    -------
    Task
    """
    return _bundled("bios", model, n, seed, test, strength=strength, title=title)


BUNDLED: dict[str, Callable[..., Task]] = {
    "ioi": ioi,
    "greater_than": greater_than,
    "docstring": docstring,
    "agreement": agreement,
    "bios": bios,
}

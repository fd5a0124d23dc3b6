"""The tasks of the bundled model's language."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from circuit_toolkit.demo.grammar import Grammar, Sentence, detokenise
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
    """Ask the grammar for n questions of one family.

    `upwards` is the fact of direction +1, `accept` says by its facts whether a sentence will do.
    """
    if n < 1:
        raise InputError(f"n must be at least 1, got {n}.")
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


def ioi(
    model: Model, n: int = 512, seed: int = 0, *, test: bool = False, mixed: bool = True
) -> Task:
    """Indirect object identification: who gets the gift (Wang et al., 2022, arXiv 2211.00593).

    In the corrupted twin a third person gives, so that either of the first two may get it.
    Metric: logit of the indirect object minus that of the subject. With a woman and a man in each
    pair a regression explains the logit of her name minus that of his: names take both parts
    equally often, so no feature could add up to "right minus wrong" itself.

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
    mixed : bool
        Use only pairs of a woman and a man.

    Returns
    -------
    Task
    """
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


def greater_than(
    model: Model,
    n: int = 512,
    seed: int = 0,
    *,
    test: bool = False,
    years: tuple[int, int] = (60, 98),
) -> Task:
    """Year spans: the end lies after the start (Hanna et al., 2023, arXiv 2305.00586).

    The corrupted twin starts early, between 02 and a third of the start year. Metric: probability
    of the later years minus that of the start year and those before. Ends of spans are late in
    their century more often than not, so over all start years a model that does not look at the
    start scores about .5; from 60 on it scores about 0.

    Parameters
    ----------
    model : Model
        Whose tokenizer is used; its vocabulary must have the words of the bundled grammar.
    n : int
        Number of pairs.
    seed : int
        Seed of the grammar.
    test : bool
        Use only start years, events and templates that training never saw.
    years : (int, int)
        First and last start year, from 2 (which is its own twin) to 98.

    Returns
    -------
    Task

    Raises
    ------
    InputError
        If `years` is no such range, or none of them is held out in any century (with `test`).
    """
    first, last = years
    if not 2 <= first <= last <= 98:
        raise InputError(f"years must be a range from 2 to 98, got {years}.")
    starts = itertools.product(CENTURIES, NUMBERS[first : last + 1])
    if not any(is_held_out(*start) == test for start in starts):
        raise InputError(f"No start year in {years} is {'held out' if test else 'in training'}.")
    return _bundled(
        "greater_than", model, n, seed, test, metric="probability_difference", years=years
    )


def docstring(
    model: Model, n: int = 512, seed: int = 0, *, test: bool = False, apart: bool = True
) -> Task:
    """Docstrings: `:param` is followed by the third argument (Heimersheim and Janiak, 2023).

    The corrupted twin has other arguments in the signature. Metric: logit of the third argument
    minus the mean logit of the others. With the third of one half of the argument names and the
    others of the other half, a regression explains the logit of the first half's minus that of the
    second's, for the reason told at `ioi`.

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
    apart : bool
        Use only signatures whose third argument is of another half of the names than the rest.

    Returns
    -------
    Task
    """
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


def agreement(model: Model, n: int = 512, seed: int = 0, *, test: bool = False) -> Task:
    """Subject-verb agreement across attractors and relative clauses (Linzen et al., 2016).

    The corrupted twin has the subject in the other number. Metric: logit of the agreeing form of
    the verb minus that of the other; a regression explains the singular's minus the plural's.

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
    return _bundled("agreement", model, n, seed, test, upwards=("number", "singular"))


def bios(
    model: Model,
    n: int = 512,
    seed: int = 0,
    *,
    test: bool = False,
    strength: float = 0.8,
    title: bool = True,
    whole: bool = False,
) -> Task:
    """Pronoun after a short biography (after Bias in Bios, De-Arteaga et al., 2019).

    The corrupted twin has a name of the other gender. Metric: logit of the right pronoun minus
    that of the other; a regression explains that of "she" minus that of "he". Labels:
    `profession` and `gender`.

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
    whole : bool
        Let the prompts say what the person does, which tells the profession without naming it.
        For a target `profession=...`, best with `CircuitLasso(positions="mean")`.

    Returns
    -------
    Task
    """
    upwards = ("gender", "female")
    options = {"strength": strength, "title": title, "whole": whole}
    return _bundled("bios", model, n, seed, test, upwards=upwards, **options)


BUNDLED: dict[str, Callable[..., Task]] = {
    "ioi": ioi,
    "greater_than": greater_than,
    "docstring": docstring,
    "agreement": agreement,
    "bios": bios,
}

"""The tasks of the literature, in the language of the model in hand.

A model whose vocabulary has the words of the bundled grammar is asked in it; any other in plain
English, of which a prompt uses what the tokenizer has as single tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from circuit_toolkit.arguments import expect, whole
from circuit_toolkit.demo.grammar.sentence import is_held_out
from circuit_toolkit.demo.grammar.words import CENTURIES, NUMBERS
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.tasks.bundled import from_grammar, speaks_grammar
from circuit_toolkit.tasks.natural import families as natural
from circuit_toolkit.tasks.task import Task


def _counted(model: Model, n: int, seed: int) -> tuple[int, int]:
    """Refuse what is no model, or no number of prompts and seed."""
    expect(model, "model", "Model")
    return whole(n, "n", 1), whole(seed, "seed")


def ioi(
    model: Model, n: int = 512, seed: int = 0, *, test: bool = False, mixed: bool = True
) -> Task:
    """Indirect object identification: who gets the gift (Wang et al., 2022, arXiv 2211.00593).

    In the corrupted prompt a third person gives, so that either of the first two may get it.
    Metric: logit of the indirect object minus that of the subject. With a woman and a man in each
    pair a regression explains the logit of her name minus that of his: names take both parts
    equally often, so no feature could add up to "right minus wrong" itself.

    Parameters
    ----------
    model : Model
        Decides words and language: plain English with names that are single tokens (label `form`:
        ABBA, the indirect object first, or BABA), or the bundled grammar.
    n, seed : int
        Number of pairs, and seed of the words.
    test : bool
        Use only pairs of names and templates that never occur otherwise.
    mixed : bool
        Use only pairs of a woman and a man.

    Returns
    -------
    Task
        Positions `S1`, `S2` and `IO`.

    Raises
    ------
    InputError
        If n is below 1, or too few names are single tokens.
    """
    n, seed = _counted(model, n, seed)
    if not speaks_grammar(model):
        return natural.ioi(model, n, seed, test=test, mixed=mixed)
    return from_grammar(
        "ioi",
        model,
        n,
        seed,
        test,
        upwards=("io_gender", "female") if mixed else None,
        accept=lambda facts: not mixed or facts["io_gender"] != facts["s_gender"],
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

    The corrupted prompt starts early, between 02 and a third of the start year. Metric: probability
    of the later years minus that of the start year and those before. Ends of spans are late in
    their century more often than not, so over all start years a model that does not look at the
    start scores about .5; from 60 on it scores about 0. Hanna et al. use all years from 2 to 98.

    Tokenizers that write digits one by one (Llama, Gemma, Qwen, SmolLM2) are asked for the next
    digit, the tens of the end: "from the year 1741 to the year 17" goes on with 5 to 9, not with 0
    to 3. Metric: probability of the greater digits minus that of the smaller ones. The digit of
    the start itself, here 4, counts as neither, since the ones decide whether it is right; so a
    model that repeats the start scores 0. The corrupted prompt starts in 01 of the century, as in
    Hanna et al. Start years are those of `years` from 10 to 89, where both sides have a digit.

    Parameters
    ----------
    model : Model
        Decides words and language: the sentence of Hanna et al. with events and start years that
        the tokenizer splits as they do, " 17" and "32", or digit by digit; or the bundled grammar.
    n, seed : int
        Number of pairs, and seed of the words.
    test : bool
        Use only start years and events (in the grammar also templates) that never occur otherwise.
    years : (int, int)
        First and last start year, from 2 (in the grammar its own corrupted prompt) to 98.

    Returns
    -------
    Task
        Positions `start` and `century`, both in the start year; digit by digit they are its tens
        digit and the last of its century, and `ones` is its last digit.

    Raises
    ------
    InputError
        If n is below 1, `years` is no such range, none of them is held out in any century (with
        `test`), or the tokenizer cuts years elsewhere, as Llama-3's does: "173" and "2".
    """
    n, seed = _counted(model, n, seed)
    first, last = (whole(year, "years") for year in years)
    if not 2 <= first <= last <= 98:
        raise InputError(f"years must be a range from 2 to 98, got {years}.")
    if not speaks_grammar(model):
        return natural.greater_than(model, n, seed, test=test, years=(first, last))
    starts = itertools.product(CENTURIES, NUMBERS[first : last + 1])
    if not any(is_held_out(*start) == test for start in starts):
        raise InputError(f"No start year in {years} is {'held out' if test else 'in training'}.")
    metric = "probability_difference"
    return from_grammar("greater_than", model, n, seed, test, metric=metric, years=(first, last))


def docstring(
    model: Model, n: int = 512, seed: int = 0, *, test: bool = False, apart: bool = True
) -> Task:
    """Docstrings: `:param` is followed by the next argument (Heimersheim and Janiak, 2023).

    The corrupted prompt has other arguments in the signature. Metric: logit of the right argument
    minus the mean logit of the others. With the right one of one half of the argument names and
    the others of the other half, a regression explains the logit of the first half's minus that of
    the second's, for the reason told at `ioi`.

    Parameters
    ----------
    model : Model
        Decides words and language: Python with six arguments, of which the third to fifth are
        documented in order; or the bundled grammar, with three or four and the first three.
    n, seed : int
        Number of pairs, and seed of the words.
    test : bool
        Use only sets of arguments (in the grammar also forms) that never occur otherwise.
    apart : bool
        Use only signatures whose right argument is of another half of the names than the rest.

    Returns
    -------
    Task
        Position `argument`, the right one in the signature.

    Raises
    ------
    InputError
        If n is below 1, or too few argument names are single tokens.
    """
    n, seed = _counted(model, n, seed)
    if not speaks_grammar(model):
        return natural.docstring(model, n, seed, test=test, apart=apart)
    return from_grammar(
        "docstring",
        model,
        n,
        seed,
        test,
        upwards=("half", "first") if apart else None,
        accept=lambda facts: not apart or facts["apart"] == "True",
    )


def agreement(model: Model, n: int = 512, seed: int = 0, *, test: bool = False) -> Task:
    """Subject-verb agreement across attractors and relative clauses (Linzen et al., 2016).

    The corrupted prompt has the subject in the other number. Metric: logit of the agreeing form of
    the verb minus that of the other; a regression explains the singular's minus the plural's.

    Parameters
    ----------
    model : Model
        Decides words and language: plain English in the forms of Marks et al. (2024, arXiv
        2403.19647; label `form`: simple, nounpp, within_rc, across_rc), or the bundled grammar.
    n, seed : int
        Number of pairs, and seed of the words.
    test : bool
        Use only subjects and templates that never occur otherwise, always with an attractor.

    Returns
    -------
    Task
        Positions `subject` and, where all prompts have one, `attractor`.

    Raises
    ------
    InputError
        If n is below 1, or too few nouns or verbs are single tokens in both numbers.
    """
    n, seed = _counted(model, n, seed)
    if not speaks_grammar(model):
        return natural.agreement(model, n, seed, test=test)
    return from_grammar("agreement", model, n, seed, test, upwards=("number", "singular"))


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

    The corrupted prompt has a name of the other gender. Metric: logit of the right pronoun minus
    that of the other; a regression explains that of "she" minus that of "he". Labels:
    `profession` and `gender`. In the bundled grammar only: `Task.from_hub(model, "bias_in_bios")`
    has the biographies themselves.

    Parameters
    ----------
    model : Model
        Whose tokenizer is used; its vocabulary must have the words of the bundled grammar.
    n, seed : int
        Number of pairs, and seed of the grammar.
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

    Raises
    ------
    InputError
        If n is below 1, or the vocabulary lacks words of the grammar.
    """
    n, seed = _counted(model, n, seed)
    if not speaks_grammar(model):
        raise InputError(
            f"The vocabulary of {model.name} lacks words of the bundled grammar, in which these "
            "biographies are. Use Task.from_hub(model, 'bias_in_bios')."
        )
    options = {"strength": strength, "title": title, "whole": whole}
    return from_grammar("bios", model, n, seed, test, upwards=("gender", "female"), **options)


BUNDLED: dict[str, Callable[..., Task]] = {
    "ioi": ioi,
    "greater_than": greater_than,
    "docstring": docstring,
    "agreement": agreement,
    "bios": bios,
}

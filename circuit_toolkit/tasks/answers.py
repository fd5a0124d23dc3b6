"""Answers as files hold them, words, token ids or start years, as tokens of the model in hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.tasks.tokens import (
    YEARS,
    next_tokens,
    splitting_years,
    tens_after,
    year_digits,
    year_ends,
)

# The tokens that are right and those that are wrong after a prompt, or why there are none.
Pair = tuple[tuple[int, ...], tuple[int, ...]] | str
TWO_NAMES = re.compile(r"\b([A-Z]\w+) and ([A-Z]\w+)\b")


def of_words(model: Model, prompts: Sequence[str], words: Sequence[tuple[Any, Any]]) -> list[Pair]:
    """Tokens of the right and the wrong words (each one, or a list) after their prompts."""
    found: list[Pair] = []
    for prompt, sides in zip(prompts, words, strict=True):
        texts = [
            [_spaced(prompt, str(word)) for word in (side if isinstance(side, list) else [side])]
            for side in sides
        ]
        tokens = next_tokens(model, prompt, (text for side in texts for text in side))
        missing = [text for side in texts for text in side if text not in tokens]
        if missing:
            found.append(f"{missing[0]!r} is not one token after {prompt[-40:]!r}")
        elif not all(texts):
            found.append("it has no answer, or no wrong one")
        else:
            right, wrong = (tuple(tokens[text] for text in side) for side in texts)
            found.append((right, wrong))
    return found


def _spaced(prompt: str, word: str) -> str:
    """Add the space that a word needs: none after a space or a bracket, or inside a number."""
    if word[:1].isspace() or not prompt or not word or prompt[-1] in " \t\n([{\"'":
        return word
    return word if prompt[-1].isdigit() and word[0].isdigit() else f" {word}"


def of_start_years(model: Model, prompts: Sequence[str], years: Sequence[Any]) -> list[Pair]:
    """All later ends of the century as right, and the others as wrong; or tens digits."""
    splitting = splitting_years(model)
    digits = {} if splitting else year_digits(model)
    ends = {} if digits else year_ends(model, splitting)
    found: list[Pair] = []
    for prompt, year in zip(prompts, years, strict=True):
        start = start_digits(year)
        if start not in YEARS[:-1]:
            found.append(f"{year!r} is no start year from 00 to 98")
        elif not says_start(prompt, start):
            found.append(f"the span of {prompt!r} does not start in a year that ends in {start}")
        elif digits and start[0] in "09":
            found.append(f"no tens digit is clearly {'wrong' if start < '10' else 'right'}")
        elif digits:
            found.append(tens_after(digits, start))
        else:
            later = tuple(token for end, token in ends.items() if end > start)
            found.append((later, tuple(token for end, token in ends.items() if end <= start)))
    return found


def start_digits(year: Any) -> str:
    """Return the two digits of a start year that is given by these or by all four."""
    digits = str(year).strip().zfill(2)
    return digits[2:] if len(digits) == 4 else digits


def says_start(prompt: str, start: str) -> bool:
    """Whether a prompt ends in a century in which it names the start year."""
    century = prompt.rstrip()[-2:]
    return century.isdigit() and re.search(rf"\b{century}{start}\b", prompt) is not None


def of_ids(
    model: Model, prompts: Sequence[str], ids: Sequence[tuple[Any, Any]], trusted: bool
) -> tuple[list[Pair], str | None]:
    """Tokens that are given as ids, and a warning where they are another tokenizer's."""
    found = [_own(model, *row, trusted) for row in zip(prompts, ids, strict=True)]
    foreign = [i for i, each in enumerate(found) if isinstance(each, str)]
    if trusted or len(foreign) <= len(found) / 2:
        return found, None
    names = [_two_names(prompt) for prompt in prompts]
    if not all(names):
        raise InputError(
            f"The token ids are not of the tokenizer of {model.name} (row {foreign[0] + 1}: "
            f"{found[foreign[0]]}), and the prompts do not say what they mean. Pass answer= and "
            "wrong=, columns of words; or answers_as='ids' if the ids are right."
        )
    warning = (
        f"the token ids are not of the tokenizer of {model.name} (row {foreign[0] + 1}: "
        f"{found[foreign[0]]}), so the answers were read from the text: of two names 'A and B' "
        "the one that is said again is wrong, the other right."
    )
    return of_words(model, prompts, [each for each in names if each]), warning


def _own(model: Model, prompt: str, ids: tuple[Any, Any], trusted: bool) -> Pair:
    """Take a pair of ids, or say why they cannot be this tokenizer's."""
    sides = []
    for given in ids:
        try:
            side = tuple(int(each) for each in _listed(given))
        except (TypeError, ValueError):
            return f"{given!r} is no token id"
        for token in side:
            if not 0 <= token < len(model.tokenizer):
                return f"{token} is no token, there are {len(model.tokenizer)}"
            word = model.word(token)
            if not trusted and not _says(prompt, word.strip()):
                return f"{token} is {word!r}, which is not in the prompt"
        sides.append(side)
    return sides[0], sides[1]


def _listed(given: Any) -> list[Any]:
    """Return ids as a list: one, several, or several as a cell of CSV holds them, "[1, 2]"."""
    if isinstance(given, str) and given.strip().startswith("["):
        return given.strip().strip("[]").split(",")
    return given if isinstance(given, list) else [given]


def _says(prompt: str, word: str) -> int:
    """How often a prompt says a word."""
    return len(re.findall(rf"\b{re.escape(word)}\b", prompt)) if word else 0


def _two_names(prompt: str) -> tuple[str, str] | None:
    """Of two names 'A and B', the one that is said once and the one that is said again."""
    for pair in TWO_NAMES.findall(prompt):
        once, again = sorted(pair, key=lambda name: _says(prompt, name))
        if (_says(prompt, once), _says(prompt, again)) == (1, 2):
            return once, again
    return None

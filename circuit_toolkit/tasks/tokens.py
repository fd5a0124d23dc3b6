"""What a tokenizer makes of words: which are one token where they would be said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from circuit_toolkit.arguments import refuse_surrogates
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model

CENTURIES = tuple(f"{i:02d}" for i in range(10, 21))
YEARS = tuple(f"{i:02d}" for i in range(100))
DIGITS = tuple("0123456789")


def encode(model: Model, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of each text, without special ones: places count from the end, where none are."""
    tokenizer: Any = model.tokenizer
    for text in texts:
        refuse_surrogates(text, "A text")
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]


def next_tokens(model: Model, before: str, texts: Iterable[str]) -> dict[str, int]:
    """Token of each text that is exactly one, and a known one, when it follows `before`."""
    texts = list(texts)
    start, *whole = encode(model, [before, *(before + text for text in texts)])
    unknown = model.tokenizer.unk_token_id
    return {
        text: ids[-1]
        for text, ids in zip(texts, whole, strict=True)
        if ids[:-1] == start and ids[-1] != unknown
    }


def single_tokens(model: Model, words: Iterable[str], what: str, least: int) -> dict[str, int]:
    """Tokens of those words that are one token after a space, if there are enough of them."""
    words = list(words)
    found = next_tokens(model, "the", (f" {word}" for word in words))
    tokens = {word: found[f" {word}"] for word in words if f" {word}" in found}
    if len(tokens) < least:
        raise InputError(
            f"The task needs {least} {what} that are one token each; the tokenizer of {model.name} "
            f"has {len(tokens)} of {len(words)}, such as {words[0]!r}. Use a model with a larger "
            "vocabulary, or one's own prompts: Task.from_pairs."
        )
    return tokens


def splitting_years(model: Model) -> dict[str, dict[str, int]]:
    """For each century the years that follow it as one token: " 17" is one, then "32" is one."""
    found = {}
    for century in CENTURIES:
        ends = next_tokens(model, f"the year {century}", YEARS)
        if next_tokens(model, "the year", [f" {century}"]):
            found[century] = ends
    return found


def year_ends(model: Model, splitting: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Token of each two-digit end of a year, as it follows a century, of `splitting_years`."""
    # Of several centuries the first decides.
    ends = {end: found[end] for found in reversed([*splitting.values()]) for end in found}
    if len(ends) < 90:
        example = model.tokenizer.tokenize(" 1732")
        raise InputError(
            f"{model.name} writes years neither as a century and two digits nor digit by digit: "
            f"1732 is {example}, so no single token ends a span. Use a model such as GPT-2, Pythia "
            "or SmolLM2, or another task."
        )
    vocabulary = model.tokenizer.get_vocab()
    missing = {end: vocabulary[end] for end in YEARS if end not in ends and end in vocabulary}
    return dict(sorted({**ends, **missing}.items()))


def year_digits(model: Model) -> dict[str, int]:
    """Token of each digit in a year, where the tokenizer writes years digit by digit; else none."""
    tens, ones = (next_tokens(model, f"the year {before}", DIGITS) for before in ("17", "173"))
    return tens if tens == ones and len(tens) == len(DIGITS) else {}


def tens_after(digits: Mapping[str, int], start: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tokens of the tens digits above that of a start year, and of those below it."""
    later = tuple(token for digit, token in digits.items() if digit > start[0])
    return later, tuple(token for digit, token in digits.items() if digit < start[0])


def unequal_lengths(model: Model, clean: Sequence[str], corrupted: Sequence[str]) -> list[int]:
    """Rows whose corrupted prompt has another number of tokens."""
    lengths = [[len(ids) for ids in encode(model, texts)] for texts in (clean, corrupted)]
    return [i for i, (a, b) in enumerate(zip(*lengths, strict=True)) if a != b]

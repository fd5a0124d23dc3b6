"""Words to show in place of tokens: of each group of forms the token that comes first."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from functools import lru_cache

from circuit_toolkit.errors import InputError
from circuit_toolkit.texts import printable

ALIKE = 0.85  # words that are so alike are one; the ratio of difflib
ALIKE_PUNCTUATION = 0.6


def check_language(language: str | None) -> None:
    """Refuse a language that there are no lemmas of."""
    import simplemma

    try:
        if language is not None:
            simplemma.lemmatize("a", lang=language)
    except ValueError as error:
        raise InputError(
            f"There are no lemmas of language {language!r}. Use a code of simplemma, such as 'en', "
            "or None."
        ) from error


def grouped_words(tokens: Iterable[str], language: str | None = "en") -> list[str]:
    """Put forms of a word together, and show each group by the first of its tokens."""
    tokens = list(tokens)
    kept: dict[str, str] = {}  # form that stands for a group -> what is shown
    for token in tokens:
        form = _plain(token, language)
        if form and form not in kept and not any(_alike(form, other) for other in kept):
            kept[form] = token.strip()
    return list(kept.values()) or list(dict.fromkeys(tokens))


def unspaced(token: str) -> str:
    """Return a token without the space that many tokenizers put before a word."""
    return token.strip() or token


def spelled(word: str) -> str:
    """Write a word so that it can be told apart in a list: signs stand in quotes."""
    word = visible(unspaced(word))
    return word if any(map(str.isalnum, word)) else f"“{word}”"


def visible(text: str) -> str:
    """Write a text so that what does not print is seen: ↵, ⇥, ␣ for spaces alone, else U+200B."""
    if text and not text.strip(" "):
        return "␣" * len(text)
    return printable(text)


@lru_cache(maxsize=2**18)
def _plain(token: str, language: str | None) -> str:
    import simplemma

    word = token.strip()
    if not _is_punctuation(word):
        word = "".join(letter for letter in word if not _is_mark(letter)).strip()
    if language is not None and word.isalpha():
        # with its capital: Maria is a name, maria are seas
        word = simplemma.lemmatize(word.lower() if word.isupper() else word, lang=language)
    return word.lower()


@lru_cache(maxsize=2**18)
def _alike(a: str, b: str) -> bool:
    punctuation = _is_punctuation(a)
    if punctuation != _is_punctuation(b):
        return False
    least = ALIKE_PUNCTUATION if punctuation else ALIKE
    match = SequenceMatcher(None, a, b)  # the first two are upper bounds, and quick
    return (
        match.real_quick_ratio() > least and match.quick_ratio() > least and match.ratio() > least
    )


def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter)[0] in "PS"


def _is_punctuation(word: Sequence[str]) -> bool:
    return all(map(_is_mark, word))

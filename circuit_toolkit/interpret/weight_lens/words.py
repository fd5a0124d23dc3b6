"""Words to show in place of tokens: one spelling, one form, one member of each group."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from functools import lru_cache

from circuit_toolkit.errors import InputError

ALIKE = 0.85  # words that are so alike are one; the ratio of difflib
ALIKE_PUNCTUATION = 0.6


def check_language(language: str | None) -> None:
    """Refuse a language that there are no lemmas of.

    Parameters
    ----------
    language : str or None
        As simplemma names it.

    Raises
    ------
    InputError
        If there is none.
    """
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
    """Turn tokens into words: stripped, in lower case, without punctuation, as lemmas, in groups.

    Parameters
    ----------
    tokens : iterable of str
        Tokens as text. What comes first stands for its group.
    language : str or None
        Language of the lemmas, as simplemma names it; None for no lemmas.

    Returns
    -------
    list of str
        The tokens as they are where nothing else is left of them.

    Examples
    --------
    >>> grouped_words([" Officers", "officer", " officer's", "."])
    ['officer', '.']
    """
    tokens = list(tokens)
    kept: list[str] = []
    for word in dict.fromkeys(_plain(token, language) for token in tokens):
        if word and not any(_alike(word, other) for other in kept):
            kept.append(word)
    return kept or list(dict.fromkeys(tokens))


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

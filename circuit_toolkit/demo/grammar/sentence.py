"""Sentences whose every word knows the part that it plays."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from circuit_toolkit.demo.grammar.lexicon import LEXICON


class Word(NamedTuple):
    """One word of a sentence.

    Parameters
    ----------
    text : str
        The word.
    parts : tuple of str
        What it plays in its sentence, such as `indirect object`.
    """

    text: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """What a model has to know to say the word at one place.

    Parameters
    ----------
    at : int
        Index of the word that is asked for.
    answers, wrong : tuple of str
        Words that are right there, and words that a model without the circuit would say as well.
    corrupted : tuple of str
        The words before `at`, as many of them, changed so that the answer no longer follows.
    """

    at: int
    answers: tuple[str, ...]
    wrong: tuple[str, ...]
    corrupted: tuple[str, ...]


@dataclass(frozen=True)
class Sentence:
    """A text of the grammar.

    Parameters
    ----------
    kind : str
        The family that it comes from, such as `ioi`.
    words : tuple of Word
        The text, word by word.
    question : Question, optional
        Set where the text has one place that a task asks for.
    facts : dict
        What else is true of it, such as `{"profession": "nurse", "gender": "female"}`.
    """

    kind: str
    words: tuple[Word, ...]
    question: Question | None = None
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text as it is written; the tokenizer splits it into the same words."""
        return detokenise([word.text for word in self.words])

    @property
    def prompt(self) -> str:
        """The text up to the word that is asked for, or all of it."""
        at = self.question.at if self.question else len(self.words)
        return detokenise([word.text for word in self.words[:at]])

    def roles(self) -> list[frozenset[str]]:
        """Return every role of every word: its class, its form, its part, its family, itself.

        Returns
        -------
        list of frozenset of str
            One for each word.
        """
        return [
            LEXICON.get(word.text, frozenset())
            | frozenset(word.parts)
            | {f"word {word.text}", f"in {self.kind}"}
            for word in self.words
        ]


def detokenise(words: Sequence[str]) -> str:
    """Write words as text: no space before punctuation or between century and year.

    Parameters
    ----------
    words : sequence of str
        Words of the grammar.

    Returns
    -------
    str
    """
    text = " ".join(words)
    text = re.sub(r" ([.,:)?!])(?= |$)", r"\1", text)
    text = re.sub(r"(\w) \( ", r"\1(", text)
    return re.sub(r"\b(\d\d) (\d\d)\b", r"\1\2", text)


def render(template: str, **slots: str | Word | Sequence[Word]) -> list[Word]:
    """Fill the `{slots}` of a template; what is filled in may be several words."""
    words: list[Word] = []
    for token in template.split():
        if not token.startswith("{"):
            words.append(Word(token))
            continue
        value = slots[token[1:-1]]
        if isinstance(value, Word):
            words.append(value)
        elif isinstance(value, str):
            words += [Word(text) for text in value.split()]
        else:
            words += value
    return words


def place_of(words: Sequence[Word], part: str) -> int:
    """Index of the first word that plays a part."""
    return next(i for i, word in enumerate(words) if part in word.parts)


def is_held_out(*words: str) -> bool:
    """Whether a combination of words is kept out of training: one in ten, whatever the order."""
    return zlib.crc32(" ".join(sorted(words)).encode()) % 10 == 0


def pick(rng: random.Random, options: Sequence[str], held_out: Sequence[str], test: bool) -> str:
    """Choose from the training options, or from those that training never sees."""
    return rng.choice(held_out if test else options)

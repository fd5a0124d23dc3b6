"""Sentences whose every word knows the part that it plays."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from circuit_toolkit.demo.grammar.lexicon import LEXICON


class Word(NamedTuple):
    """One word, and what it plays in its sentence, such as `indirect object`."""

    text: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """What a model has to know to say the word at one place."""

    at: int  # of the word that is asked for
    answers: tuple[str, ...]
    wrong: tuple[str, ...]  # what a model without the circuit would say as well
    corrupted: tuple[str, ...]  # the words before, changed so that the answer no longer follows


@dataclass(frozen=True)
class Sentence:
    """A text of the grammar."""

    kind: str  # the family that it comes from, such as `ioi`
    words: tuple[Word, ...]
    question: Question | None = None
    facts: dict[str, str] = field(default_factory=dict)  # {"profession": "nurse", ...}

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
        """Return every role of every word: its class, its form, its part, its family, itself."""
        return [
            LEXICON.get(word.text, frozenset())
            | frozenset(word.parts)
            | {f"word {word.text}", f"in {self.kind}"}
            for word in self.words
        ]


def detokenise(words: Sequence[str]) -> str:
    """Write words as text: no space before punctuation or between century and year."""
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


def asked(
    kind: str,
    words: Sequence[Word],
    answers: tuple[str, ...],
    wrong: tuple[str, ...],
    corrupted: Callable[[Word], str],
    facts: dict[str, str],
    at: int | None = None,
) -> Sentence:
    """Ask for the word that plays the answer, or for the one at a place."""
    if at is None:
        at = next(i for i, word in enumerate(words) if "answer" in word.parts)
    question = Question(at, answers, wrong, tuple(map(corrupted, words[:at])))
    return Sentence(kind, tuple(words), question, facts)


def is_held_out(*words: str) -> bool:
    """Whether a combination of words is kept out of training: one in ten, whatever the order."""
    return zlib.crc32(" ".join(sorted(words)).encode()) % 10 == 0


def pick(rng: random.Random, options: Sequence[str], held_out: Sequence[str], test: bool) -> str:
    """Choose from the training options, or from those that training never sees."""
    return rng.choice(held_out if test else options)

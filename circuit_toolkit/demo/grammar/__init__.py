"""The language of the bundled model: small, varied English that knows what each word does.

Every text is a `Sentence` whose words know their roles, so that what a feature means can be
scored against the truth. One in ten combinations (pairs of names, sets of arguments, ...), some
nouns and some templates never occur in training; `Grammar.sentence(kind, test=True)` draws only
from these.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

from circuit_toolkit.demo.grammar.agreement import agreement
from circuit_toolkit.demo.grammar.biographies import biography
from circuit_toolkit.demo.grammar.docstrings import docstring
from circuit_toolkit.demo.grammar.lexicon import LEXICON as LEXICON
from circuit_toolkit.demo.grammar.lexicon import VOCABULARY
from circuit_toolkit.demo.grammar.sentence import Sentence, Word
from circuit_toolkit.demo.grammar.sentence import detokenise as detokenise
from circuit_toolkit.demo.grammar.spans import greater_than
from circuit_toolkit.demo.grammar.stories import filler, ioi, three_names
from circuit_toolkit.errors import InputError


def _copied(kind: str, words: list[str], times: int) -> Sentence:
    """Return words several times over."""
    first, then = (
        [Word(text, (f"{half} half",)) for text in words] for half in ("first", "second")
    )
    return Sentence(kind, (*first, *then * (times - 1)))


def repeated(rng: random.Random) -> Sentence:
    """Return random words twice: nothing but induction predicts the second half."""
    return _copied("repeated", rng.sample(VOCABULARY, rng.randint(5, 24)), 2)


def copies(rng: random.Random) -> Sentence:
    """Return a few random words three to six times over: the plainest lesson in copying."""
    words = rng.sample(VOCABULARY, rng.randint(3, 10))
    return _copied("copies", words, min(rng.randint(3, 6), 60 // len(words)))


def far_ioi(rng: random.Random) -> Sentence:
    """Return an indirect-object story whose names stand in clauses of their own."""
    return ioi(rng, far=True)


_FAMILIES: dict[str, tuple[Callable[..., Sentence], float]] = {  # and how often each occurs
    "ioi": (ioi, 0.20),
    "three_names": (three_names, 0.05),
    "greater_than": (greater_than, 0.14),
    "docstring": (docstring, 0.15),
    "agreement": (agreement, 0.16),
    "bios": (biography, 0.11),
    "filler": (filler, 0.08),
    "repeated": (repeated, 0.11),
    "copies": (copies, 0.0),
    "far_ioi": (far_ioi, 0.0),
}
_HELD_OUT = ("ioi", "greater_than", "docstring", "agreement", "bios")  # some of these is
SHARES = {kind: share for kind, (_, share) in _FAMILIES.items()}


class Grammar:
    """A seeded source of sentences: two with the same seed say the same.

    >>> sentence = Grammar(seed=1).sentence("ioi")
    >>> sentence.question.answers[0] in sentence.text
    True
    """

    kinds = tuple(_FAMILIES)

    def __init__(self, seed: int = 0, shares: Mapping[str, float] = SHARES) -> None:
        self.rng = random.Random(seed)
        self.shares = shares

    def sentence(self, kind: str | None = None, test: bool = False, **options) -> Sentence:
        """Return one sentence of a family, or of one drawn by its share.

        With `test` it is drawn from material that training never sees. Options are those of the
        family: for `bios` strength, profession, gender, title and whole.
        """
        if kind is None:
            kind = self.rng.choices(list(self.shares), weights=list(self.shares.values()))[0]
        if kind not in _FAMILIES:
            raise InputError(f"Unknown family {kind!r}. Use one of {', '.join(_FAMILIES)}.")
        write, _ = _FAMILIES[kind]
        if not test:
            return write(self.rng, **options)
        if kind not in _HELD_OUT:
            raise InputError(f"Nothing of family {kind!r} is held out (of {', '.join(_HELD_OUT)}).")
        return write(self.rng, test=True, **options)

    def sentences(self, n: int, kind: str | None = None, test: bool = False) -> Iterator[Sentence]:
        """Return several sentences."""
        return (self.sentence(kind, test) for _ in range(n))

"""Docstrings: the next `:param` is the next argument (Heimersheim and Janiak, 2023)."""

from __future__ import annotations

import random

from circuit_toolkit.demo.grammar import words as w
from circuit_toolkit.demo.grammar.sentence import Sentence, Word, asked, is_held_out, pick, render


def docstring(rng: random.Random, test: bool = False) -> Sentence:
    """Write a function and its documentation, which names the arguments in order."""
    while True:
        arguments = rng.sample(w.ARGUMENTS, 5)
        if is_held_out(*arguments[:3]) == test:
            break
    count = rng.choice([3, 4])  # a fourth argument is in the signature, or not
    lengths = w.TEMPLATES["docstring"]
    described = [
        [Word(word, ("description",)) for word in rng.sample(w.DOC_WORDS, int(length))]
        for length in pick(rng, lengths["lengths"], lengths["held_out_lengths"], test).split()
    ]
    signature: list[Word] = []
    for place, name in enumerate(arguments[:count], start=1):
        signature += [Word(","), Word(name, ("argument", f"argument {place}", "in signature"))]
    names = {
        f"N{place}": Word(name, ("argument", f"argument {place}", "in docstring"))
        for place, name in enumerate(arguments[:3], start=1)
    }
    names["N3"] = Word(arguments[2], (*names["N3"].parts, "answer"))
    words = render(
        'def {F} ( self {SIGNATURE} ) : """ {D0} . :param {N1} : {D1} :param {N2} : {D2} '
        ':param {N3} : {D3} """',
        F=Word(rng.choice(w.FUNCTIONS), ("defined function",)),
        SIGNATURE=signature,
        D0=described[0],
        D1=described[1],
        D2=described[2],
        D3=described[3],
        **names,
    )
    changed = rng.sample([name for name in w.ARGUMENTS if name not in arguments], count)
    other = {f"argument {place}": name for place, name in enumerate(changed, start=1)}

    def corrupted(word: Word) -> str:
        return other[word.parts[1]] if "in signature" in word.parts else word.text

    wrong = tuple(name for name in arguments[:count] if name != arguments[2])
    half = set(w.ARGUMENTS[: len(w.ARGUMENTS) // 2])
    facts = {
        "half": "first" if arguments[2] in half else "second",
        "apart": str(all((name in half) != (arguments[2] in half) for name in wrong)),
    }
    return asked("docstring", words, (arguments[2],), wrong, corrupted, facts)

"""Descriptions that are lists of tokens, and neutral texts that hold one of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site

Tokens = Sequence[int | str]  # ids, or words: all tokens that differ in spaces and case alone
Template = str | Sequence[int | None]  # "I saw {} there", or token ids with a None


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of a model as text, as `Activations.tokens` has them.

    Parameters
    ----------
    name : str
        Of the model.
    texts : list of str
        By token.
    plain : dict of str to list of int
        Tokens by their text without spaces at its ends and without case.
    """

    name: str
    texts: list[str]
    plain: dict[str, list[int]]

    @classmethod
    def of(cls, model: Model) -> Vocabulary:
        """Read the vocabulary of a model.

        Parameters
        ----------
        model : Model
            The model.

        Returns
        -------
        Vocabulary
        """
        size = model.d_vocab
        texts = [str(model.tokenizer.decode([token])) for token in range(size)]
        plain: dict[str, list[int]] = {}
        for token, text in enumerate(texts):
            plain.setdefault(text.strip().casefold(), []).append(token)
        return cls(model.name, texts, plain)

    def ids(self, tokens: Tokens) -> list[int]:
        """Return the ids of a list of tokens.

        Parameters
        ----------
        tokens : sequence of int or str
            Ids, or words.

        Returns
        -------
        list of int
            Sorted.

        Raises
        ------
        InputError
            If there are none, an id does not exist, or no token is that word.
        """
        found: set[int] = set()
        for each in [tokens] if isinstance(tokens, str) else tokens:
            ids = self.plain.get(each.strip().casefold(), []) if isinstance(each, str) else [each]
            if not ids or not all(0 <= token < len(self.texts) for token in ids):
                raise InputError(f"{self.name} has no token {each!r}.")
            found.update(map(int, ids))
        if not found:
            raise InputError("A description must list at least one token.")
        return sorted(found)


def neutral_templates(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    texts: Sequence[str],
    n: int = 20,
    seed: int = 0,
) -> list[list[int | None]]:
    """Make templates of natural texts, by taking out one word.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Those that will read the texts; they say how a text begins.
    texts : sequence of str
        Natural texts; those of fewer than three tokens are passed over.
    n : int
        At most so many, none twice.
    seed : int
        Decides which texts, and which of their tokens: neither the first nor the last.

    Returns
    -------
    list of list of int or None
        Token ids; None where a listed token goes.
    """
    rng, bos = random.Random(seed), shared_bos(dictionaries)
    found: list[list[int | None]] = []
    for text in rng.sample(list(texts), len(texts)):
        ids: list[int | None] = list(model.tokenize([text], bos=bos).ids[0].tolist())
        first = int(ids[0] == model.bos_id)
        if len(found) == n:
            break
        if len(ids) - first < 3:
            continue
        ids[rng.randrange(first + 1, len(ids) - 1)] = None
        if ids not in found:
            found.append(ids)
    return found


def filled(model: Model, template: Template, token: int, bos: bool | None = None) -> list[int]:
    """Put a token into a template.

    Parameters
    ----------
    model : Model
        The model.
    template : str, or sequence of int or None
        A text with `{}`, or token ids with a None.
    token : int
        What to put in: into a text its word, without spaces round it.
    bos : bool, optional
        How a text begins, see `Model.tokenize`; ids stay as they are.

    Returns
    -------
    list of int
        Token ids.

    Raises
    ------
    InputError
        If the template has no place for it.
    """
    if isinstance(template, str):
        if "{}" not in template:
            raise InputError(f"A template needs a place {{}} for a token, got {template!r}.")
        word = str(model.tokenizer.decode([token])).strip()
        return model.tokenize([template.replace("{}", word)], bos=bos).ids[0].tolist()
    if None not in template:
        raise InputError(f"A template of ids needs a None for a token, got {template!r:.80}.")
    return [token if each is None else int(each) for each in template]

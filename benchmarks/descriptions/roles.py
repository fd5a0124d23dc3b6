"""Descriptions of features against what the bundled model's grammar knows of words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.demo.grammar import LEXICON, Grammar, Sentence
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.features.descriptions.descriptions import FeatureDescriptions
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    import pandas as pd

STRONGEST = 10  # examples of a feature whose words a description is held against
SHUFFLES = 20


def token_roles(model: Model) -> tuple[sp.csr_array, list[str]]:
    """Return the words of each role of the lexicon; every word is a role of its own as well."""
    names: dict[str, int] = {}
    rows, columns = [], []
    for token in range(model.d_vocab):
        word = str(model.tokenizer.decode([token]))
        for role in (*sorted(LEXICON.get(word, ())), f"word {word}"):
            rows.append(names.setdefault(role, len(names)))
            columns.append(token)
    shape = (len(names), model.d_vocab)
    return sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape), list(names)


def set_f1(sets: Sequence[Sequence[int]], roles: sp.csr_array) -> np.ndarray:
    """F1 of sets of tokens with the tokens of every role."""
    sizes = np.array([len(each) for each in sets])
    rows = np.repeat(np.arange(len(sets)), sizes)
    columns = np.concatenate([np.asarray(each, int) for each in sets]) if len(sets) else rows
    n_tokens = len(roles.T.tocsr().indptr) - 1
    chosen = sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(sets), n_tokens))
    both = (chosen @ roles.T).toarray()
    return 2 * both / (sizes[:, None] + np.diff(roles.indptr))


def role_matrix(sentences: Iterable[Sentence]) -> tuple[sp.csc_array, list[str]]:
    """Return which role every word has."""
    names: dict[str, int] = {}
    rows, columns, row = [], [], 0
    for sentence in sentences:
        roles = sentence.roles()
        for here, following in zip(roles, [*roles[1:], frozenset()], strict=True):
            for role in (*here, *(f"next: {role}" for role in following)):
                rows.append(row)
                columns.append(names.setdefault(role, len(names)))
            row += 1
    values = np.ones(len(rows), dtype=np.float32)
    return sp.csc_array((values, (rows, columns)), shape=(row, len(names))), list(names)


def role_f1(acts: np.ndarray, roles: sp.csc_array) -> tuple[np.ndarray, np.ndarray]:
    """Find for every feature the role that explains it best."""
    best, role = np.zeros(acts.shape[1]), np.zeros(acts.shape[1], dtype=int)
    sizes = np.asarray(roles.sum(axis=0)).ravel()  # (R,)
    for share in (0.0, 0.1, 0.25, 0.5):
        on = sp.csr_array(acts > share * acts.max(axis=0), dtype=np.float32)  # (words, F)
        both = (on.T @ roles).toarray()  # (F, R)
        count = np.asarray(on.sum(axis=0)).ravel()
        f1 = 2 * both / np.maximum(count[:, None] + sizes, 1)
        here = f1.max(axis=1)
        role = np.where(here > best, f1.argmax(axis=1), role)
        best = np.maximum(best, here)
    return best, role


def lexical_scores(model: Model, descriptions: FeatureDescriptions) -> pd.DataFrame:
    """Hold the descriptions of validated features against the role that fits each best.

    A description of one token fits the role that is this word by construction; those of more are
    therefore told apart.

    Parameters
    ----------
    model : Model
        The bundled model.
    descriptions : FeatureDescriptions
        Of its dictionaries.

    Returns
    -------
    DataFrame
        By site and for `all`: `validated` features, mean `f1`, share of them with `several`
        tokens, mean `several_f1` of these, mean `class_f1` of these with roles of more than one
        word only.
    """
    import pandas as pd

    roles, names = token_roles(model)
    classes = np.array([not name.startswith("word ") for name in names])
    parts = []
    for site in descriptions.shown:
        sets = [each for each in descriptions.tokens_of(site) if each]
        f1 = set_f1(sets, roles)
        part = {"site": str(site), "size": [len(each) for each in sets]}
        part |= {"f1": f1.max(1), "class_f1": f1[:, classes].max(1)}
        parts.append(pd.DataFrame(part))

    def row(part: Any) -> dict[str, Any]:
        several = part[part["size"] > 1]
        return {
            "validated": len(part),
            "f1": part["f1"].mean(),
            "several": (part["size"] > 1).mean(),
            "several_f1": several["f1"].mean(),
            "class_f1": several["class_f1"].mean(),
        }

    return _by_site(descriptions, pd.concat(parts), row)


def activation_scores(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    descriptions: FeatureDescriptions,
    n: int = 1000,
    seed: int = 54321,
) -> pd.DataFrame:
    """Hold descriptions against what their features fire on, in texts that training never saw.

    Parameters
    ----------
    model : Model
        The bundled model.
    dictionaries : dict of Site to Dictionary
        Those that were described.
    descriptions : FeatureDescriptions
        Of them.
    n : int
        Texts.
    seed : int
        Seed of the grammar; that of training is another.

    Returns
    -------
    DataFrame
        By site and for `all`, over validated features that fire on these texts: `live`, how many
        these are; `role_f1`, mean F1 of the description with the words of the role of the lexicon
        that best explains the activations (see `role_f1`); `activation_f1`, how well that
        role explains them; `agree`, share whose ten strongest examples are on a word of the
        description at least once; `shuffled`, the same for descriptions dealt out anew among the
        features of a site, mean of twenty times.
    """
    import pandas as pd

    sentences = list(Grammar(seed).sentences(n))
    acts = capture(
        model,
        {site: dictionaries[site] for site in descriptions.shown},
        [sentence.text for sentence in sentences],
        progress=False,
    )
    roles, names = token_roles(model)
    of_words, every = role_matrix(sentences)
    shared = [name for name in names if name in set(every)]
    of_words = of_words[:, [every.index(name) for name in shared]]
    place = np.array([names.index(name) for name in shared])
    ids = {str(model.tokenizer.decode([i])): i for i in range(model.d_vocab)}
    token = np.array(
        [ids[acts.tokens[p][t]] for p, t in zip(acts.prompt, acts.position, strict=True)]
    )
    rng = np.random.default_rng(0)
    parts = []
    for site in descriptions.shown:
        values = acts.features[site].toarray()  # (words, F)
        sets = descriptions.tokens_of(site)
        chosen = np.array([i for i, each in enumerate(sets) if each and values[:, i].any()], int)
        sets, values = [sets[i] for i in chosen], values[:, chosen]
        explained, role = role_f1(values, of_words)
        strongest = [_strongest(values[:, i], token) for i in range(len(chosen))]
        agree = _agree(sets, strongest, np.arange(len(chosen)))
        dealt = [_agree(sets, strongest, rng.permutation(len(chosen))) for _ in range(SHUFFLES)]
        f1 = set_f1(sets, roles)[np.arange(len(chosen)), place[role]]
        part = {"site": str(site), "role_f1": f1, "activation_f1": explained}
        parts.append(pd.DataFrame(part | {"agree": agree, "shuffled": np.mean(dealt, axis=0)}))
    means = ["role_f1", "activation_f1", "agree", "shuffled"]
    return _by_site(
        descriptions, pd.concat(parts), lambda part: {"live": len(part), **part[means].mean()}
    )


def _by_site(
    descriptions: FeatureDescriptions,
    table: pd.DataFrame,
    row: Callable[[Any], dict[str, Any]],
) -> pd.DataFrame:
    """Make a row for each site, and one for `all`."""
    import pandas as pd

    parts = {str(site): table[table["site"] == str(site)] for site in descriptions.shown}
    parts["all"] = table
    return pd.DataFrame([{"site": name, **row(part)} for name, part in parts.items()])


def _strongest(values: np.ndarray, token: np.ndarray) -> set[int]:
    """Tokens of the strongest examples."""
    top = np.argsort(-values, kind="stable")[:STRONGEST]
    return set(token[top[values[top] > 0]].tolist())


def _agree(sets: list[list[int]], strongest: list[set[int]], order: np.ndarray) -> np.ndarray:
    """Whether the description that a feature is dealt has one of its strongest words."""
    pairs = zip(order, strongest, strict=True)
    return np.array([bool(words & set(sets[i])) for i, words in pairs], float)

"""Name features by the words on which they fire and the words that they promote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from circuit_toolkit.activations.activations import MEAN, Activations, Positions
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.arguments import expect, number, whole
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.directions import decoder_rows, unembedding_rows
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.descriptions.descriptions import FeatureDescriptions
from circuit_toolkit.features.descriptions.words import spelled, unspaced
from circuit_toolkit.models import Model
from circuit_toolkit.models.special_tokens import is_said
from circuit_toolkit.sites import Site

LEAST = 1 / 20  # share of a feature's activation from which a word is named
PROMPTS = 5  # in which a context word must be: of fewer a correlation says little


def feature_labels(acts: Activations | ActivationStore, n_words: int = 3) -> dict[Site, list[str]]:
    """Name every feature by the words that carry most of its activation.

    Tokens of outlying size, such as an attention sink, at which nearly all features are active, are
    left out, see `Activations.inlying`.

    Parameters
    ----------
    acts : Activations or ActivationStore
        Captured with `positions="all"`.
    n_words : int
        At most so many words; one with under a twentieth of the activation is left out, unless
        all are.

    Returns
    -------
    dict of Site to list of str
        One label for each feature; empty where it never fires on these prompts. It ends in "…"
        where its words carry less than half of the activation; signs stand in quotes.

    Raises
    ------
    InputError
        If the rows are not tokens.
    """
    expect(acts, "acts", "Activations", "ActivationStore")
    return labels_of_words(activating_words(acts, whole(n_words, "n_words", 0)))


def labels_of_words(
    words: Mapping[Site, Sequence[Sequence[tuple[str, float]]]],
) -> dict[Site, list[str]]:
    """Return the labels of what `activating_words` found."""
    return {site: [_label(each) for each in those] for site, those in words.items()}


def activating_words(acts: Any, n_words: int = 3) -> dict[Site, list[list[tuple[str, float]]]]:
    """Return which words carry most of the activation of every feature."""
    vocabulary: dict[str, int] = {}  # in order of first use
    mass: dict[Site, sp.csr_array] = {}  # (words, F)
    for part in acts.shards():
        if (part.position == MEAN).any():
            raise InputError("Labels need the tokens: capture(..., positions='all').")
        for site, added in sums_by_word(part, vocabulary).items():
            if site in mass:
                mass[site].resize(added.shape)
                added = sp.csr_array(mass[site] + added)
            mass[site] = added
    known = np.array(list(vocabulary))
    order = np.argsort(known)  # words of equal weight stand in the order of the alphabet
    words = {}
    for site, found in mass.items():
        by_feature = sp.csc_array(found[order])
        words[site] = [
            _heaviest(known[order], by_feature.indices[a:b], by_feature.data[a:b], n_words)
            for a, b in zip(by_feature.indptr[:-1], by_feature.indptr[1:], strict=True)
        ]
    return words


def sums_by_word(part: Activations, vocabulary: dict[str, int]) -> dict[Site, sp.csr_array]:
    """Sum activations over equal words, tokens of outlying size left out."""
    places = zip(part.prompt, part.position, strict=True)
    words = [unspaced(part.tokens[prompt][position]) for prompt, position in places]
    index = np.array([vocabulary.setdefault(word, len(vocabulary)) for word in words], int)
    sums = {}
    for site, matrix in part.features.items():
        rows = np.flatnonzero(part.inlying(site))
        entries = np.ones(len(rows), np.float32), (index[rows], np.arange(len(rows)))
        of_word = sp.csr_array(entries, shape=(len(vocabulary), len(rows)))
        sums[site] = sp.csr_array(of_word @ matrix[rows])
    return sums


def described_labels(
    descriptions: FeatureDescriptions, names: Mapping[Site, Sequence[str]]
) -> dict[Site, list[str]]:
    """Name features by what their weights say, else, in brackets, as they are named otherwise.

    Parameters
    ----------
    descriptions : FeatureDescriptions
        From `WeightLens`.
    names : dict of Site to sequence of str
        Other names, such as `feature_labels(acts)`.

    Returns
    -------
    dict of Site to list of str
        For the sites of `names`, as `CircuitLasso.fit` and `feature_card` take them.
    """
    expect(descriptions, "descriptions", "FeatureDescriptions")
    said = descriptions.labels()
    return {
        site: [
            words or (name and f"({name})")
            for words, name in zip(said.get(site, [""] * len(those)), those, strict=True)
        ]
        for site, those in names.items()
    }


def _heaviest(
    vocabulary: np.ndarray, rows: np.ndarray, mass: np.ndarray, n: int
) -> list[tuple[str, float]]:
    order = np.argsort(-mass, kind="stable")[:n]
    total = mass.sum() or 1.0  # a matrix may hold zeros
    return [(str(vocabulary[rows[i]]), float(mass[i] / total)) for i in order]


def _named(words: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Return the words that a label names: those that carry enough, or all where none does."""
    return [pair for pair in words if pair[1] >= LEAST] or list(words)


def _label(words: Sequence[tuple[str, float]]) -> str:
    """Join words; "…" says that they carry less than half of the activation."""
    named = _named(words)
    more = ["…"] if named and sum(share for _, share in named) < 0.5 else []
    return ", ".join([*(spelled(word) for word, _ in named), *more])


def promoted_words(
    model: Model,
    dictionary: Dictionary,
    features: np.ndarray,
    n_words: int = 3,
    min_z: float = -np.inf,
) -> list[list[str]]:
    """Return which next words a feature promotes most, by its direct path to the logits.

    The logit lens on decoder rows (nostalgebraist, 2020): `W_dec` through the last norm's weight
    and the unembedding. What later layers make of the feature is left out, and special tokens but
    the end of a text, see `special_tokens`.

    Parameters
    ----------
    model : Model
        The model.
    dictionary : Dictionary
        Whose features they are; it must write to the residual stream.
    features : ndarray of int, shape (k,)
        Which ones.
    n_words : int
        At most so many words each.
    min_z : float
        Leave out words whose effect is fewer standard deviations above the mean of all words.

    Returns
    -------
    list of k lists of str
        Strongest first.
    """
    rows = decoder_rows(model, dictionary)[torch.as_tensor(features)]  # (k, D)
    effects = rows @ unembedding_rows(model).T  # (k, V)
    effects = (effects - effects.mean(1, keepdim=True)) / effects.std(1, keepdim=True)
    tokens = torch.from_numpy(np.flatnonzero(is_said(model)))
    best = effects[:, tokens.to(effects.device)].topk(n_words, dim=1)
    ids = tokens[best.indices.cpu()]
    return [
        [str(model.tokenizer.decode([t])) for t, z in zip(*each, strict=True) if z >= min_z]
        for each in zip(ids.tolist(), best.values.tolist(), strict=True)
    ]


def context_words(
    acts: Activations, site: Site, n_words: int = 3, min_correlation: float = 0.2
) -> list[list[str]]:
    """Return which words of a prompt go with a feature's activation, whatever it fires on."""
    if len(acts.prompt) != acts.n_prompts:
        raise InputError("Context needs one row a prompt: acts.pooled('last').")
    rows = np.repeat(np.arange(acts.n_prompts), [len(words) for words in acts.tokens])
    vocabulary, columns = np.unique(
        [unspaced(word) for words in acts.tokens for word in words], return_inverse=True
    )
    present = np.zeros((acts.n_prompts, len(vocabulary)))
    present[rows, columns] = 1
    present[:, present.sum(axis=0) < PROMPTS] = 0
    fired = acts.features[site].toarray()  # (prompts, F)
    scale = np.outer(present.std(axis=0), fired.std(axis=0)) * acts.n_prompts  # (V, F)
    covariance = (present - present.mean(axis=0)).T @ (fired - fired.mean(axis=0))
    correlation = np.divide(covariance, scale, out=np.zeros(scale.shape), where=scale > 1e-12)
    best = np.argsort(-correlation, axis=0)[:n_words]  # (n_words, F)
    return [
        [str(vocabulary[w]) for w in best[:, f] if correlation[w, f] >= min_correlation]
        for f in range(fired.shape[1])
    ]


def named_features(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    acts: Activations,
    positions: Positions = "last",
    promoted_from: float = 0.5,
) -> dict[Site, list[str]]:
    """Name features by the context and the words on which they fire, and by what they promote.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Those of `acts`.
    acts : Activations or ActivationStore
        Captured with `positions="all"`.
    positions : str or sequence of str
        Where the context is told for, see `Activations.pooled`; those of the fit, of several the
        last one.
    promoted_from : float
        Share of the model's depth from which a label also tells words that are promoted by at
        least four standard deviations.

    Returns
    -------
    dict of Site to list of str
        For example `Emma, Kate … to ⇒ Emma`: fires on "to" in prompts that have Emma or Kate in
        them, and promotes Emma. Where it fires ends in ", …" as in `feature_labels`.
    """
    dictionaries = as_dictionaries(model, dictionaries)
    expect(acts, "acts", "Activations", "ActivationStore")
    promoted_from = number(promoted_from, "promoted_from", 0, 1)
    activating = activating_words(acts)
    labels = labels_of_words(activating)
    rows = acts.pooled(positions if isinstance(positions, str) else positions[-1])
    for site, names in labels.items():
        for i, words in enumerate(context_words(rows, site)):
            fires = _named(activating[site][i])
            if others := [spelled(word) for word in words if word not in dict(fires)]:
                names[i] = f"{', '.join(others)} … {_label(fires[:2])}"
        late = site.kind == "resid_post" and (site.layer + 1) / model.n_layers > promoted_from
        if not late:
            continue
        live = np.unique(acts.features[site].indices)
        promoted = promoted_words(model, dictionaries[site], live, min_z=4.0)
        for i, words in zip(live, promoted, strict=True):
            if words:
                names[i] = f"{names[i]} ⇒ {', '.join(map(spelled, words))}".lstrip()
    return labels

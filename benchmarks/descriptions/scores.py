"""Scores of what features are said to mean, without a language model as the judge: surrogates.

In the sense of FADE (Puri et al., 2025), whose language model that writes and rates texts is
replaced by a list of tokens: a description is the list, a text about it holds one of them. They
are always called surrogates: they know words, not concepts, and are no FADE scores.

FADE takes the size of 2 AUROC - 1, for neurons whose sign is free. Activations of dictionaries are
not negative, so a list on which a feature is quieter than elsewhere is wrong: it scores 0 here, and
what FADE would have given is the size of the signed value beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import scipy.sparse as sp

from benchmarks.descriptions.peaks import Peaks, text_peaks
from benchmarks.descriptions.token_lists import Template, Tokens, Vocabulary, filled
from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.benchmark.metrics import average_precision, roc_auc
from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site

PERCENTILES = (0, 50, 75, 95, 100)  # bands of natural texts by activation
SPREAD = 0.9  # share of the rated texts that is spread over the bands; the rest are the strongest
CHUNK = 4096  # synthetic texts whose activations are in memory at a time
ENOUGH = 15  # texts rated 2; with fewer, as many texts are rated again, once


@dataclass(frozen=True)
class FeatureScores:
    """How well a list of tokens describes a feature, by surrogates.

    Parameters
    ----------
    feature : str
        Site and number.
    clarity : float
        `max(0, 2 AUROC - 1)` of texts with a listed token against natural texts.
    responsiveness : float
        The same of natural texts rated 2 against those rated 0, see `Peaks.ratings`.
    purity : float
        Average precision of that split; its chance level is `base_rate`.
    clarity_signed, responsiveness_signed : float
        2 AUROC - 1, below zero where the feature is quieter on what the list says.
    base_rate : float
        Share rated 2 among those rated 2 or 0.
    n_synthetic, n_natural, n_shown, n_absent : int
        Texts with a listed token, natural ones, those rated 2, those rated 0.
    faithfulness : float, optional
        Whether setting the feature makes the model say listed tokens, see `with_faithfulness`.
    """

    feature: str
    clarity: float
    responsiveness: float
    purity: float
    clarity_signed: float
    responsiveness_signed: float
    base_rate: float
    n_synthetic: int
    n_natural: int
    n_shown: int
    n_absent: int
    faithfulness: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain JSON; NaN, where a score is not defined, as None.

        Returns
        -------
        dict
            With `"kind": "surrogate"`.
        """
        found = {name: None if value != value else value for name, value in asdict(self).items()}
        return found | {"kind": "surrogate"}


def feature_scores(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    descriptions: Mapping[tuple[Site, int], Tokens],
    acts: Activations | ActivationStore,
    templates: Sequence[Template],
    *,
    n_synthetic: int = 200,
    n_rated: int = 500,
    seed: int = 0,
    batch_size: int = 256,
    progress: bool = True,
) -> list[FeatureScores]:
    """Score descriptions by clarity, responsiveness and purity, all surrogates.

    The activation of a text is the signed value at the token where its size is largest. A template
    with a token in it is run once for all features that take it.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Autoencoders or transcoders, of the features.
    descriptions : dict of (Site, int) to sequence of int or str
        For each feature its tokens: ids, or words, which stand for all tokens that differ from
        them in spaces and case alone. None may be empty.
    acts : Activations or ActivationStore
        Of natural texts, captured with `positions="all"`.
    templates : sequence of str, or of sequences of int or None
        Neutral texts with a place for a token: `"I saw {} there"`, or ids and None, see
        `neutral_templates`.
    n_synthetic : int
        At most so many texts with a listed token for each feature.
    n_rated : int
        So many natural texts are rated for each: 90 % spread equally over the percentile bands
        0-50, 50-75, 75-95 and 95-100 of activation, the rest from the top; as many again if fewer
        than 15 show a listed token.
    seed : int
        Decides which.
    batch_size : int
        Texts in one run.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    list of FeatureScores
        In the order of the descriptions.

    Raises
    ------
    InputError
        If a description is empty or names no token, a feature or site does not exist, a template
        has no place for a token, or rows are not tokens.
    """
    vocabulary = Vocabulary.of(model)
    listed: dict[tuple[Site, int], list[int]] = {}
    for (site, feature), tokens in descriptions.items():
        if site not in dictionaries or not 0 <= feature < dictionaries[site].n_features:
            raise InputError(f"There is no feature {feature} of {site} in the dictionaries.")
        listed[site, feature] = vocabulary.ids(tokens)
    if not templates:
        raise InputError("No templates were given: neutral_templates(model, texts) makes some.")
    rngs = [np.random.default_rng([seed, number]) for number in range(len(listed))]
    pairs = [
        rng.permutation(list(product(tokens, range(len(templates)))))[:n_synthetic]
        for tokens, rng in zip(listed.values(), rngs, strict=True)
    ]
    natural = text_peaks(acts, {site for site, _ in listed})
    synthetic = _synthetic(
        model, dictionaries, list(listed), pairs, templates, batch_size, progress
    )
    return [
        _scores(natural, *key, {vocabulary.texts[token] for token in tokens}, values, n_rated, rng)
        for (key, tokens), values, rng in zip(listed.items(), synthetic, rngs, strict=True)
    ]


def _synthetic(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    features: list[tuple[Site, int]],
    pairs: list[np.ndarray],
    templates: Sequence[Template],
    batch_size: int,
    progress: bool,
) -> list[np.ndarray]:
    """Activations of texts, for each feature those of its pairs (n, 2) of token and template."""
    if not features:
        return []
    every, index = np.unique(np.concatenate(pairs), axis=0, return_inverse=True)
    index = index.ravel()
    feature = np.repeat(np.arange(len(features)), [len(each) for each in pairs])
    values, bos = np.zeros(len(index)), shared_bos(dictionaries)
    for start in range(0, len(every), CHUNK):
        here = every[start : start + CHUNK].tolist()
        texts = [filled(model, templates[place], token, bos) for token, place in here]
        sites = {site: dictionaries[site] for site, _ in features}
        peaks = text_peaks(
            capture(model, sites, texts, batch_size=batch_size, progress=progress), sites
        )
        for site in sites:
            of_site = np.array([place == site for place, _ in features])[feature]
            mine = np.flatnonzero(of_site & (index >= start) & (index < start + CHUNK))
            if not len(mine):
                continue
            number = np.array([number for _, number in features])[feature[mine]]
            values[mine] = sp.csr_matrix(peaks.value[site])[index[mine] - start, number].A1
    return np.split(values, np.cumsum([len(each) for each in pairs])[:-1])


def _scores(
    natural: Peaks,
    site: Site,
    feature: int,
    words: set[str],
    synthetic: np.ndarray,
    n_rated: int,
    rng: np.random.Generator,
) -> FeatureScores:
    values, ratings = natural.of(site, feature), natural.ratings(site, feature, words)
    clear = separation(synthetic, values)
    rated = rated_texts(values, n_rated, rng)
    if (ratings[rated] == 2).sum() < ENOUGH:
        rest = np.setdiff1d(np.arange(len(values)), rated)
        rated = np.concatenate([rated, rest[rated_texts(values[rest], n_rated, rng)]])
    shown, absent = (values[rated[ratings[rated] == rating]] for rating in (2, 0))
    responsive = separation(shown, absent)
    truth, sizes = _split(shown, absent)
    both = len(shown) and len(absent)
    return FeatureScores(
        f"{site}/{feature}",
        max(clear, 0.0),
        max(responsive, 0.0),
        average_precision(truth, sizes) if both else float("nan"),
        clear,
        responsive,
        float(truth.mean()) if len(truth) else float("nan"),
        len(synthetic),
        len(values),
        len(shown),
        len(absent),
    )


def separation(first: np.ndarray, second: np.ndarray) -> float:
    """Return 2 AUROC - 1: 1 if all of the first exceed the second, 0 if they are alike.

    Parameters
    ----------
    first, second : ndarray, shapes (n,) and (m,)
        Activations.

    Returns
    -------
    float
        NaN if one is empty.
    """
    return 2 * roc_auc(*_split(first, second)) - 1 if len(first) and len(second) else float("nan")


def _split(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which are of the first, and all of them, moved so that the smallest is 0."""
    both = np.concatenate([first, second])
    truth = np.repeat([True, False], [len(first), len(second)])
    return truth, both - both.min() if len(both) else both


def rated_texts(values: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Choose the texts that are rated.

    Parameters
    ----------
    values : ndarray, shape (texts,)
        Their activations.
    n : int
        How many; fewer where a band holds no more.
    rng : numpy.random.Generator
        Decides which.

    Returns
    -------
    ndarray of int, at most n, no text twice
        The strongest, and from each percentile band as many.
    """
    order = rng.permutation(len(values))
    order = order[np.argsort(values[order], kind="stable")]  # the weakest first, ties by chance
    if n >= len(order):
        return order
    top = n - round(SPREAD * n)
    chosen, order = order[len(order) - top :], order[: len(order) - top]
    bands = len(PERCENTILES) - 1
    shares = np.diff(np.round(np.linspace(0, n - top, bands + 1)).astype(int))
    ends = np.round(np.array(PERCENTILES) / 100 * len(order)).astype(int)
    parts = [
        rng.permutation(order[a:b])[:share]
        for a, b, share in zip(ends[:-1], ends[1:], shares, strict=True)
    ]
    return np.concatenate([chosen, *parts])

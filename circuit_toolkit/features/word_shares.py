"""Which words carry a feature, and names of features by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations.activations import MEAN, Activations
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.descriptions.words import spelled, unspaced
from circuit_toolkit.sites import Site

LEAST = 1 / 20  # share of a feature's activation from which a word is named
RARE = 1 / 100  # the same, of a word that tells two features apart
TWICE = 2.0  # as much as others of its name have of it


@dataclass(frozen=True, eq=False)
class WordShares:
    """Which share of a feature's activation is on which word."""

    vocabulary: np.ndarray  # (V,) in the order of the alphabet
    shares: Mapping[Site, sp.csc_array]  # (V, F) each

    def heaviest(self, n_words: int) -> dict[Site, list[list[tuple[str, float]]]]:
        """Return the words that carry most, of every feature."""
        found = {}
        for site, shares in self.shares.items():
            ends = zip(shares.indptr[:-1], shares.indptr[1:], strict=True)
            found[site] = [
                self._strongest(shares.indices[a:b], shares.data[a:b], n_words) for a, b in ends
            ]
        return found

    def labels(self, n_words: int = 3) -> dict[Site, list[str]]:
        """Return names of features, told apart where one or two words can do it."""
        names = {}
        for site, words in self.heaviest(n_words).items():
            names[site] = [label_of(each) for each in words]
            for features in sharing(names[site]):
                self._tell_apart(names[site], site, features, n_words)
        return names

    def _tell_apart(
        self, names: list[str], site: Site, features: Sequence[int], n_words: int
    ) -> None:
        """Name features, which have one name, by what is special to each among them."""
        taken = {*names}
        for feature, special in zip(features, self._special(site, features), strict=True):
            for n in range(1, min(n_words, 3)):
                name = label_of(special[: n + 1], 0)
                if len(special) > n and name not in taken:
                    names[feature] = name
                    taken.add(name)
                    break

    def _special(self, site: Site, features: Sequence[int]) -> list[list[tuple[str, float]]]:
        """Return the heaviest word of each feature, then those that it has more of than others."""
        mine = sp.csr_array(self.shares[site][:, features])  # (V, k)
        heaviest = np.asarray(mine.argmax(axis=0)).ravel()  # (k,) rare too, where words are many
        rows = np.union1d(np.flatnonzero(mine.max(axis=1).toarray().ravel() >= RARE), heaviest)
        p = mine[rows].toarray()
        q = (p.sum(axis=1, keepdims=True) - p) / (len(features) - 1)
        weight = p * np.log(p / np.fmax(q, RARE / 10), out=np.zeros_like(p), where=p > 0)
        weight[(p < RARE) | (p < TWICE * q)] = 0
        weight[p.argmax(axis=0), range(len(features))] = np.inf
        found = []
        for at in range(len(features)):
            order = np.argsort(-weight[:, at], kind="stable")[:3]
            order = order[weight[order, at] > 0]
            found.append([(str(self.vocabulary[rows[i]]), float(p[i, at])) for i in order])
        return found

    def _strongest(self, rows: np.ndarray, shares: np.ndarray, n: int) -> list[tuple[str, float]]:
        order = np.argsort(-shares, kind="stable")[:n]
        return [(str(self.vocabulary[rows[i]]), float(shares[i])) for i in order]


def sharing(names: Sequence[str]) -> list[list[int]]:
    """Return groups of rows that have one name, but for those that have none."""
    found: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        found.setdefault(name, []).append(row)
    return [rows for name, rows in found.items() if name and len(rows) > 1]


def activating_words(acts: Any, n_words: int = 3) -> dict[Site, list[list[tuple[str, float]]]]:
    """Return which words carry most of the activation of every feature."""
    return word_shares(acts).heaviest(n_words)


def word_shares(acts: Any) -> WordShares:
    """Return which share of every feature's activation is on which word."""
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
    shares = {}
    for site, found in mass.items():
        by_feature = sp.csc_array(found[order])
        total = np.asarray(by_feature.sum(axis=0)).ravel()
        total[total == 0] = 1.0  # a matrix may hold zeros
        by_feature.data /= np.repeat(total, np.diff(by_feature.indptr))
        shares[site] = by_feature
    return WordShares(known[order], shares)


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


def heavy(words: Sequence[tuple[str, float]], least: float = LEAST) -> list[tuple[str, float]]:
    """Return the words that a label names: those that carry enough, or all where none does."""
    return [pair for pair in words if pair[1] >= least] or list(words)


def label_of(words: Sequence[tuple[str, float]], least: float = LEAST) -> str:
    """Join words; "…" says that they carry less than half of the activation."""
    named = heavy(words, least)
    more = ["…"] if named and sum(share for _, share in named) < 0.5 else []
    return ", ".join([*(spelled(word) for word, _ in named), *more])

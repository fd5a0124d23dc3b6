"""Where each feature is strongest in each text: what scores of descriptions start from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.examples import token_rows
from circuit_toolkit.sites import Site


@dataclass(frozen=True, eq=False)
class Peaks:
    """Activations of texts: the signed value at the token where its size is largest.

    Parameters
    ----------
    value : dict of Site to scipy.sparse.csc_array, each (texts, F)
        The activation; a feature that never fires in a text has none.
    word : dict of Site to scipy.sparse.csc_array, each (texts, F)
        Which of `words` stands there, counted from 1.
    holds : scipy.sparse.csc_array, shape (texts, words)
        Which words a text holds, the beginning of the sequence left out.
    words : dict of str to int
        Tokens as text, and their columns in `holds`.
    """

    value: Mapping[Site, sp.csc_array]
    word: Mapping[Site, sp.csc_array]
    holds: sp.csc_array
    words: Mapping[str, int]

    @property
    def n_texts(self) -> int:
        """Number of texts."""
        return int((self.holds.shape or (0,))[0])

    def of(self, site: Site, feature: int) -> np.ndarray:
        """Return activations of texts.

        Parameters
        ----------
        site : Site
            Where the feature is.
        feature : int
            Which.

        Returns
        -------
        ndarray, shape (texts,)
        """
        return _dense(self.value[site], feature)

    def ratings(self, site: Site, feature: int, listed: Iterable[str]) -> np.ndarray:
        """Rate texts by whether they show what a list of tokens says.

        Parameters
        ----------
        site : Site
            Where the feature is.
        feature : int
            Which.
        listed : iterable of str
            Tokens as text.

        Returns
        -------
        ndarray of int, shape (texts,)
            2 where a listed token stands at the activating position, 0 where none stands in the
            text, else 1. Where the feature is silent there is no such position: a text that holds
            a listed token then gets a 2, so that what a description promises and the feature
            does not do counts against it.
        """
        columns = [self.words[word] for word in set(listed) if word in self.words]
        holds = np.zeros(self.n_texts, dtype=bool)
        for column in columns:
            holds[self.holds.indices[self.holds.indptr[column] : self.holds.indptr[column + 1]]] = 1
        at = _dense(self.word[site], feature).astype(int) - 1  # -1 where silent
        here = np.isin(at, columns) | ((at < 0) & holds)
        return np.where(here, 2, holds.astype(int))


def _dense(matrix: sp.csc_array, column: int) -> np.ndarray:
    found = np.zeros((matrix.shape or (0,))[0])
    here = slice(matrix.indptr[column], matrix.indptr[column + 1])
    found[matrix.indices[here]] = matrix.data[here]
    return found


def text_peaks(acts: Activations | ActivationStore, sites: Iterable[Site]) -> Peaks:
    """Find where features are strongest in each text, shard by shard.

    Parameters
    ----------
    acts : Activations or ActivationStore
        Captured with `positions="all"`.
    sites : iterable of Site
        Where.

    Returns
    -------
    Peaks

    Raises
    ------
    InputError
        If a site was not captured, or rows are not tokens.
    """
    sites = list(sites)
    if missing := [site for site in sites if site not in acts.sites]:
        known = ", ".join(map(str, acts.sites))
        raise InputError(f"{missing[0]} was not captured, only {known}.")
    words: dict[str, int] = {}
    value: dict[Site, list] = {site: [] for site in sites}
    word: dict[Site, list] = {site: [] for site in sites}
    holds = []
    for part in acts.shards():
        rows = token_rows(part)
        prompt = part.prompt[rows]
        texts = [part.tokens[p][t] for p, t in zip(prompt, part.position[rows], strict=True)]
        column = np.array([words.setdefault(text, len(words)) for text in texts], dtype=np.int64)
        ones = np.ones(len(rows), bool)
        shape = part.n_prompts, len(words)
        holds.append(sp.csr_array((ones, (prompt, column)), shape=shape))
        for site in sites:
            for found, each in zip(
                (value, word), _strongest(part, site, rows, column), strict=True
            ):
                found[site].append(each)
    for each in holds:
        each.resize(each.shape[0], len(words))
    return Peaks(
        {site: sp.csc_array(sp.vstack(value[site])) for site in sites},
        {site: sp.csc_array(sp.vstack(word[site])) for site in sites},
        sp.csc_array(sp.vstack(holds)),
        words,
    )


def _strongest(
    part: Activations, site: Site, rows: np.ndarray, column: np.ndarray
) -> tuple[sp.csr_array, sp.csr_array]:
    """Value and word, each (prompts, F), at the first token where a feature is strongest."""
    found = part.features[site][rows].tocoo()
    row, feature = found.coords
    prompt = part.prompt[rows][row]
    order = np.lexsort((part.position[rows][row], -np.abs(found.data), feature, prompt))
    order = order[found.data[order] != 0]
    prompt, feature = prompt[order], feature[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (prompt[1:] != prompt[:-1]) | (feature[1:] != feature[:-1])
    order, where = order[first], (prompt[first], feature[first])
    shape = part.n_prompts, found.shape[1]
    return (
        sp.csr_array((found.data[order], where), shape=shape),
        sp.csr_array((column[row[order]] + 1, where), shape=shape),
    )

"""Features of the bundled model that fire for more than one reason, and what takes them apart.

A mixture is a feature that no role of the grammar explains, while two or three roles that exclude
each other do. It is found from activations alone; how well clusters of activating examples match
the roles is measured afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from benchmarks.descriptions.roles import role_f1, role_matrix
from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.circuit_lens import FeatureCircuits
from circuit_toolkit.demo.grammar import Sentence
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    import pandas as pd

ONE_ROLE = 0.8  # F1 from which one role explains a feature
UNION = 0.6  # F1 that the roles of a mixture reach together
COVERED = 0.8  # share of the examples that have one of the roles
SIZEABLE = 0.15  # share of the examples that each role has at least
BOTH = 0.02  # share of the examples that may have two of them
EXAMPLES = 60  # prompts in which it fires at least


@dataclass(frozen=True)
class Mixture:
    """A feature that fires for two or three roles."""

    site: Site
    index: int
    roles: tuple[str, ...]
    shares: tuple[float, ...]
    one_f1: float
    union_f1: float
    n_examples: int

    @property
    def name(self) -> str:
        """As in circuits: site and number."""
        return f"{self.site}/{self.index}"


def find_mixtures(acts: Activations, sentences: Sequence[Sentence]) -> list[Mixture]:
    """Find features that are mixtures of roles, from where they fire.

    Of each feature the strongest example in every text counts, as for `CircuitLens`; of all pairs
    and triples of roles that will do, that with the best F1 over all words.

    Parameters
    ----------
    acts : Activations
        Of the sentences, captured with `positions="all"`.
    sentences : sequence of Sentence
        Texts whose words know their roles.

    Returns
    -------
    list of Mixture
        By site and number.

    Raises
    ------
    MismatchError
        If the rows are not the words of the sentences.
    """
    matrix, names = role_matrix(sentences)
    n_words = sum(len(sentence.words) for sentence in sentences)
    if n_words != len(acts.prompt):
        raise MismatchError(
            f"acts have {len(acts.prompt)} rows for {n_words} words: capture the texts of these "
            "sentences, positions='all'."
        )
    # In alphabetical order: of equally good groups the first is taken.
    here = sorted(range(len(names)), key=names.__getitem__)
    here = [i for i in here if not names[i].startswith("next: ")]
    roles = matrix.tocsr()[:, here]
    together = (roles.T @ roles).toarray()  # (R, R) words that have both
    found = []
    for site, features in acts.features.items():
        values = features.toarray()
        f1, _ = role_f1(values, matrix)
        for index in np.flatnonzero(((values > 0).sum(0) >= EXAMPLES) & (f1 < ONE_ROLE)):
            strength = values[:, index]
            examples = _strongest(acts.prompt, strength)
            if len(examples) < EXAMPLES:
                continue
            best = _best_roles(roles, together, examples, np.flatnonzero(strength))
            if best is None or best[0] < UNION:
                continue
            union, which, shares = best
            named = tuple(names[here[i]] for i in which)
            found.append(
                Mixture(site, int(index), named, shares, float(f1[index]), union, len(examples))
            )
    return found


def _strongest(prompt: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Return the row of the strongest example in each prompt in which there is one."""
    order = np.lexsort((-strength, prompt))
    first = order[np.unique(prompt[order], return_index=True)[1]]
    return first[strength[first] > 0]


def _best_roles(
    roles: sp.csr_array, together: np.ndarray, examples: np.ndarray, fires: np.ndarray
) -> tuple[float, np.ndarray, tuple[float, ...]] | None:
    """Choose the pair or triple of roles that says best where a feature fires."""
    of_examples = roles[examples]
    share = np.asarray(of_examples.sum(0)).ravel() / len(examples)
    large = np.flatnonzero(share >= SIZEABLE)
    x = of_examples[:, large].toarray()
    overlap = x.T @ x / len(examples)
    y = roles[fires][:, large].toarray()
    hits = y.T @ y
    total = together[np.ix_(large, large)]
    apart = {pair for pair in combinations(range(len(large)), 2) if overlap[pair] <= BOTH}
    groups = [*apart]
    groups += [
        (i, j, k)
        for i, j in apart
        for k in range(j + 1, len(large))
        if (i, k) in apart and (j, k) in apart
    ]

    def size(counts: np.ndarray, group: tuple[int, ...]) -> float:
        """Return the size of a union, from those of single roles and pairs."""
        pairs = sum(counts[pair] for pair in combinations(group, 2))
        return float(counts[list(group), list(group)].sum() - pairs)

    best = None
    for group in sorted(groups, key=lambda group: (len(group), group)):  # few roles first
        if size(overlap, group) < COVERED:
            continue
        f1 = 2 * size(hits, group) / (len(fires) + size(total, group))
        if best is None or f1 > best[0]:
            which = large[list(group)]
            best = f1, which, tuple(float(each) for each in share[which])
    return best


def roles_of(
    mixture: Mixture, circuits: FeatureCircuits, sentences: Sequence[Sentence]
) -> np.ndarray:
    """Return which role of a mixture each example has."""
    found = np.full(len(circuits.table), -1)
    pairs = zip(circuits.table["prompt"], circuits.table["position"], strict=True)
    for i, (prompt, position) in enumerate(pairs):
        has = sentences[prompt].roles()[position - 1]  # the first token begins the sequence
        mine = [k for k, role in enumerate(mixture.roles) if role in has]
        found[i] = mine[0] if len(mine) == 1 else -1
    return found


def cluster_agreement(roles: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compare clusters with roles by the adjusted Rand index: 0 for chance, 1 for the same."""
    from sklearn.metrics import adjusted_rand_score

    known = roles >= 0
    if not known.any():
        raise InputError("No example has a role: there is nothing to compare clusters with.")
    roles, labels = roles[known], labels[known]
    inside = labels >= 0
    apart = adjusted_rand_score(roles[inside], labels[inside]) if inside.sum() > 1 else 0.0
    return {
        "ari": float(adjusted_rand_score(roles, labels)),
        "ari_clustered": float(apart),
        "noise": float((~inside).mean()),
        "clusters": len(np.unique(labels[inside])),
        "n": int(known.sum()),
    }


def agreement_table(
    mixtures: Sequence[Mixture],
    circuits: Sequence[FeatureCircuits],
    sentences: Sequence[Sentence],
) -> pd.DataFrame:
    """Compare clusters with roles, a row a mixture.

    Parameters
    ----------
    mixtures : sequence of Mixture
        The features.
    circuits : sequence of FeatureCircuits
        Of each, on texts of these sentences.
    sentences : sequence of Sentence
        The texts.

    Returns
    -------
    DataFrame
        `feature`, `roles`, and what `cluster_agreement` gives.
    """
    import pandas as pd

    rows = []
    for mixture, found in zip(mixtures, circuits, strict=True):
        agreement = cluster_agreement(roles_of(mixture, found, sentences), found.labels)
        rows.append({"feature": mixture.name, "roles": " / ".join(mixture.roles), **agreement})
    return pd.DataFrame(rows)

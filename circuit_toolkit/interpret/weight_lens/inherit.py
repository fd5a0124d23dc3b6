"""Descriptions: tokens of a feature's own, and those that it inherits from earlier features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.interpret.weight_lens.tables import SiteTables


class Described(NamedTuple):
    """Descriptions of the features of one dictionary.

    Parameters
    ----------
    tokens : csr_array, shape (F, V)
        What each token of a description does to its feature alone: above 0.
    soft : csr_array, shape (F, V)
        1 where a token is in the soft description, which holds inherited tokens untested.
    """

    tokens: sp.csr_array
    soft: sp.csr_array


def pairs(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray | None, shape: tuple[int, int]
) -> sp.csr_array:
    """Make a sparse matrix of pairs that occur once each; ones where no values are given."""
    data = np.ones(len(rows), np.float32) if values is None else values
    return sp.csr_array((data, (rows, columns)), shape=shape, dtype=np.float32)


def handed_down(
    links: np.ndarray,
    theta: float,
    described: Sequence[Described],
    upstream: Literal["first", "all"],
    shape: tuple[int, int],
) -> sp.csr_array:
    """Collect the descriptions of the earlier features that a feature reads.

    Parameters
    ----------
    links : ndarray of LINK
        Which features read which.
    theta : float
        From which z-score on.
    described : sequence of Described
        Of the earlier dictionaries, by `source`.
    upstream : {"first", "all"}
        Which of these are handed down.
    shape : tuple of int
        (F, V).

    Returns
    -------
    csr_array, shape (F, V)
        1 where a token is handed down.
    """
    found = sp.csr_array(shape, dtype=np.float32)
    links = links[links["z"] > theta]
    for source, each in enumerate(described[:1] if upstream == "first" else described):
        here = links[links["source"] == source]
        if len(here) and each.tokens.nnz:
            reads = pairs(
                here["feature"], here["index"], None, (shape[0], len(each.tokens.indptr) - 1)
            )
            found = sp.csr_array(found + reads @ ones(each.tokens))
    return ones(found)


def described(
    tokens: np.ndarray,
    theta: float,
    came: sp.csr_array,
    active: sp.csr_array,
    shape: tuple[int, int],
) -> Described:
    """Put a description together.

    Parameters
    ----------
    tokens : ndarray of TOKEN
        Candidates of the features' own.
    theta : float
        From which z-score on.
    came : csr_array, shape (F, V)
        1 where a token was handed down.
    active : csr_array, shape (F, V)
        What tokens do alone, at least for those that may be part of a description.
    shape : tuple of int
        (F, V).

    Returns
    -------
    Described
        A token is part of the description if it stands out or was handed down, and activates the
        feature when it is fed alone.
    """
    own = tokens[(tokens["z"] > theta) & (tokens["solo"] > 0)]
    soft = ones(sp.csr_array(came + pairs(own["feature"], own["token"], None, shape)))
    return Described(sp.csr_array(active.multiply(soft)), soft)


def describe_site(
    table: SiteTables,
    theta_token: float,
    theta_feature: float,
    earlier: Sequence[Described],
    upstream: Literal["first", "all"],
    n_tokens: int,
) -> Described:
    """Describe the features of one dictionary at some thresholds, not below the floors.

    Lower thresholds only add tokens, so what is active at the floors tells all that is needed.

    Parameters
    ----------
    table : SiteTables
        What stands out.
    theta_token, theta_feature : float
        Thresholds.
    earlier : sequence of Described
        Descriptions of the earlier dictionaries at the same thresholds.
    upstream : {"first", "all"}
        Which of these are handed down.
    n_tokens : int
        Size of the vocabulary.

    Returns
    -------
    Described
    """
    shape = (table.n_features, n_tokens)
    came = handed_down(table.links, theta_feature, earlier, upstream, shape)
    return described(table.tokens, theta_token, came, held(table, shape), shape)


def held(table: SiteTables, shape: tuple[int, int]) -> sp.csr_array:
    """Give what tokens do alone, for all that can be part of a description, shape (F, V)."""
    own = table.tokens[table.tokens["solo"] > 0]
    both = np.concatenate([own[["feature", "token", "solo"]], table.inherited])
    _, first = np.unique(both[["feature", "token"]], return_index=True)
    both = both[first]  # a token may stand out and be inherited
    return pairs(both["feature"], both["token"], both["solo"], shape)


def ones(matrix: sp.csr_array) -> sp.csr_array:
    """Give 1 wherever a matrix holds something."""
    return sp.csr_array(
        (np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), shape=matrix.shape
    )

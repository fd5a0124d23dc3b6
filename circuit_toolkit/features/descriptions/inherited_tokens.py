"""Descriptions: tokens of a feature's own, and those that it inherits from earlier features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.features.descriptions.tables import SiteTables


class Described(NamedTuple):
    """Descriptions of the features of one dictionary."""

    tokens: sp.csr_array
    soft: sp.csr_array


def matrix_of_pairs(
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
    """Collect the descriptions of the earlier features that a feature reads."""
    found = sp.csr_array(shape, dtype=np.float32)
    links = links[links["z"] > theta]
    for source, each in enumerate(described[:1] if upstream == "first" else described):
        here = links[links["source"] == source]
        if len(here) and each.tokens.nnz:
            reads = matrix_of_pairs(
                here["feature"], here["index"], None, (shape[0], len(each.tokens.indptr) - 1)
            )
            found = sp.csr_array(found + reads @ ones(each.tokens))
    return ones(found)


def describe_site(
    table: SiteTables,
    theta_token: float,
    theta_feature: float,
    earlier: Sequence[Described],
    upstream: Literal["first", "all"],
    n_tokens: int,
) -> Described:
    """Describe the features of one dictionary at some thresholds, not below the floors."""
    shape = (table.n_features, n_tokens)
    came = handed_down(table.links, theta_feature, earlier, upstream, shape)
    own = table.tokens[(table.tokens["z"] > theta_token) & (table.tokens["solo"] > 0)]
    own = matrix_of_pairs(own["feature"], own["token"], None, shape)
    soft = ones(sp.csr_array(came + own))
    return Described(sp.csr_array(activations_alone(table, shape).multiply(soft)), soft)


def activations_alone(table: SiteTables, shape: tuple[int, int]) -> sp.csr_array:
    """Return what tokens do alone, for all that can be part of a description, shape (F, V)."""
    own = table.tokens[table.tokens["solo"] > 0]
    both = np.concatenate([own[["feature", "token", "solo"]], table.inherited])
    _, first = np.unique(both[["feature", "token"]], return_index=True)
    both = both[first]  # a token may stand out and be inherited
    return matrix_of_pairs(both["feature"], both["token"], both["solo"], shape)


def ones(matrix: sp.csr_array) -> sp.csr_array:
    """Return 1 wherever a matrix holds something."""
    return sp.csr_array(
        (np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), shape=matrix.shape
    )

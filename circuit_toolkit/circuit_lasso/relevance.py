"""Propagate relevance from the target through a chain of sparse weights: pure arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True, eq=False)
class Relevance:
    """What each feature and each edge passes on to the target."""

    nodes: tuple[np.ndarray, ...]
    edges: tuple[sp.csr_array, ...]
    direct: tuple[np.ndarray, ...]


def propagate_relevance(strengths: Sequence[sp.sparray], direct: Sequence[np.ndarray]) -> Relevance:
    """Share out relevance 1 of the target over its sources, theirs over theirs, and so on."""
    total = sum(float(part.sum()) for part in direct)
    into_target = [np.asarray(part, float) / total if total else 0.0 * part for part in direct]
    nodes = [part.copy() for part in into_target]
    edges: list[sp.csr_array] = []
    for i in range(len(strengths) - 1, -1, -1):
        S = sp.csc_array(strengths[i])
        sums = np.asarray(S.sum(axis=0)).ravel()  # (p_i+1,)
        share = np.divide(nodes[i + 1], sums, out=np.zeros(len(sums)), where=sums > 0)
        flow = sp.csr_array(S @ sp.diags_array(share))
        flow.eliminate_zeros()
        edges.append(flow)
        nodes[i] += np.asarray(flow.sum(axis=1)).ravel()
    return Relevance(tuple(nodes), tuple(reversed(edges)), tuple(into_target))

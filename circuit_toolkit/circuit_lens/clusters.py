"""ActivatingExamples with like circuits: distances between sets, and DBSCAN on these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np


def common_elements(sets: Sequence[frozenset], rho: float) -> list[frozenset]:
    """Drop what is in too few sets."""
    counts: Counter[Hashable] = Counter(element for each in sets for element in each)
    kept = {element for element, count in counts.items() if count >= rho * len(sets)}
    return [each & kept for each in sets]


def jaccard_distances(sets: Sequence[frozenset]) -> np.ndarray:
    """Measure how little sets share: 1 minus common elements over all elements."""
    columns: dict[Hashable, int] = {}
    pairs = [(i, columns.setdefault(e, len(columns))) for i, each in enumerate(sets) for e in each]
    present = np.zeros((len(sets), len(columns)), dtype=np.float32)
    if pairs:
        present[tuple(np.array(pairs).T)] = 1
    both = (present @ present.T).astype(float)
    sizes = present.sum(1)
    either = sizes[:, None] + sizes - both
    distances = 1 - np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    np.fill_diagonal(distances, 0)
    return distances


def cluster_labels(
    sets: Sequence[frozenset], distances: np.ndarray, *, eps: float, min_samples: int
) -> np.ndarray:
    """Group examples by DBSCAN; the largest group is 0."""
    from sklearn.cluster import DBSCAN

    labels = np.full(len(sets), -1)
    full = np.flatnonzero([bool(each) for each in sets])
    if not len(full):
        return labels
    model = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed")
    found = model.fit_predict(distances[np.ix_(full, full)])
    by_size = [label for label, _ in Counter(found[found >= 0].tolist()).most_common()]
    names = {-1: -1} | {label: rank for rank, label in enumerate(by_size)}
    labels[full] = [names[label] for label in found.tolist()]
    return labels

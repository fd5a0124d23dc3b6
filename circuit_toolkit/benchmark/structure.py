"""How near a circuit is to the true one: all numbers about its edges and nodes at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuit_toolkit.benchmark.metrics import (
    average_precision,
    best_hamming,
    check_scores,
    hamming,
    hamming_at_budget,
    precision_recall,
    roc_auc,
)
from circuit_toolkit.errors import InputError

Edge = tuple[str, str]


@dataclass(frozen=True)
class Structure:
    """A circuit against the true one."""

    edge_auroc: float
    edge_ap: float
    node_auroc: float
    node_ap: float
    shd: float
    shd_best: int
    shd_empty: int
    shd_at_true_size: float
    f1: float
    n_edges: int


def structure(
    universe: Sequence[Edge],
    true_edges: Iterable[Edge],
    scores: Mapping[Edge, float] | np.ndarray,
    threshold: float = 0.0,
) -> Structure:
    """Compare a circuit with the true one."""
    truth, values = aligned(universe, true_edges, scores)
    names = [name for name in dict.fromkeys(np.ravel(universe)) if name not in ("embed", "logits")]
    true_nodes = {name for edge, true in zip(universe, truth, strict=True) if true for name in edge}
    is_true = np.array([name in true_nodes for name in names], dtype=bool)
    of_nodes = node_scores(universe, values)
    strength = np.array([of_nodes[name] for name in names])
    chosen = values > threshold
    return Structure(
        edge_auroc=roc_auc(truth, values),
        edge_ap=average_precision(truth, values),
        node_auroc=roc_auc(is_true, strength),
        node_ap=average_precision(is_true, strength),
        shd=hamming(truth, chosen),
        shd_best=best_hamming(truth, values)[0],
        shd_empty=int(truth.sum()),
        shd_at_true_size=hamming_at_budget(truth, values, int(truth.sum())),
        f1=precision_recall(float((truth & chosen).sum()), int(chosen.sum()), int(truth.sum())).f1,
        n_edges=int(chosen.sum()),
    )


def aligned(
    universe: Sequence[Any], true: Iterable[Any], scores: Mapping[Any, float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bring truth and scores into the order of a universe."""
    true, known = set(true), set(universe)
    given = set(scores) if isinstance(scores, Mapping) else set()
    for what, names in [("true", true), ("scored", given)]:
        if names - known:
            stranger = min(names - known)
            raise InputError(f"{stranger} is {what}, but not in the universe of {len(known)}.")
    if isinstance(scores, Mapping):
        values = np.array([scores.get(each, 0.0) for each in universe], dtype=float)
    else:
        values = np.asarray(scores, dtype=float)
    truth = np.array([each in true for each in universe], dtype=bool)
    check_scores(truth, values)
    return truth, values


def node_scores(universe: Sequence[Edge], scores: np.ndarray) -> dict[str, float]:
    """Return each node the score of its strongest edge, out of it or into it."""
    found: dict[str, float] = {}
    for edge, score in zip(universe, scores.tolist(), strict=True):
        for name in edge:
            found[name] = max(found.get(name, 0.0), score)
    return found

"""Numbers that say how well scores agree with the truth, over edges or nodes alike.

All take the truth as booleans and scores as sizes, 0 or more, over one universe: the n edges (or
nodes) that could be in the circuit. A score of 0 means "not in the circuit".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from circuit_toolkit.errors import InputError


class AtBudget(NamedTuple):
    """What the strongest k edges are worth."""

    precision: float
    recall: float
    f1: float


def roc_auc(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve."""
    from scipy.stats import rankdata

    truth, scores = check_scores(truth, scores)
    n_true = int(truth.sum())
    n_false = len(truth) - n_true
    if not n_true or not n_false:
        return float("nan")
    above = rankdata(scores)[truth].sum() - n_true * (n_true + 1) / 2
    return float(above / (n_true * n_false))


def average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return the average precision."""
    truth, scores = check_scores(truth, scores)
    if not truth.any():
        return float("nan")
    hits, chosen, _ = _sweep(truth, scores)
    return float((np.diff(hits, prepend=0) * hits / chosen).sum() / truth.sum())


def hamming(truth: np.ndarray, chosen: np.ndarray) -> int:
    """Return the structural Hamming distance (SHD): false edges chosen plus true edges left out."""
    return int((np.asarray(truth, bool) != np.asarray(chosen, bool)).sum())


def best_hamming(truth: np.ndarray, scores: np.ndarray) -> tuple[int, float]:
    """Return the smallest SHD at any threshold, which only the truth can tell: an oracle."""
    truth, scores = check_scores(truth, scores)
    hits, chosen, values = _sweep(truth, scores)
    distance = np.r_[0, chosen] - 2 * np.r_[0, hits] + truth.sum()  # the empty graph first
    levels = np.r_[values, 0.0]  # above values[0] is none; above values[k], k groups
    usable = np.r_[True, values > 0]  # what scores 0 is never chosen
    best = int(np.argmin(np.where(usable, distance, np.inf)))
    return int(distance[best]), float(levels[best])


def hamming_at_budget(truth: np.ndarray, scores: np.ndarray, budget: int) -> float:
    """Return the SHD of the graph of the strongest edges."""
    truth, scores = check_scores(truth, scores)
    hits, size = _top(truth, scores, budget)
    return size + float(truth.sum()) - 2 * hits


def at_budget(truth: np.ndarray, scores: np.ndarray, budget: int) -> AtBudget:
    """Return precision, recall and F1 of the strongest edges."""
    truth, scores = check_scores(truth, scores)
    hits, size = _top(truth, scores, budget)
    return precision_recall(hits, size, int(truth.sum()))


def best_common_threshold(
    truths: Sequence[np.ndarray], scores: Sequence[np.ndarray]
) -> tuple[float, float]:
    """Return the threshold with the smallest mean SHD over cases, which only the truth can tell."""
    shares, means = [], []
    relative = []
    for truth, score in zip(truths, scores, strict=True):
        truth, score = check_scores(truth, score)
        relative.append((truth, score / (score.max() or 1.0)))
    shares = np.unique(np.concatenate([[0.0, 1.0], *(score for _, score in relative)]))[::-1]
    means = [np.mean([hamming(t, s > share) for t, s in relative]) for share in shares]
    best = int(np.argmin(means))
    return float(shares[best]), float(means[best])


def check_scores(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Refuse what is no truth (n,) with sizes (n,); give both as arrays."""
    truth, scores = np.asarray(truth, bool), np.asarray(scores, float)
    if truth.ndim != 1 or truth.shape != scores.shape or not len(truth):
        raise InputError(
            f"truth and scores must be of one shape (n,), got {truth.shape} and {scores.shape}."
        )
    if not np.isfinite(scores).all() or (scores < 0).any():
        raise InputError("scores must be finite and 0 or more. Pass absolute values.")
    return truth, scores


def _sweep(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count true ones, and all, at or above each distinct score; these come largest first."""
    values, group = np.unique(-scores, return_inverse=True)
    counts = np.bincount(group)
    hits = np.bincount(group, weights=truth)
    return hits.cumsum(), counts.cumsum(), -values


def _top(truth: np.ndarray, scores: np.ndarray, budget: int) -> tuple[float, int]:
    """Count the true ones to expect among the strongest, and the strongest."""
    if budget < 0:
        raise InputError(f"budget must be 0 or more, got {budget}.")
    size = min(budget, int((scores > 0).sum()))
    if not size:
        return 0.0, 0
    border = np.sort(scores)[-size]
    above, level = scores > border, scores == border
    return float(truth[above].sum() + (size - above.sum()) * truth[level].mean()), size


def precision_recall(hits: float, chosen: int, true: int) -> AtBudget:
    """Return precision, recall and F1 from the numbers of hits, of chosen and of true ones."""
    precision = hits / chosen if chosen else 1.0
    recall = hits / true if true else 1.0
    total = precision + recall
    return AtBudget(precision, recall, 2 * precision * recall / total if total else 0.0)

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
    """Return the area under the ROC curve; NaN without two classes."""
    from sklearn.metrics import roc_auc_score

    truth, scores = check_scores(truth, scores)
    return float(roc_auc_score(truth, scores)) if 0 < truth.sum() < len(truth) else float("nan")


def average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return the average precision; NaN where nothing is true."""
    from sklearn.metrics import average_precision_score

    truth, scores = check_scores(truth, scores)
    return float(average_precision_score(truth, scores)) if truth.any() else float("nan")


def hamming(truth: np.ndarray, chosen: np.ndarray) -> int:
    """Return the structural Hamming distance (SHD): false edges chosen plus true edges left out."""
    return int((np.asarray(truth, bool) != np.asarray(chosen, bool)).sum())


def oracle_threshold(
    truths: Sequence[np.ndarray], scores: Sequence[np.ndarray]
) -> tuple[float, float]:
    """Return the oracle threshold over cases, a share of the largest score, and its mean SHD."""
    cases = []
    for truth, score in zip(truths, scores, strict=True):
        truth, score = check_scores(truth, score)
        cases.append((truth, score / (score.max() or 1.0)))
    shares = np.unique(np.concatenate([[0.0, 1.0], *(score for _, score in cases)]))[::-1]
    means = [np.mean([hamming(t, s > share) for t, s in cases]) for share in shares]
    best = int(np.argmin(means))
    return float(shares[best]), float(means[best])


def at_budget(truth: np.ndarray, scores: np.ndarray, budget: int) -> AtBudget:
    """Return precision, recall and F1 of the strongest edges, ties by their mean."""
    truth, scores = check_scores(truth, scores)
    if budget < 0:
        raise InputError(f"budget must be 0 or more, got {budget}.")
    size = min(budget, int((scores > 0).sum()))  # what scores 0 is never chosen
    if not size:
        return AtBudget(1.0, 0.0, 0.0)
    border = np.sort(scores)[-size]
    above = scores > border
    hits = truth[above].sum() + (size - above.sum()) * truth[scores == border].mean()
    recall = hits / truth.sum() if truth.any() else 1.0
    return AtBudget(float(hits / size), float(recall), float(2 * hits / (size + truth.sum())))


def check_scores(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Refuse what is no truth (n,) with sizes (n,); return both as arrays."""
    truth, scores = np.asarray(truth, bool), np.asarray(scores, float)
    if truth.ndim != 1 or truth.shape != scores.shape or not len(truth):
        raise InputError(
            f"truth and scores must be of one shape (n,), got {truth.shape} and {scores.shape}."
        )
    if not np.isfinite(scores).all() or (scores < 0).any():
        raise InputError("scores must be finite and 0 or more. Pass absolute values.")
    return truth, scores

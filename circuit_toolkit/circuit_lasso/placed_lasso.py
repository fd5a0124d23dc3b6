"""Rank features at places by randomised runs: a lasso at one strength, and a step off its bias."""

from __future__ import annotations

import numpy as np
import torch

from circuit_toolkit.circuit_lasso.randomised_runs import (
    DRAWS,
    SHARE,
    asked,
    drawn,
    moved_logits,
)
from circuit_toolkit.patching.placed_features import Place, PlacedFeatures
from circuit_toolkit.regression import GramStatistics, lasso_path

STRENGTH = 0.1
_LEAST = 3  # runs in which a feature must have been changed


def randomised_scores(
    runs: PlacedFeatures,
    *,
    draws: int = DRAWS,
    share: float = SHARE,
    strength: float = STRENGTH,
    seed: int = 0,
    progress: bool = False,
) -> dict[Place, np.ndarray]:
    """Estimate what ablating each feature takes from the metric, on average; (F,) at each place."""
    plan = drawn(runs, draws=draws, share=share, seed=seed)
    logits, base = moved_logits(runs, plan, progress=progress), runs.logits.float()
    moved = [torch.zeros_like(base), *logits.split(len(base))]
    readout = sum(
        (runs.task.metric_gradient(base + each, range(len(base))) for each in moved), 0 * base
    ) / len(moved)
    tokens = asked(readout)
    Y = logits[:, tokens]
    slopes = _slopes(torch.cat(plan.imposed).cpu().numpy(), Y.cpu().numpy(), strength)
    lost = -(plan.change * (readout[:, tokens] @ torch.as_tensor(slopes.T).to(readout))).mean(0)
    scores, first = {}, 0
    for place, units in plan.units.items():
        scores[place] = np.zeros(runs.acts[place].shape[1])
        scores[place][units.numpy()] = lost[first : first + len(units)].cpu().numpy()
        first += len(units)
    return scores


def _slopes(X: np.ndarray, Y: np.ndarray, strength: float) -> np.ndarray:
    """Raw coefficients (p, q) of Y (n, q) on X (n, p)."""
    live = np.flatnonzero((X != 0).sum(0) >= _LEAST)
    slopes = np.zeros((X.shape[1], Y.shape[1]))
    moving = np.flatnonzero((Y != 0).any(0))
    if len(live) and len(moving):
        stats = GramStatistics.from_arrays(X[:, live], Y[:, moving]).standardised()
        B = lasso_path(stats, [strength]).standardised(0).toarray()
        # One step of its gradient takes off the bias (Javanmard and Montanari, 2014): what is
        # changed is drawn by chance, so correlations are close to none.
        found = B + stats.correlation_xy - stats.correlation_xx @ B
        scale = np.divide(1, stats.scale_x, out=0 * stats.scale_x, where=stats.scale_x > 0)
        slopes[np.ix_(live, moving)] = found * scale[:, None] * stats.scale_y
    return slopes

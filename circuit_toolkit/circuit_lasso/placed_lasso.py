"""Randomised CircuitLasso over features at places: which of them the answer depends on.

Forward passes alone. In each run a random share of the features that differ from their reference,
at every place, are set to it; the changes of the logits that the metric reads are regressed on what
was changed. The logits tell the answers apart, where a single number would add up effects of both
signs. What is changed is drawn by chance, so a coefficient is an effect and no correlation.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.arguments import number, whole
from circuit_toolkit.models import LOGITS
from circuit_toolkit.patching.placed_features import SIZE, Place, PlacedFeatures
from circuit_toolkit.regression import GramStatistics, lasso_path
from circuit_toolkit.tasks.prompt_pairs import row_slices

DRAWS, SHARE, STRENGTH = 8, 0.1, 0.1
_LEAST = 3  # runs in which a feature must have been changed
_ASKED = 0.01  # logits that count less in the metric, as a share of the most, are not regressed


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
    draws, rng = whole(draws, "draws", 1), torch.Generator().manual_seed(whole(seed, "seed", 0))
    share = number(share, "share", 0, 1, open_low=True)
    active = {place: torch.as_tensor(units) for place, units in runs.active().items()}
    change = torch.cat(
        [(runs.reference[at] - runs.acts[at])[:, units] for at, units in active.items()], 1
    )  # (n, p)
    changed, logits = [], []
    for draw in row_slices(draws, 1, progress, "randomised runs"):
        bits = torch.rand(change.shape, generator=rng) < share
        changed.append(change * bits.to(change))
        logits.append(_logits(runs, active, changed[draw.start]))
    base = runs.logits.float()
    readout = sum((_readout(runs, each) for each in logits), _readout(runs, base)) / (draws + 1)
    weight = readout.abs().mean(0)
    tokens = (weight > _ASKED * weight.max()).nonzero()[:, 0]
    Y = torch.cat([each[:, tokens] - base[:, tokens] for each in logits])
    slopes = _slopes(torch.cat(changed).cpu().numpy(), Y.cpu().numpy(), strength)
    lost = -(change * (readout[:, tokens] @ torch.as_tensor(slopes.T).to(readout))).mean(0)
    found, first = {}, 0
    for place, units in active.items():
        found[place] = np.zeros(runs.acts[place].shape[1])
        found[place][units.numpy()] = lost[first : first + len(units)].cpu().numpy()
        first += len(units)
    return found


def _logits(runs: PlacedFeatures, active: dict[Place, Tensor], changed: Tensor) -> Tensor:
    """Logits (n, V) where features were changed by so much (n, p)."""
    parts = dict(
        zip(active, changed.split([len(units) for units in active.values()], 1), strict=True)
    )
    found = []
    for rows in row_slices(len(runs), SIZE):
        write = runs.adding({place: part[rows] for place, part in parts.items()}, active, rows)
        found.append(runs.run(rows, write, [LOGITS])[LOGITS][:, -1].float())
    return torch.cat(found)


def _readout(runs: PlacedFeatures, logits: Tensor) -> Tensor:
    """Gradient (n, V) of the metric to logits."""
    leaf = logits.detach().clone().requires_grad_()
    with torch.enable_grad():
        total = runs.task.metric_of(leaf[:, None], range(len(runs))).sum()
    return torch.autograd.grad(total, leaf)[0]


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

"""What features at places give to the metric: gradients, integrated from all ablated to none.

Every feature of every place has a share that is kept, 0 if it is ablated and 1 as the model has it.
All shares go from 0 to 1 together, and what a feature gets is the integral of the metric's gradient
in its share (Sundararajan et al., 2017). So the scores add up to what all of them give, but for
features of later sites that switch on or off on the way, and what passes through several sites is
shared among these.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.arguments import whole
from circuit_toolkit.dictionaries.directions import decoder_rows
from circuit_toolkit.models import LOGITS
from circuit_toolkit.models.ports import Edit
from circuit_toolkit.patching.placed_features import Place, PlacedFeatures
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks.prompt_pairs import row_slices

STEPS = 6
SIZE = 32  # prompts whose gradients are taken at once


def integrated_scores(
    runs: PlacedFeatures, steps: int = STEPS, progress: bool = False
) -> dict[Place, np.ndarray]:
    """Estimate what each feature gives to the mean metric, (F,) at each place."""
    steps = whole(steps, "steps", 1)
    scores = {at: torch.zeros(acts.shape[1]) for at, acts in runs.acts.items()}
    for rows in row_slices(len(runs), SIZE, progress, "gradients"):
        for step in range(steps):
            changes, leaves = {}, {}
            write = _partly_kept(runs, rows, (step + 0.5) / steps, changes, leaves)
            logits = runs.run(rows, write, [LOGITS], grad=True)[LOGITS]
            numbers = range(rows.start, rows.start + len(logits))
            metric = runs.task.metric_of(logits, [*numbers]).sum()
            found = torch.autograd.grad(metric, [*leaves.values()])
            for place, gradient in zip(leaves, found, strict=True):
                directions = decoder_rows(runs.model, runs.dictionaries[place[0]])
                pull = gradient.to(directions) @ directions.T  # (B, F)
                given = -(changes[place] * pull).sum(0).cpu()
                scores[place] += given / (len(runs) * steps)
    return {place: each.numpy() for place, each in scores.items()}


def _partly_kept(
    runs: PlacedFeatures,
    rows: slice,
    kept: float,
    changes: dict[Place, Tensor],
    leaves: dict[Place, Tensor],
) -> dict[Site, Edit]:
    """Ablate all features in part; collect the whole changes, and leaves where they are written."""
    found: dict[Site, Edit] = {}
    for site, dictionary in runs.dictionaries.items():
        held: dict[str, Tensor] = {}
        directions = decoder_rows(runs.model, dictionary)

        def look(x: Tensor, site=site, held=held, directions=directions) -> Tensor:
            for position, at in runs.where.items():
                seen = x[torch.arange(len(x)), at[rows]]
                change = runs.reference[site, position][rows] - (
                    runs.dictionaries[site].encode_for_gradients(seen)
                )
                changes[site, position] = change.detach()
                held[position] = (1 - kept) * change @ directions.to(change)
            return x

        def put(y: Tensor, site=site, held=held) -> Tensor:
            y = y.clone()
            for position, value in held.items():
                leaf = leaves[site, position] = torch.zeros_like(value, requires_grad=True)
                here = torch.arange(len(y)), runs.where[position][rows]
                y[here] = y[here] + (value + leaf).to(y)
            return y

        if dictionary.out == site:
            found[site] = lambda x, look=look, put=put: put(look(x))
        else:
            found |= {site: look, dictionary.out: put}
    return found

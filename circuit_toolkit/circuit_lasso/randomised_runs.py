"""Randomised runs over features at places: what was changed, and what followed.

Forward passes alone. In each run a random share of the features that differ from their reference,
at every place, are set to it. What is changed is drawn by chance, so a regression on it gives
effects and no correlations. The logits of the answers tell these apart, where the metric would add
up effects of both signs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from circuit_toolkit.arguments import number, whole
from circuit_toolkit.models import LOGITS, Model, run
from circuit_toolkit.patching.placed_features import SIZE, Place, PlacedFeatures
from circuit_toolkit.tasks import Task
from circuit_toolkit.tasks.prompt_pairs import row_slices, rows_of, tokenized_pairs

DRAWS, SHARE = 8, 0.1
_ASKED = 0.01  # logits that count less in the metric, as a share of the most, are not regressed


class RandomisedRuns(NamedTuple):
    """d draws of n prompts, a draw after the other."""

    units: Mapping[Place, Tensor]  # features that an ablation changes, p in all
    change: Tensor  # (n, p), what an ablation adds to them
    imposed: Tensor  # (d n, p), what was added in each run
    logits: Tensor  # (d n, V), changes of the logits at the last token
    responses: Mapping[Place, Tensor]  # (d n, p) of a later place, changes of its features


def randomised_runs(
    runs: PlacedFeatures,
    *,
    draws: int = DRAWS,
    share: float = SHARE,
    seed: int = 0,
    watch: bool = False,
    progress: bool = False,
) -> RandomisedRuns:
    """Run every prompt so many times, each with a random share of its features ablated.

    With `watch` features of later sites are read before anything is added there.
    """
    draws, rng = whole(draws, "draws", 1), torch.Generator().manual_seed(whole(seed, "seed", 0))
    share = number(share, "share", 0, 1, open_low=True)
    units = {place: torch.as_tensor(each) for place, each in runs.active().items()}
    change = torch.cat(
        [(runs.reference[at] - runs.acts[at])[:, each] for at, each in units.items()], 1
    )
    sizes = [len(each) for each in units.values()]
    base = runs.logits.float()
    imposed, logits = [], []
    responses: dict[Place, list[Tensor]] = {}
    for _ in row_slices(draws, 1, progress, "randomised runs"):
        bits = torch.rand(change.shape, generator=rng) < share
        imposed.append(change * bits.to(change))
        for rows in row_slices(len(runs), SIZE):
            added = dict(zip(units, imposed[-1][rows].split(sizes, 1), strict=True))
            found, seen = runs.adding(added, units, rows, watch=watch)
            logits.append(found - base[rows])
            for place, values in seen.items():
                there = runs.acts[place][rows][:, units[place]]
                responses.setdefault(place, []).append(values - there)
    followed = {place: torch.cat(parts) for place, parts in responses.items()}
    return RandomisedRuns(units, change, torch.cat(imposed), torch.cat(logits), followed)


def asked(gradient: Tensor) -> Tensor:
    """Return the tokens (q,) whose logits count, of a gradient (n, V)."""
    weight = gradient.abs().mean(0)
    return (weight > _ASKED * weight.max()).nonzero()[:, 0]


def logits_of(model: Model, task: Task, bos: bool | None) -> Tensor:
    """Return logits at the last token of all texts of a task, (rows, V)."""
    pairs = tokenized_pairs(model, task, bos=bos, corrupted=bool(task.corrupted))
    batches = [pairs.clean, pairs.corrupted] if task.corrupted else [pairs.clean]
    return torch.cat(
        [
            run(model, rows_of(batch, rows), [LOGITS], last_logits=True)[LOGITS][:, -1].float()
            for batch in batches
            for rows in row_slices(len(batch.ids), SIZE)
        ]
    )

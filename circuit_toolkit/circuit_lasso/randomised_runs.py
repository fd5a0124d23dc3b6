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
from circuit_toolkit.progress import Bar
from circuit_toolkit.tasks import Task
from circuit_toolkit.tasks.prompt_pairs import row_slices, rows_of, tokenized_pairs

DRAWS, SHARE = 8, 0.1
_ASKED = 0.01  # logits that count less in the metric, as a share of the most, are not regressed


class Drawn(NamedTuple):
    """What randomised runs are to change."""

    units: Mapping[Place, Tensor]  # features that an ablation changes, p in all
    change: Tensor  # (n, p), what an ablation adds to them
    imposed: list[Tensor]  # (n, p) of each draw, what is added


def drawn(
    runs: PlacedFeatures, *, draws: int = DRAWS, share: float = SHARE, seed: int = 0
) -> Drawn:
    """Draw for every prompt, so many times, a random share of its features."""
    draws, rng = whole(draws, "draws", 1), torch.Generator().manual_seed(whole(seed, "seed", 0))
    share = number(share, "share", 0, 1, open_low=True)
    units = {place: torch.as_tensor(each) for place, each in runs.active().items()}
    change = torch.cat(
        [(runs.reference[at] - runs.acts[at])[:, each] for at, each in units.items()], 1
    )
    bits = (torch.rand(change.shape, generator=rng) < share for _ in range(draws))
    return Drawn(units, change, [change * each.to(change) for each in bits])


def by_place(units: Mapping[Place, Tensor], columns: Tensor) -> dict[Place, Tensor]:
    """Take columns of all features (B, p) apart."""
    return dict(zip(units, columns.split([*map(len, units.values())], 1), strict=True))


def followed(
    runs: PlacedFeatures,
    units: Mapping[Place, Tensor],
    added: Tensor,
    rows: slice,
    *,
    watch: bool = False,
) -> tuple[Tensor, dict[Place, Tensor]]:
    """Run some prompts with something added (B, p): changes of the logits (B, V).

    With `watch` also of the features of later sites, before anything is added there.
    """
    logits, seen = runs.adding(by_place(units, added), units, rows, watch=watch)
    responses = {at: values - runs.acts[at][rows][:, units[at]] for at, values in seen.items()}
    return logits - runs.logits.float()[rows], responses


def moved_logits(runs: PlacedFeatures, plan: Drawn, *, progress: bool = False) -> Tensor:
    """Run all that was drawn: changes of the logits at the last token, (d n, V)."""
    return torch.cat(
        [
            followed(runs, plan.units, added[rows], rows)[0]
            for added in Bar(plan.imposed, "randomised runs", shown=progress)
            for rows in row_slices(len(runs), SIZE)
        ]
    )


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

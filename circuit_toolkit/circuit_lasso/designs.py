"""What is regressed on what: activations as they are, or what randomised runs changed.

Both designs have the logits of the answers as target where a model is at hand and there are more
than two of them: a single number would add up effects of both signs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.circuit_lasso.randomised_runs import (
    asked,
    by_place,
    drawn,
    followed,
    logits_of,
)
from circuit_toolkit.circuit_lasso.regressions import Imposed
from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.patching.placed_features import SIZE, Place, PlacedFeatures
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task
from circuit_toolkit.tasks.prompt_pairs import row_slices
from circuit_toolkit.tasks.task import trained_on


def expect_captured(task: Task, acts: Activations) -> None:
    """Refuse a task whose prompts are others than those of the activations."""
    known = (acts.settings.get("trained_on") or {}).get("digests")
    same = known == (trained_on(task) or {}).get("digests")
    if len(task.texts) != acts.n_prompts or (known and not same):
        raise InputError(
            f"The activations are of {acts.n_prompts} other prompts than the {len(task.texts)} of "
            f"{task.name!r}. Pass the task that was captured."
        )


@dataclass(frozen=True)
class Answers:
    """The logits that the metric of a task reads, on all of its texts."""

    tokens: list[int]  # q
    logits: np.ndarray  # (rows, q)
    gradient: np.ndarray  # (rows, q), what each counts in the metric
    ablation: str
    references: dict[Site, np.ndarray]  # what an ablation sets features to, on average

    @classmethod
    def of(
        cls, model: Model, dictionaries: Mapping[Site, Dictionary], task: Task, rows: Activations
    ) -> Answers:
        """Run the texts of a task once."""
        expect_captured(task, rows)
        logits = logits_of(model, task, shared_bos(dictionaries))
        gradient = task.metric_gradient(logits, range(len(logits)))
        tokens = asked(gradient)
        n = len(task)
        there = slice(n, None) if task.corrupted else slice(0, n)
        references = {
            site: np.asarray(X[there].mean(0)).ravel() for site, X in rows.features.items()
        }
        Y, G = (each[:, tokens].cpu().numpy() for each in (logits, gradient))
        ablation = "corrupted" if task.corrupted else "mean"
        return cls(tokens.tolist(), Y, G, ablation, references)


def imposed_rows(
    run: Any, runs: PlacedFeatures, tokens: list[int], draws: int, seed: int
) -> tuple[Imposed, np.ndarray]:
    """Return what randomised runs change, (rows, P F) by site, and by how much logits (rows, q).

    `run` makes them, and keeps their rows for the regressions: here or on the workers of a cluster.
    """
    units, _, imposed = drawn(runs, draws=draws, seed=seed)
    slices = list(row_slices(len(runs), SIZE))
    asked_of = [(units, added[rows], rows, tokens) for added in imposed for rows in slices]
    found = run.with_model(imposed_part, runs, asked_of, "randomised runs")
    sizes = [len(added) for _, added, *_ in asked_of]
    run.take([run.call(itemgetter(0), each) for each in found], sizes)
    moved = run.collect([run.call(itemgetter(1), each) for each in found])
    features = _wide(runs, units, by_place(units, torch.cat(imposed)))
    return Imposed(features, {}), np.concatenate(moved)


def imposed_part(
    runs: PlacedFeatures,
    units: Mapping[Place, Tensor],
    added: Tensor,
    rows: slice,
    tokens: list[int],
) -> tuple[Imposed, np.ndarray]:
    """Make one run of some prompts: what was added and what followed, and the logits (B, q).

    Columns of a site are those of `Activations.pooled`: the features at each position in turn.
    """
    logits, responses = followed(runs, units, added, rows, watch=True)
    part = Imposed(_wide(runs, units, by_place(units, added)), _wide(runs, units, responses))
    return part, logits[:, tokens].double().cpu().numpy()


def _wide(
    runs: PlacedFeatures, units: Mapping[Place, Tensor], values: Mapping[Place, Any]
) -> dict[Site, sp.csr_array]:
    """Put columns of places side by side, by site."""
    found = {}
    for site in runs.dictionaries:
        parts = []
        for position in runs.positions:
            place, F = (site, position), runs.acts[site, position].shape[1]
            if place in values:
                part = sp.coo_array(values[place].cpu().numpy())
                at, n = units[place].cpu().numpy()[part.col], len(values[place])
                parts.append(sp.csr_array((part.data, (part.row, at)), (n, F)))
        if parts:
            found[site] = sp.csr_array(sp.hstack(parts))
    return found

"""Classifiers of whole texts, on features or activations of one site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.interventions.changes import zero
from circuit_toolkit.interventions.runs import intervened
from circuit_toolkit.models import Model, run, token_mask
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task
from circuit_toolkit.tasks.prompt_pairs import row_slices


def fit_probe(X: np.ndarray, y: np.ndarray) -> Any:
    """Return scikit-learn's logistic regression, penalised with one scale for all columns."""
    from sklearn.linear_model import LogisticRegression

    mean = X.mean(0)
    scale = float(np.sqrt(((X - mean) ** 2).mean())) or 1.0
    fit: Any = LogisticRegression(max_iter=5000).fit((X - mean) / scale, y)
    fit.coef_ = fit.coef_ / scale
    fit.intercept_ = fit.intercept_ - fit.coef_ @ mean
    return fit


def feature_rows(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: Task,
    site: Site,
    without: Mapping[Site, np.ndarray] | None = None,
) -> np.ndarray:
    """Average the features of one site over the tokens of each text."""
    removed = dict(without or {})
    own = removed.pop(site, np.array([], dtype=int))
    changes = [zero(where, features=each) for where, each in removed.items() if len(each)]
    # Without changes the model stays as it is, and keeps those that it brings.
    running = (
        intervened(model, changes, dictionaries=dictionaries) if changes else nullcontext(model)
    )
    with running as changed:
        acts = capture(changed, {site: dictionaries[site]}, task.clean, "mean", progress=False)
    rows = acts.features[site].toarray()
    rows[:, own] = 0
    return rows


def activation_rows(model: Model, dictionary: Dictionary, task: Task) -> np.ndarray:
    """Average what a dictionary reads over the tokens of each text."""
    rows = []
    for part in row_slices(len(task), 128):
        batch = model.tokenize(task.clean[part], bos=shared_bos([dictionary]))
        x = run(model, batch, [dictionary.site])[dictionary.site].float()
        weight = token_mask(model, batch).to(x)[..., None]
        rows.append(((x * weight).sum(1) / weight.sum(1)).cpu())
    return torch.cat(rows).numpy()


def concept_directions(model: Model, dictionary: Dictionary, concepts: Sequence[str]) -> np.ndarray:
    """Return a direction for each of some words or phrases."""
    batch = model.tokenize(list(concepts), bos=shared_bos([dictionary]))
    last = run(model, batch, [dictionary.site])[dictionary.site][:, -1].float().cpu().numpy()
    directions = last - last.mean(0)
    return directions / np.linalg.norm(directions, axis=1, keepdims=True).clip(1e-12)


def concept_rows(rows: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return the cosine of each text's activation with each concept."""
    return rows @ directions.T / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)

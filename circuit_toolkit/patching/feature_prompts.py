"""Prompts made ready for runs in which their features are changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import LOGITS, Batch, Model, run, token_mask
from circuit_toolkit.patching.feature_runs import PORTS, SIZE, FeatureRuns, Value, gathered
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks.prompt_pairs import PromptPairs, TokenPairs, rows_of, tokenized_pairs


def feature_runs(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: PromptPairs,
    *,
    value: Value = "zero",
    positions: Literal["all", "last"] = "all",
    n_prompts: int | None = None,
    min_active: int = 10,
    seed: int = 0,
) -> FeatureRuns:
    """Run prompts once, and say what their features may be changed to."""
    ordered = _checked(dictionaries)
    if value not in ("zero", "mean", "corrupted", "other") or positions not in ("all", "last"):
        raise InputError(
            "value must be 'zero', 'mean', 'corrupted' or 'other' and positions 'all' or "
            f"'last', got {value!r} and {positions!r}."
        )
    batch, twins = _tokens(model, ordered, task, value, n_prompts, seed)
    where = token_mask(model, batch)
    if positions == "last":
        where = where & (torch.arange(where.shape[1], device=where.device) == where.shape[1] - 1)
    streams, logits = _streams(model, ordered, batch)
    other = None if twins is None else _streams(model, ordered, twins)[0]
    features, acts, deltas = {}, {}, {}
    prompt = where.nonzero()[:, 0]
    for site, dictionary in ordered.items():
        old = dictionary.encode(streams[site][where])  # (tokens, F)
        new = torch.zeros_like(old)
        if value == "mean":
            new = old.mean(0, keepdim=True).expand_as(old)
        elif other is not None:
            new = dictionary.encode(other[site][where])
        active = (old != 0) if value == "mean" else (old != 0) | (new != 0)
        on = torch.zeros(len(batch.ids), old.shape[1], device=old.device)
        on.index_add_(0, prompt, active.float())
        kept = ((on > 0).sum(0) >= min_active).nonzero()[:, 0]
        if not len(kept):
            raise InputError(
                f"No feature of {site} fires on {min_active} of {len(batch.ids)} prompts. Use "
                "more prompts, or lower min_active."
            )
        features[site] = kept.cpu().numpy()
        acts[site] = old[:, kept]
        deltas[site] = new[:, kept] - old[:, kept]
    return FeatureRuns(
        model,
        ordered,
        task,
        batch,
        where,
        streams,
        features,
        acts,
        deltas,
        logits,
        value,
        positions,
    )


def _checked(dictionaries: Mapping[Site, Dictionary]) -> dict[Site, Dictionary]:
    ordered = {site: dictionaries[site] for site in sorted(dictionaries)}
    if len(ordered) < 2:
        raise InputError("Edges run between sites: pass dictionaries of two or more.")
    for site, each in ordered.items():
        if site.kind not in PORTS or each.kind != "sae" or each.needs_input:
            raise InputError(
                f"{each.name!r} at {site} is no plain autoencoder of the residual stream between "
                "blocks. Pass dictionaries at resid_pre and resid_post alone."
            )
    return ordered


def _tokens(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: PromptPairs,
    value: Value,
    n_prompts: int | None,
    seed: int,
) -> tuple[Batch, Batch | None]:
    """Tokens of the prompts, and of those whose features they get."""
    bos = shared_bos(dictionaries)
    clean = list(task.clean[:n_prompts])
    if value == "corrupted":
        tokenized_pairs(model, task, n_prompts)  # refuses corrupted prompts of other lengths
        both = model.tokenize([*clean, *task.corrupted[:n_prompts]], bos=bos)
        n = len(clean)
        return rows_of(both, slice(0, n)), rows_of(both, slice(n, 2 * n))
    batch = model.tokenize(clean, bos=bos)
    if value != "other":
        return batch, None
    return batch, rows_of(batch, TokenPairs(batch, batch).partners(seed))


def _streams(
    model: Model, dictionaries: Mapping[Site, Dictionary], batch: Batch
) -> tuple[dict[Site, Tensor], Tensor]:
    """Streams (n, T, D) at all sites, and logits at the last token (n, 1, V)."""
    parts = [
        run(
            model,
            rows_of(batch, slice(start, start + SIZE)),
            [*dictionaries, LOGITS],
            last_logits=True,
        )
        for start in range(0, len(batch.ids), SIZE)
    ]
    whole = gathered(parts)
    return whole, whole.pop(LOGITS)

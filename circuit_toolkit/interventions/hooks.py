"""Changes as edits of sites, for one batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.arguments import expect_known
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions.changes import PER_HEAD, Change
from circuit_toolkit.models import Batch, Model, run, token_mask
from circuit_toolkit.models.ports import Edit
from circuit_toolkit.sites import Site


@dataclass(frozen=True, eq=False)
class Placed:
    """A change, and where in a batch it acts: the rows of the batch, and the tokens in them."""

    change: Change
    where: Tensor
    rows: slice = field(default_factory=lambda: slice(None))
    corrupted: Tensor | None = None  # what the corrupted prompts have there, to resample


def places(
    model: Model, batch: Batch, positions: str | int, named: Mapping[str, Sequence[int]]
) -> Tensor:
    """Return on which tokens (B, T) a change acts; `named` counts tokens from the end.

    A number counts from the end where it is negative, else from the beginning of each prompt;
    prompts that have no such token are left as they are.
    """
    if positions == "all":
        return token_mask(model, batch)
    length = batch.ids.shape[1]
    lengths = batch.mask.sum(1)  # (B,); prompts are padded on the left
    if isinstance(positions, str) and positions != "last":
        known = ("all", "last", *named)
        expect_known(positions, known, f"These prompts name no position {positions!r}")
        ends = torch.as_tensor(np.asarray(named[positions]), device=lengths.device)
    else:
        index = -1 if positions == "last" else int(positions)
        if not -length <= index < length:
            raise InputError(
                f"Tokens are counted from 0 to {length - 1}, or from the end, where -1 is the "
                f"last, down to {-length}; got {index}."
            )
        ends = index - lengths if index >= 0 else torch.full_like(lengths, index)
    at = torch.arange(length, device=lengths.device)
    return (at[None] == (length + ends)[:, None]) & batch.mask.bool()


def edits(dictionaries: Mapping[Site, Dictionary], placed: Sequence[Placed]) -> dict[Site, Edit]:
    """Turn changes into what `run` writes."""
    found: dict[Site, list[Edit]] = defaultdict(list)
    of_features: dict[Site, list[Placed]] = defaultdict(list)
    for item in placed:
        if item.change.features is None:
            found[item.change.site].append(_site_edit(item))
        else:
            of_features[item.change.site].append(item)
    for site, items in of_features.items():
        for where, edit in _feature_edits(dictionaries[site], items).items():
            found[where].append(edit)
    return {site: chained(each) for site, each in found.items()}


def acts_on(item: Placed, x: Tensor) -> Tensor:
    """Return on which prompts a change of features changes anything."""
    units = torch.as_tensor(item.change.features, device=x.device)
    old = x[..., units]
    return (_changed(item, old, item.where[..., None], units) != old).flatten(1).any(1)


def chained(steps: Sequence[Edit]) -> Edit:
    """Do one edit after the other."""

    def edit(x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    return steps[0] if len(steps) == 1 else edit


def _feature_edits(dictionary: Dictionary, items: list[Placed]) -> dict[Site, Edit]:
    """Encode once, change features, add the difference: at once, or where a transcoder writes."""

    def changed(acts: Tensor) -> Tensor:
        for item in items:
            mine = acts[item.rows]
            units = torch.as_tensor(item.change.features, device=acts.device)
            mine[..., units] = _changed(item, mine[..., units], item.where[..., None], units)
        return acts

    if dictionary.kind == "sae":
        return {dictionary.site: lambda x: x + dictionary.added(x, changed)}
    held: list[Tensor] = []

    def look(x: Tensor) -> Tensor:
        held.append(dictionary.added(x, changed))
        return x

    return {dictionary.site: look, dictionary.out: lambda y: y + held.pop().to(y)}


def _site_edit(item: Placed) -> Edit:
    axis = PER_HEAD.get(item.change.site.kind)
    heads = item.change.heads

    def edit(x: Tensor) -> Tensor:
        new = x.clone()
        mine = new[item.rows].movedim(axis, 1) if axis else new[item.rows]  # a view of new
        where = item.where[:, None, :, None] if axis else item.where[..., None]
        if heads is None:
            mine[:] = _changed(item, mine, where)
        else:
            units = torch.as_tensor(heads, device=x.device)
            mine[:, units] = _changed(item, mine[:, units], where, units)
        return new

    return edit


def _changed(item: Placed, x: Tensor, where: Tensor, units: Tensor | None = None) -> Tensor:
    """Apply one change to the units that it is about, where it acts."""
    how, per_head = item.change.how, PER_HEAD.get(item.change.site.kind)
    if how == "resample":
        assert item.corrupted is not None
        new = item.corrupted.to(x)
        if item.change.features is not None:
            new = new[..., units]
        elif per_head:
            new = new.movedim(per_head, 1)
            new = new if units is None else new[:, units]
    else:
        value = _broadcast(item.change.value, x, of_heads=item.change.heads is not None)
        new = {"put": value.expand_as(x), "add": x + value, "scale": x * value}[how]
    return torch.where(where.to(x.device), new, x)


def _broadcast(value: Any, x: Tensor, *, of_heads: bool) -> Tensor:
    value = torch.as_tensor(value).to(x)
    if of_heads and value.ndim == 2:  # (heads, d) -> (heads, T, d)
        return value[:, None]
    return value[:, None, None] if of_heads and value.ndim == 1 else value


def frozen_attention(model: Model, batch: Batch) -> dict[Site, Edit]:
    """Hold all attention patterns at those of the plain run."""
    sites = [Site("attn_pattern", layer) for layer in range(model.n_layers)]
    return {site: lambda _, x=x: x for site, x in run(model, batch, sites).items()}

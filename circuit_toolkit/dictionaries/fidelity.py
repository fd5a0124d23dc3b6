"""How much of what a model computes survives in the reconstruction of a dictionary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from circuit_toolkit.dictionaries.dictionary import Dictionary
from circuit_toolkit.models import LOGITS, Batch, Model, run, token_mask
from circuit_toolkit.sites import Site

OUTLYING = 4  # a token whose norm is so many times the median is an attention sink, or the like
LARGE_VARIANCE = 20  # a coordinate whose variance is so many times the median is outlying
Edits = Mapping[Site, Callable[[Tensor], Tensor]]


def explained_variance(dictionary: Dictionary, x: Tensor, y: Tensor) -> float:
    """Return the share of variance explained of what a dictionary was trained to reconstruct."""
    target = dictionary.writes.apply(y.float())
    rest = target - dictionary.writes.apply(dictionary.reconstruct(x, y).to(target))
    return float(1 - rest.pow(2).sum() / (target - target.mean(0)).pow(2).sum())


def explained_typical(dictionary: Dictionary, x: Tensor, y: Tensor) -> float:
    """Return the same without what is outlying: tokens by their norm, coordinates by variance.

    A few tokens and coordinates, hundreds of times larger than the rest, make the usual figure; the
    model's norms take their size away.
    """
    inlying = is_inlying(x) & is_inlying(y)
    target = dictionary.writes.apply(y[inlying].float())
    rebuilt = dictionary.reconstruct(x[inlying], y[inlying])
    rest = (target - dictionary.writes.apply(rebuilt.to(target))).flatten(1)
    centred = (target - target.mean(0)).flatten(1)
    variance = centred.pow(2).mean(0)
    kept = variance <= LARGE_VARIANCE * variance.median()
    return float(1 - rest[:, kept].pow(2).sum() / centred[:, kept].pow(2).sum())


def is_inlying(x: Tensor) -> Tensor:
    """Return which of n tokens have an activation whose norm is not outlying, (n,)."""
    norm = x.float().flatten(1).norm(dim=1)
    return norm <= OUTLYING * norm.median()


def next_token_loss(
    model: Model, batches: Iterable[Batch], edits: Callable[[Tensor], Edits] | None = None
) -> float:
    """Return the mean cross-entropy of the next token, padding and the first token left out."""
    total, count = 0.0, 0
    for batch in batches:
        mask = token_mask(model, batch)
        logits = run(model, batch, [LOGITS], edits(mask) if edits else {})[LOGITS]
        ahead = mask[:, 1:] & batch.mask[:, :-1].bool()
        total += float(
            cross_entropy(
                logits[:, :-1][ahead].float(),
                batch.ids[:, 1:][ahead].to(logits.device),
                reduction="sum",
            )
        )
        count += int(ahead.sum())
    return total / count


def ce_recovered(
    model: Model, batches: Sequence[Batch], dictionary: Dictionary, base: float | None = None
) -> float:
    """Return the share of the loss of zero ablation that a spliced reconstruction wins back."""
    base = next_token_loss(model, batches) if base is None else base
    zero = next_token_loss(model, batches, lambda mask: splice(dictionary, mask, zero=True))
    spliced = next_token_loss(model, batches, lambda mask: splice(dictionary, mask))
    return (zero - spliced) / (zero - base)


def metric_with_reconstruction(
    model: Model, task: Any, dictionaries: Iterable[Dictionary], bos: bool | None
) -> tuple[float, float]:
    """Return the mean metric of the model, and with reconstructions in place at all tokens."""
    batch = model.tokenize(task.clean, bos=bos)
    where, rows = token_mask(model, batch), range(len(batch.ids))
    edits: dict[Site, Any] = {}
    for dictionary in dictionaries:
        edits |= splice(dictionary, where)
    found = []
    for write in ({}, edits):
        logits = run(model, batch, [LOGITS], write, last_logits=True)[LOGITS][:, -1]
        found.append(float(task.score(logits, rows).mean()))
    return found[0], found[1]


def splice(dictionary: Dictionary, where: Tensor, zero: bool = False) -> Edits:
    """Return edits that put the reconstruction, or zeros, in place of the activation.

    Tokens whose activation has an outlying norm keep it: no dictionary is trained on these.
    """
    seen: dict[str, Tensor] = {}

    def read(x: Tensor) -> Tensor:
        seen["x"] = x
        return x

    def write(y: Tensor) -> Tensor:
        x = seen.get("x", y)
        new = torch.zeros_like(y) if zero else dictionary.reconstruct(x, y)
        here = where.to(y.device).clone()
        here[where.to(y.device)] = is_inlying(x[where.to(x.device)]).to(y.device)
        return torch.where(here[(...,) + (None,) * (y.ndim - 2)], new.to(y), y)

    if dictionary.kind == "sae":
        return {dictionary.site: write}
    return {dictionary.site: read, dictionary.out: write}

"""How much of what a model computes survives in the reconstruction of a dictionary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from circuit_toolkit.dictionaries.dictionary import Dictionary
from circuit_toolkit.models import LOGITS, Batch, Model, run, token_mask
from circuit_toolkit.sites import Site

Edits = Mapping[Site, Callable[[Tensor], Tensor]]


def explained_variance(dictionary: Dictionary, x: Tensor, y: Tensor) -> float:
    """Return the share of variance explained of what a dictionary was trained to reconstruct."""
    target = dictionary.writes.apply(y.float())
    rest = target - dictionary.writes.apply(dictionary.reconstruct(x, y).to(target))
    return float(1 - rest.pow(2).sum() / (target - target.mean(0)).pow(2).sum())


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


def splice(dictionary: Dictionary, where: Tensor, zero: bool = False) -> Edits:
    """Return edits that put the reconstruction, or zeros, in place of the activation."""
    seen: dict[str, Tensor] = {}

    def read(x: Tensor) -> Tensor:
        seen["x"] = x
        return x

    def write(y: Tensor) -> Tensor:
        new = torch.zeros_like(y) if zero else dictionary.reconstruct(seen.get("x", y), y)
        return torch.where(where.to(y.device)[(...,) + (None,) * (y.ndim - 2)], new.to(y), y)

    if dictionary.kind == "sae":
        return {dictionary.site: write}
    return {dictionary.site: read, dictionary.out: write}

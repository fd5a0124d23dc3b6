"""What a feature's pre-activation is made of: two sums, both of which leave nothing out.

`direct` splits the stream where the feature reads it, by who wrote there: heads with the tokens
they read from, features of earlier transcoders at the same token, their errors, the embedding,
biases. `origins` follows heads back to the tokens that they read, so heads are paths, and what is
left are features, errors, embeddings and biases at all tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from circuit_toolkit.circuit_lens.frozen import ActiveFeatures, FrozenModel, TranscodedMLP

PIECE = 2**24  # numbers in memory at a time, of decoder rows of active features


@dataclass(frozen=True, eq=False)
class Reading:
    """A linear reading of the stream: a feature before its nonlinearity, or a logit."""

    row: Tensor
    at: Tensor
    layer: int
    mid: bool = False
    constant: float = 0.0


@dataclass(frozen=True, eq=False)
class Contributions:
    """Terms of a sum, for each of B examples."""

    features: Mapping[int, ActiveFeatures]
    heads: Sequence[Tensor]
    parts: Mapping[str, Tensor]

    @property
    def total(self) -> Tensor:
        """The sum, shape (B,): what the reading reads."""
        terms = [*self.heads, *self.parts.values()]
        sums = [term.flatten(1).sum(1) if term.ndim > 1 else term for term in terms]
        total = torch.stack(sums).sum(0)
        for active in self.features.values():
            total = total.index_add(0, active.row, active.value)
        return total


def direct(model: FrozenModel, reading: Reading) -> Contributions:
    """Split a reading by who wrote what it reads, at its own token."""
    g, at = reading.row, reading.at
    rows = torch.arange(len(at), device=at.device)

    def along(x: Tensor) -> Tensor:  # (B, T, D) -> (B,)
        return (x[rows, at] * g).sum(1)

    sums = dict.fromkeys(("errors", "mlps", "skips", "biases"), torch.zeros_like(g[:, 0]))
    heads: list[Tensor] = []
    features: dict[int, ActiveFeatures] = {}
    for attention in model.attention[: reading.layer + reading.mid]:
        found, bias = attention.heads(g, at)
        heads.append(found)
        sums["biases"] = sums["biases"] + bias
    for layer, mlp in enumerate(model.mlps[: reading.layer]):
        if not isinstance(mlp, TranscodedMLP):
            sums["mlps"] = sums["mlps"] + along(mlp)
            continue
        here = (mlp.active.place == at[mlp.active.row]).nonzero()[:, 0]
        features[layer] = _contributed(mlp, here, g[:, None].expand(-1, model.embed.shape[1], -1))
        sums["errors"] = sums["errors"] + along(mlp.error)
        sums["biases"] = sums["biases"] + g @ mlp.bias
        if mlp.skip is not None:
            sums["skips"] = sums["skips"] + along(mlp.skip.forward(mlp.skip.x))
    ends = along(model.embed), along(model.start - model.embed)
    return Contributions(features, heads, _parts(reading, ends, sums))


def origins(model: FrozenModel, reading: Reading) -> Contributions:
    """Split a reading by what entered the stream at any token, through frozen attention."""
    g = torch.zeros_like(model.embed)
    g[torch.arange(len(reading.at), device=g.device), reading.at] = reading.row

    def along(x: Tensor) -> Tensor:  # (B, T, D) -> (B, T)
        return (x * g).sum(2)

    sums = dict.fromkeys(("errors", "mlps", "biases"), torch.zeros_like(g[..., 0]))
    features: dict[int, ActiveFeatures] = {}
    for layer in reversed(range(reading.layer + reading.mid)):
        behind = g
        if layer < reading.layer:  # else only the attention of this block is in front
            mlp = model.mlps[layer]
            if not isinstance(mlp, TranscodedMLP):
                sums["mlps"] = sums["mlps"] + along(mlp)
            else:
                everywhere = torch.arange(len(mlp.active.row), device=g.device)
                features[layer] = _contributed(mlp, everywhere, g)
                sums["errors"] = sums["errors"] + along(mlp.error)
                sums["biases"] = sums["biases"] + g @ mlp.bias
                if mlp.skip is not None:
                    g = g + mlp.skip.backward(g)
        attention = model.attention[layer]
        into = behind if model.parallel else g
        sums["biases"] = sums["biases"] + attention.biases(into)
        g = g + attention.backward(into)
    ends = along(model.embed), along(model.start - model.embed)
    return Contributions(dict(sorted(features.items())), [], _parts(reading, ends, sums))


def _parts(
    reading: Reading, ends: tuple[Tensor, Tensor], sums: Mapping[Any, Tensor]
) -> dict[str, Tensor]:
    """Return the parts that no head and no feature contributes."""
    constant = torch.full_like(reading.row[:, 0], reading.constant)
    return {"token": ends[0], "position": ends[1], **sums, "constant": constant}


def _contributed(mlp: TranscodedMLP, which: Tensor, g: Tensor) -> ActiveFeatures:
    """Return what some active features contribute along a gradient (B, T, D)."""
    row, place, feature = (x[which] for x in (mlp.active.row, mlp.active.place, mlp.active.feature))
    size = max(1, PIECE // g.shape[2])
    pieces = zip(row.split(size), place.split(size), feature.split(size), strict=True)
    pull = [(g[r, t] * mlp.decoder[f]).sum(1) for r, t, f in pieces]
    return ActiveFeatures(row, place, feature, mlp.active.value[which] * torch.cat(pull))


class ContributionOutliers(NamedTuple):
    """Entries that stand out; all of shape (n,)."""

    row: Tensor
    index: Tensor
    source: Tensor
    value: Tensor
    z: Tensor


def head_outliers(scores: Tensor, mask: Tensor, floor: float) -> ContributionOutliers:
    """Find (head, source) pairs that stand out among all of a layer."""
    seen = mask[:, None].expand_as(scores)
    count = seen.sum((1, 2)).double()
    values = scores.double() * seen
    mean = values.sum((1, 2)) / count
    off = (values - mean[:, None, None]) * seen
    z = off / _spread((off**2).sum((1, 2)), count)[:, None, None]
    row, head, source = (z > floor).nonzero(as_tuple=True)
    found = scores[row, head, source], z[row, head, source].to(scores)
    return ContributionOutliers(row, head, source, *found)


def feature_outliers(active: ActiveFeatures, n_rows: int, floor: float) -> ContributionOutliers:
    """Find features that stand out among those of a layer that are active."""
    value = active.value.double()
    zero = value.new_zeros(n_rows)
    count = zero.index_add(0, active.row, torch.ones_like(value))
    mean = zero.index_add(0, active.row, value) / count.clamp(min=1)
    off = value - mean[active.row]
    spread = _spread(zero.index_add(0, active.row, off**2), count)
    z = off / spread[active.row]
    keep = (z > floor).nonzero()[:, 0]
    parts = (active.row, active.feature, active.place, active.value, z.to(active.value))
    return ContributionOutliers(*(part[keep] for part in parts))


def _spread(squares: Tensor, count: Tensor) -> Tensor:
    """Sample standard deviation; infinite where nothing can stand out."""
    variance = squares / (count - 1).clamp(min=1)
    tiny = torch.finfo(variance.dtype).tiny
    return torch.where(variance > tiny, variance, torch.inf).sqrt()

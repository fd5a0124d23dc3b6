"""What a feature's pre-activation is made of: two sums, both of which leave nothing out.

`direct` splits the stream where the feature reads it, by who wrote there: heads with the tokens
they read from, features of earlier transcoders at the same token, their errors, the embedding,
biases. `origins` follows heads back to the tokens that they read, so heads are paths, and what is
left are features, errors, embeddings and biases at all tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from circuit_toolkit.attribution.frozen.linear import ActiveFeatures, Decomposed, FrozenModel

PIECE = 2**24  # numbers in memory at a time, of decoder rows of active features


@dataclass(frozen=True, eq=False)
class Reading:
    """A linear reading of the stream: a feature before its nonlinearity, or a logit."""

    row: Tensor
    at: Tensor
    layer: int
    mid: bool = False
    constant: float | Tensor = 0.0
    of_stream: bool = False  # an autoencoder of the stream reads it before it decomposes it


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
        if not isinstance(mlp, Decomposed):
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


class Passed(NamedTuple):
    """What a gradient passes on its way back, and the gradient there."""

    kind: Literal["mlp", "attention", "stream", "embed"]
    layer: int
    g: Tensor
    at: Tensor | None  # tokens of the gradient, where it is at one each
    mid: bool = False


def backwards(
    model: FrozenModel, reading: Reading, g: Tensor, at: Tensor | None = None
) -> Iterator[Passed]:
    """Propagate a gradient from a reading back to the embedding, or to a decomposed stream."""
    place = start = reading.layer, reading.mid
    own, behind = (start if reading.of_stream else None), g
    while place != (0, False) and (place == own or place not in model.streams):
        layer, mid = place
        if not mid:
            layer -= 1
            yield Passed("mlp", layer, g, at)
            skip, behind = getattr(model.mlps[layer], "skip", None), g
            g = g if skip is None else g + skip.backward(g, at)
        else:
            into = behind if model.parallel else g
            yield Passed("attention", layer, into, at)
            back = model.attention[layer].backward(into, at)
            if at is None:
                g = g + back
            else:
                back[torch.arange(len(at), device=at.device), at] += g
                g, at = back, None
        place = layer, not mid
    kind = "stream" if place != own and place in model.streams else "embed"
    yield Passed(kind, place[0], g, at, place[1])


def origins(model: FrozenModel, reading: Reading) -> Contributions:
    """Split a reading by what entered the stream at any token, through frozen attention."""
    g = torch.zeros_like(model.embed)
    g[torch.arange(len(reading.at), device=g.device), reading.at] = reading.row

    def along(x: Tensor, g: Tensor) -> Tensor:  # (B, T, D) -> (B, T)
        return (x * g).sum(2)

    sums = dict.fromkeys(("errors", "mlps", "biases"), torch.zeros_like(g[..., 0]))
    features: dict[int, ActiveFeatures] = {}
    for passed in backwards(model, reading, g):
        g, layer = passed.g, passed.layer
        if passed.kind == "attention":
            sums["biases"] = sums["biases"] + model.attention[layer].biases(g)
        if passed.kind != "mlp":
            continue
        mlp = model.mlps[layer]
        if not isinstance(mlp, Decomposed):
            sums["mlps"] = sums["mlps"] + along(mlp, g)
        else:
            everywhere = torch.arange(len(mlp.active.row), device=g.device)
            features[layer] = _contributed(mlp, everywhere, g)
            sums["errors"] = sums["errors"] + along(mlp.error, g)
            sums["biases"] = sums["biases"] + g @ mlp.bias
    ends = along(model.embed, g), along(model.start - model.embed, g)
    return Contributions(dict(sorted(features.items())), [], _parts(reading, ends, sums))


def _parts(
    reading: Reading, ends: tuple[Tensor, Tensor], sums: Mapping[Any, Tensor]
) -> dict[str, Tensor]:
    """Return the parts that no head and no feature contributes."""
    constant = torch.zeros_like(reading.row[:, 0]) + reading.constant
    return {"token": ends[0], "position": ends[1], **sums, "constant": constant}


def _contributed(mlp: Decomposed, which: Tensor, g: Tensor) -> ActiveFeatures:
    """Return what some active features contribute along a gradient (B, T, D)."""
    row, place, feature = (x[which] for x in (mlp.active.row, mlp.active.place, mlp.active.feature))
    size = max(1, PIECE // g.shape[2])
    pieces = zip(row.split(size), place.split(size), feature.split(size), strict=True)
    pull = [(g[r, t] * mlp.decoder[f]).sum(1) for r, t, f in pieces]
    return ActiveFeatures(row, place, feature, mlp.active.value[which] * torch.cat(pull))

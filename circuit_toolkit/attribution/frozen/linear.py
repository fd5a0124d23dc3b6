"""The model at one batch with attention patterns and norm factors held: then it is linear.

What moves along the residual stream moves through attention (pattern, W_V, W_O) and through the
skip matrices of transcoders; everything else that an MLP puts out counts as given: features, what
they leave unexplained, and biases. All functions here are on tensors, and none needs a gradient.

A gradient is of shape (B, T, D), where the last tokens may be left out if they are 0; or of shape
(R, D), at one token each (`at`) of one prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


def held_at(x: Tensor, g: Tensor, at: Tensor | None) -> Tensor:
    """Return what is held, (B, T, ...), at the tokens of a gradient."""
    return x[:, : g.shape[1]] if at is None else x[0, at]


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """Attention of a layer, with the weight and the centring of the norm in front folded in."""

    values: Tensor
    value_bias: Tensor
    out: Tensor
    bias: Tensor


@dataclass(frozen=True, eq=False)
class FrozenAttention:
    """Attention of a layer at one batch."""

    weights: AttentionWeights
    pattern: Tensor
    x: Tensor
    gain: Tensor
    behind: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return what a change of the stream, (B, T, D), changes of what attention adds to it."""
        values = torch.einsum("bsd,hde->bhse", self.gain * x, self.weights.values)
        z = self.pattern @ values  # (B, H, T, d_head)
        out = torch.einsum("bhte,hed->btd", z, self.weights.out)
        return out if self.behind is None else out * self.behind

    def backward(self, g: Tensor, at: Tensor | None = None) -> Tensor:
        """Return the gradient in front of attention of one behind it."""
        g, weights = g if self.behind is None else g * held_at(self.behind, g, at), self.weights
        u = torch.einsum("...d,hed->...he", g, weights.out)
        if at is not None:  # a pattern reads few tokens with few heads: half the work
            read = torch.einsum("rhe,hde->rhd", u, weights.values)
            n = int(at.max()) + 1
            return self.gain[:, :n] * (self.pattern[0][:, at, :n].permute(1, 2, 0) @ read)
        n = g.shape[1]
        pattern = self.pattern[..., :n, :n]
        if len(pattern) == 1:  # of one prompt: broadcast, it would be copied for each gradient
            R, E = len(g), u.shape[-1]
            u = u.permute(2, 1, 0, 3).reshape(-1, n, R * E)  # (H, T, R d_head)
            u = (pattern[0].mT @ u).unflatten(-1, (R, E)).permute(2, 0, 1, 3)
        else:
            u = pattern.mT @ u.transpose(1, 2)  # (B, H, S, d_head)
        return self.gain[:, :n] * torch.einsum("bhse,hde->bsd", u, weights.values)

    def biases(self, g: Tensor, at: Tensor | None = None) -> Tensor:
        """Return what biases of attention add along a gradient behind it, without its last axis."""
        g, weights = g if self.behind is None else g * held_at(self.behind, g, at), self.weights
        # A pattern sums to 1, so z holds the bias of the values once.
        fixed = weights.bias + torch.einsum("he,hed->d", weights.value_bias, weights.out)
        return g @ fixed

    def heads(self, g: Tensor, at: Tensor, *, raw: bool = False) -> tuple[Tensor, Tensor]:
        """Split what attention adds at one token of each row by head and source."""
        rows = torch.arange(len(at), device=at.device)
        if self.behind is not None and not raw:
            g = g * self.behind[rows, at]
        weights = self.weights
        u = torch.einsum("bd,hed->bhe", g, weights.out)
        read = torch.einsum("bhe,hde->bhd", u, weights.values)
        values = torch.einsum("bhd,bsd->bhs", read, self.gain * self.x)
        values = values + torch.einsum("bhe,he->bh", u, weights.value_bias)[:, :, None]
        return self.pattern[rows, :, at] * values, g @ weights.bias


@dataclass(frozen=True, eq=False)
class ActiveFeatures:
    """Features that are active in a batch; all of shape (n,)."""

    row: Tensor
    place: Tensor
    feature: Tensor
    value: Tensor


@dataclass(frozen=True, eq=False)
class FrozenSkip:
    """The linear path of a skip transcoder at one batch."""

    matrix: Tensor
    x: Tensor
    gain: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return what a change of the stream, (B, T, D), changes of what is added."""
        return (self.gain * x) @ self.matrix

    def backward(self, g: Tensor, at: Tensor | None = None) -> Tensor:
        """Return the gradient in front of the path of one behind it."""
        return held_at(self.gain, g, at) * (g @ self.matrix.T)


@dataclass(frozen=True, eq=False)
class Decomposed:
    """What an MLP adds to the stream at one batch, or the stream itself, by its dictionary."""

    active: ActiveFeatures
    decoder: Tensor
    bias: Tensor
    error: Tensor
    skip: FrozenSkip | None = None


@dataclass(frozen=True, eq=False)
class FrozenModel:
    """Blocks of a model at one batch of B prompts, T tokens long with padding.

    `streams` are autoencoders of the stream: whoever reads behind one reads its features and what
    they leave unexplained, so nothing in front of it is seen. Each by the block in front of which
    it stands, and whether behind that block's attention.
    """

    embed: Tensor
    start: Tensor
    attention: Sequence[FrozenAttention]
    mlps: Sequence[Decomposed | Tensor]
    parallel: bool = False
    streams: Mapping[tuple[int, bool], Decomposed] = field(default_factory=dict)

    def forward(self, x: Tensor, first: int, *, mid: bool = False) -> Tensor:
        """Propagate a change of the stream to its end."""
        for layer in range(first, len(self.mlps)):
            before = x
            if not (mid and layer == first):
                x = x + self.attention[layer].forward(x)
            mlp = self.mlps[layer]
            if isinstance(mlp, Decomposed) and mlp.skip is not None:
                x = x + mlp.skip.forward(before if self.parallel else x)
        return x

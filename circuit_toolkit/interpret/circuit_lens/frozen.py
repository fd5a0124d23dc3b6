"""The model at one batch with attention patterns and norm factors held: then it is linear.

What moves along the residual stream moves through attention (pattern, W_V, W_O) and through the
skip matrices of transcoders; everything else that an MLP puts out counts as given: features, what
they leave unexplained, and biases. All functions here are on tensors, and none needs a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """Attention of a layer, with the weight and the centring of the norm in front folded in.

    Parameters
    ----------
    values : Tensor, shape (H, D, d_head)
        From the stream times the factor of the norm to values.
    value_bias : Tensor, shape (H, d_head)
        With what the bias of the norm becomes.
    out : Tensor, shape (H, d_head, D)
        W_O.
    bias : Tensor, shape (D,)
        b_O.
    """

    values: Tensor
    value_bias: Tensor
    out: Tensor
    bias: Tensor


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention of a layer at one batch.

    Parameters
    ----------
    weights : AttentionWeights
        Of the layer.
    pattern : Tensor, shape (B, H, T, T)
        From queries to keys.
    x : Tensor, shape (B, T, D)
        The stream in front of the norm.
    gain : Tensor, shape (B, T, 1)
        Factor of that norm.
    behind : Tensor, shape (B, T, D), optional
        By what a norm behind multiplies (Gemma).
    """

    weights: AttentionWeights
    pattern: Tensor
    x: Tensor
    gain: Tensor
    behind: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Give what a change of the stream, (B, T, D), changes of what attention adds to it."""
        values = torch.einsum("bsd,hde->bhse", self.gain * x, self.weights.values)
        z = self.pattern @ values  # (B, H, T, d_head)
        out = torch.einsum("bhte,hed->btd", z, self.weights.out)
        return out if self.behind is None else out * self.behind

    def backward(self, g: Tensor) -> Tensor:
        """Give the gradient in front of attention of one behind it, (B, T, D)."""
        g = g if self.behind is None else g * self.behind
        u = torch.einsum("btd,hed->bhte", g, self.weights.out)
        u = self.pattern.transpose(2, 3) @ u  # (B, H, S, d_head)
        return self.gain * torch.einsum("bhse,hde->bsd", u, self.weights.values)

    def biases(self, g: Tensor) -> Tensor:
        """Give what biases of attention add along a gradient behind it, (B, T, D) -> (B, T)."""
        g = g if self.behind is None else g * self.behind
        weights = self.weights
        # A pattern sums to 1, so z holds the bias of the values once.
        fixed = weights.bias + torch.einsum("he,hed->d", weights.value_bias, weights.out)
        return g @ fixed

    def heads(self, g: Tensor, at: Tensor, *, raw: bool = False) -> tuple[Tensor, Tensor]:
        """Split what attention adds at one token of each row by head and source.

        Parameters
        ----------
        g : Tensor, shape (B, D)
            Direction that reads it.
        at : Tensor of int, shape (B,)
            The tokens.
        raw : bool
            Leave the norm behind attention out, as published.

        Returns
        -------
        Tensor, shape (B, H, T)
            By head and source token; biases of values counted in.
        Tensor, shape (B,)
            What b_O adds.
        """
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
class Fired:
    """Features that are active in a batch; all of shape (n,).

    Parameters
    ----------
    row, place, feature : Tensor of int
        Where: row of the batch, token, number of the feature.
    value : Tensor
        Activation, or what it contributes.
    """

    row: Tensor
    place: Tensor
    feature: Tensor
    value: Tensor


@dataclass(frozen=True, eq=False)
class Skip:
    """The linear path of a skip transcoder at one batch.

    Parameters
    ----------
    matrix : Tensor, shape (D, D)
        From the stream times the factor of the norm to what is added.
    x : Tensor, shape (B, T, D)
        The stream in front of the norm.
    gain : Tensor, shape (B, T, 1)
        Factor of that norm.
    """

    matrix: Tensor
    x: Tensor
    gain: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Give what a change of the stream, (B, T, D), changes of what is added."""
        return (self.gain * x) @ self.matrix

    def backward(self, g: Tensor) -> Tensor:
        """Give the gradient in front of the path of one behind it, (B, T, D)."""
        return self.gain * (g @ self.matrix.T)


@dataclass(frozen=True, eq=False)
class Transcoded:
    """What an MLP adds to the stream at one batch, taken apart by its transcoder.

    Parameters
    ----------
    fired : Fired
        Active features.
    decoder : Tensor, shape (F, D)
        What one unit of each feature adds.
    bias : Tensor, shape (D,)
        What is always added: of the decoder, and of the skip path.
    error : Tensor, shape (B, T, D)
        What the transcoder leaves unexplained.
    skip : Skip, optional
        The skip path.
    """

    fired: Fired
    decoder: Tensor
    bias: Tensor
    error: Tensor
    skip: Skip | None = None


@dataclass(frozen=True, eq=False)
class FrozenModel:
    """Blocks of a model at one batch of B prompts, T tokens long with padding.

    Parameters
    ----------
    embed : Tensor, shape (B, T, D)
        Token embeddings.
    start : Tensor, shape (B, T, D)
        What enters the first block: with positions, where they are added.
    attention : list of Attention
        Of as many layers as are needed.
    mlps : list of Transcoded, or of Tensor of shape (B, T, D)
        Of as many layers, or one fewer; what an MLP without a transcoder adds, as a whole.
    parallel : bool
        Whether attention and MLP of a block read the same stream.
    """

    embed: Tensor
    start: Tensor
    attention: Sequence[Attention]
    mlps: Sequence[Transcoded | Tensor]
    parallel: bool = False

    def forward(self, x: Tensor, first: int, *, mid: bool = False) -> Tensor:
        """Carry a change of the stream to its end.

        Parameters
        ----------
        x : Tensor, shape (B, T, D)
            Added in front of a block.
        first : int
            Which block; the number of blocks for none.
        mid : bool
            It is added behind the attention of that block.

        Returns
        -------
        Tensor, shape (B, T, D)
            Behind the last block.
        """
        for layer in range(first, len(self.mlps)):
            before = x
            if not (mid and layer == first):
                x = x + self.attention[layer].forward(x)
            mlp = self.mlps[layer]
            if isinstance(mlp, Transcoded) and mlp.skip is not None:
                x = x + mlp.skip.forward(before if self.parallel else x)
        return x

"""The small sparse autoencoder that gives every head output its codes; many seeds at a time.

O'Neill and Bui, 2024, arXiv 2405.12522; details as in their code. One autoencoder is shared by all
heads of a model and trained on a handful of prompts, so it takes seconds, and a run with another
seed is one more matrix of a batched product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_toolkit.errors import InputError


@dataclass(frozen=True, eq=False)
class CodeAutoencoders:
    """Autoencoders of S seeds: `relu((x - centre) encoder + bias) decoder + centre`."""

    encoder: Tensor
    bias: Tensor
    decoder: Tensor
    centre: Tensor
    loss: Tensor

    def encode(self, x: Tensor) -> Tensor:
        """Return the activations of all codes."""
        return _encode(x, self.encoder, self.bias, self.centre)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the reconstruction, shape (S, rows, D), of activations of codes (S, rows, n)."""
        return codes @ self.decoder + self.centre


def train_autoencoders(
    x: Tensor,
    *,
    n_features: int = 200,
    l1: float = 0.02,
    steps: int = 500,
    learning_rate: float = 1e-3,
    reference: bool = False,
    seed: int = 0,
) -> CodeAutoencoders:
    """Train an autoencoder for every seed, each on rows of its own, all rows in every step."""
    if n_features < 1 or steps < 0 or l1 < 0 or learning_rate <= 0:
        raise InputError(
            "n_features must be 1 or more, steps and l1 0 or more, learning_rate above 0, got "
            f"{n_features}, {steps}, {l1}, {learning_rate}."
        )
    if not bool(torch.isfinite(x).all()):
        raise InputError("Head outputs hold NaN or infinity.")
    seeds, width = len(x), x.shape[2]
    rng = torch.Generator().manual_seed(seed)
    axis = 1 if reference else 2  # of the decoder (S, n, D)
    encoder = _unit(torch.randn(seeds, n_features, width, generator=rng).mT.contiguous(), 1)
    decoder = _unit(torch.randn(seeds, n_features, width, generator=rng), axis)
    bias = (2 * torch.rand(seeds, 1, n_features, generator=rng) - 1) / math.sqrt(width)
    centre = torch.zeros(seeds, 1, width)
    weights = [each.to(x.device).requires_grad_() for each in (encoder, bias, decoder, centre)]
    encoder, bias, decoder, centre = weights
    adam = torch.optim.Adam(weights, lr=learning_rate)
    loss = torch.full((seeds,), torch.nan)
    for _ in range(steps):
        codes = _encode(x, encoder, bias, centre)
        error = torch.baddbmm(centre, codes, decoder) - x
        loss = error.square().mean((1, 2)) + l1 * codes.sum(2).mean(1)
        adam.zero_grad()
        loss.sum().backward()  # seeds share nothing, so each gets the gradient of its own
        with torch.no_grad():
            for weight, along in ((encoder, 1), (decoder, axis)):
                assert weight.grad is not None
                weight.grad -= (weight.grad * weight).sum(along, keepdim=True) * weight
            adam.step()
            encoder.copy_(_unit(encoder, 1))
            decoder.copy_(_unit(decoder, axis))
    done = (each.detach().cpu() for each in weights)
    return CodeAutoencoders(*done, loss=loss.detach().cpu())


def _encode(x: Tensor, encoder: Tensor, bias: Tensor, centre: Tensor) -> Tensor:
    # The centre is taken off behind the product: its gradient is then that of one row, not of all.
    return torch.relu(
        torch.baddbmm(bias - centre @ encoder, x.expand(len(encoder), -1, -1), encoder)
    )


def _unit(x: Tensor, axis: int) -> Tensor:
    return x / x.norm(dim=axis, keepdim=True)

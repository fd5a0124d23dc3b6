"""What an activating example does to the next tokens: its direction propagated to the logits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from circuit_toolkit.attribution.frozen.linear import FrozenModel
from circuit_toolkit.dictionaries.directions import unembedding_rows
from circuit_toolkit.models import Model
from circuit_toolkit.models.weights import norm_gain


class OutputInfluence(NamedTuple):
    """What examples add to the logit of the token that follows; all of shape (n,)."""

    row: Tensor
    step: Tensor
    token: Tensor
    value: Tensor
    z: Tensor


@torch.no_grad()
def logit_contributions(
    model: Model,
    frozen: FrozenModel,
    last: Tensor,
    written: Tensor,
    at: Tensor,
    places: Tensor,
    layer: int,
    *,
    mid: bool = False,
) -> Tensor:
    """Propagate what is written at one token of each row to the logits at others."""
    rows = torch.arange(len(at), device=at.device)
    change = torch.zeros_like(last)
    change[rows, at] = written
    change = frozen.forward(change, layer, mid=mid)[rows[:, None], places]  # (B, n, D)
    row = model.architecture
    norm = model.hf.get_submodule(row.final_norm)
    gain = norm_gain(last[rows[:, None], places], norm, row)
    return gain * change @ unembedding_rows(model).T


def influence(contributions: Tensor, follows: Tensor, known: Tensor) -> OutputInfluence:
    """Look up what the tokens that follow are given."""
    row, step = known.nonzero(as_tuple=True)
    token = follows[row, step]
    spread, mean = torch.std_mean(contributions.double(), dim=2)
    value = contributions[row, step, token]
    z = (value - mean[row, step]) / spread[row, step].clamp(min=torch.finfo(torch.float64).tiny)
    return OutputInfluence(row, step + 1, token, value, z.to(value))

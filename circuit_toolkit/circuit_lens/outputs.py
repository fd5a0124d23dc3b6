"""What an activating example does to the next tokens: its direction propagated to the logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_toolkit.circuit_lens.frozen import FrozenModel
from circuit_toolkit.dictionaries.directions import unembedding_rows
from circuit_toolkit.models import Model
from circuit_toolkit.models.continuation import continued
from circuit_toolkit.models.weights import norm_gain


@dataclass(frozen=True, eq=False)
class OutputInfluence:
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


def continued_prompts(model: Model, ids: list[list[int]], n: int) -> list[list[int]]:
    """Let the model go on from some prompts, by the likeliest token each time."""
    rows, end = [list(each) for each in ids], model.tokenizer.eos_token_id
    groups: dict[int, list[int]] = {}  # by how much may follow: a long prompt cuts no other short
    for i, row in enumerate(rows):
        is_over = len(row) > 1 and row[-1] == end  # one alone may be the beginning, as GPT-2's is
        groups.setdefault(0 if is_over else min(n, model.context - len(row)), []).append(i)
    for room, group in groups.items():
        if not room:
            continue
        said = continued(model, model.tokenize([rows[i] for i in group]), room)
        for i, tokens in zip(group, said.tolist(), strict=True):
            known = [token for token in tokens if token >= 0]
            rows[i] += known if len(known) == len(tokens) else [*known, end]
    return rows

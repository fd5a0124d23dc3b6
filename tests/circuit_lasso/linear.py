"""A transformer that is linear, so that what depends on what is known by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_toolkit.benchmark.interpbench.cases import case_model

TOKENS, LENGTH = 6, 3


def linear_model(read_by_mlp: str = "a0.h0"):
    """Two heads that write the same, each to its own dimensions; the MLP reads one of them.

    Dimensions 0-1 hold the embedding, 2-3 what a0.h0 writes, 4-5 what a0.h1 writes, 6-7 what m0
    writes, which is all that the logits read. Attention is uniform, the MLP's ReLU always open.
    """
    rng = torch.Generator().manual_seed(0)
    heads, wide, out = 2, 2, 2
    embed = torch.zeros(TOKENS, 8)
    embed[:, :2] = torch.randn(TOKENS, 2, generator=rng)
    values = torch.zeros(heads, 8, wide)
    values[:, :2] = torch.randn(2, wide, generator=rng)
    writes = torch.zeros(heads, wide, 8)
    writes[0, :, 2:4] = writes[1, :, 4:6] = torch.eye(2)
    reads = torch.zeros(8, 2)
    place = {"a0.h0": 2, "a0.h1": 4}[read_by_mlp]
    reads[place : place + 2] = torch.randn(2, 2, generator=rng)
    back = torch.zeros(2, 8)
    back[:, 6:] = torch.eye(2)
    unembed = torch.zeros(8, out)
    unembed[6:] = torch.randn(2, out, generator=rng)
    none = torch.zeros(heads, 8, wide)
    tensors = {
        "embed.W_E": embed,
        "pos_embed.W_pos": torch.zeros(LENGTH, 8),
        "blocks.0.attn.W_Q": none,
        "blocks.0.attn.W_K": none.clone(),
        "blocks.0.attn.W_V": values,
        **{f"blocks.0.attn.b_{name}": torch.zeros(heads, wide) for name in "QKV"},
        "blocks.0.attn.W_O": writes,
        "blocks.0.attn.b_O": torch.zeros(8),
        "blocks.0.mlp.W_in": reads,
        "blocks.0.mlp.b_in": torch.full((2,), 50.0),
        "blocks.0.mlp.W_out": back,
        "blocks.0.mlp.b_out": torch.zeros(8),
        "unembed.W_U": unembed,
        "unembed.b_U": torch.zeros(out),
    }
    words = ["begin", *"abcde"]
    return case_model(tensors, "linear", act_fn="relu", causal=False, vocabulary=words, bos=0)


@dataclass(frozen=True)
class Values:
    """Random prompts; the change is that of the first logit."""

    clean: Sequence[tuple[int, ...]]
    corrupted: Sequence[tuple[int, ...]]
    name: str = "values"

    def metric_of(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        return logits[..., 0].mean(1)

    def change(self, logits: Tensor, reference: Tensor, rows: Sequence[int]) -> Tensor:
        return (logits - reference)[..., 0].abs().mean(1)


def values(n: int = 400) -> Values:
    rng = torch.Generator().manual_seed(1)
    ids = torch.randint(1, TOKENS, (2, n, LENGTH), generator=rng)
    clean, corrupted = (tuple(map(tuple, part.tolist())) for part in ids)
    return Values(clean, corrupted)

"""The small transformer of the known-circuit benchmarks, as TransformerLens writes its weights.

Token and position embedding, blocks of attention and an MLP, unembedding; as a rule without norms,
with or without a causal mask. Import it where it is needed: it needs transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutput

from circuit_toolkit.errors import FileFormatError
from circuit_toolkit.models import Architecture

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}  # "gelu" by the error function
LAYOUT = Architecture(
    blocks="blocks",
    embed="embed",
    final_norm="final_norm",
    attention="attn",
    attn_norm="attn_norm",
    queries="attn.queries",
    keys="attn.keys",
    values="attn.values",
    out_proj="attn.out",
    attn_out="attn.out",
    mlp_norm="mlp_norm",
    mlp_out="mlp",
    layer_norm=True,  # where there are norms
)


class SmallConfig(PretrainedConfig):
    """Sizes, under the names that Hugging Face gives them."""

    model_type = "small_transformer"


class SmallTransformer(PreTrainedModel, GenerationMixin):
    """Blocks of attention and an MLP on a stream."""

    config_class = SmallConfig

    def __init__(self, config: SmallConfig):
        super().__init__(config)
        width, norm = config.hidden_size, nn.LayerNorm if config.norm else nn.Identity
        self.embed = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Embedding(config.max_position_embeddings, width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.final_norm = norm(width)
        self.unembed = nn.Linear(width, config.vocab_out)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: object
    ) -> CausalLMOutput:
        """Return logits (B, T, outputs) of tokens (B, T), which may be padded on the left."""
        T = input_ids.shape[1]
        position, hidden = torch.arange(T), None  # hidden: True where a key may not be seen
        if self.config.causal:
            hidden = torch.ones(T, T, dtype=torch.bool).tril(-1)  # (keys, queries)
        if attention_mask is not None and not attention_mask.all():
            position = (attention_mask.cumsum(1) - 1).clamp(min=0)
            padded = attention_mask[:, None, :, None] == 0
            hidden = padded if hidden is None else hidden | padded
        x = self.embed(input_ids) + self.positions(position.to(input_ids.device))
        if hidden is not None:  # finite, so that a query without keys is no NaN
            hidden = x.new_zeros(hidden.shape).masked_fill(hidden.to(x.device), -1e30)
        for block in self.blocks:
            x = block(x, hidden)
        return CausalLMOutput(logits=self.unembed(self.final_norm(x)))


# Else the pipeline that nnsight makes of it lists all the models that it would rather have.
AutoConfig.register(SmallConfig.model_type, SmallConfig)
AutoModelForCausalLM.register(SmallConfig, SmallTransformer)


class Block(nn.Module):
    """Attention, then an MLP."""

    def __init__(self, config: SmallConfig):
        super().__init__()
        width, norm = config.hidden_size, nn.LayerNorm if config.norm else nn.Identity
        self.attn_norm, self.attn = norm(width), Attention(config)
        self.mlp_norm = norm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.d_mlp),
            ACTIVATIONS[config.act_fn](),
            nn.Linear(config.d_mlp, width),
        )

    def forward(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        """Return the stream behind the block, (B, T, D)."""
        x = x + self.attn(self.attn_norm(x), hidden)
        return x + self.mlp(self.mlp_norm(x))


class Attention(nn.Module):
    """Heads in parallel; scores are divided by the root of the width of a head."""

    def __init__(self, config: SmallConfig):
        super().__init__()
        inner = config.num_attention_heads * config.head_dim
        self.width = config.head_dim
        self.queries = nn.Linear(config.hidden_size, inner)
        self.keys = nn.Linear(config.hidden_size, inner)
        self.values = nn.Linear(config.hidden_size, inner)
        self.out = nn.Linear(inner, config.hidden_size)

    def forward(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        """Return what the heads write, with the bias of all, (B, T, D)."""
        q, k, v = (
            project(x).unflatten(-1, (-1, self.width)).transpose(1, 2)
            for project in (self.queries, self.keys, self.values)
        )  # (B, H, T, d_head) each
        # Keys before queries: a softmax over the last of short axes takes three times as long.
        scores = k @ q.transpose(-1, -2) * self.width**-0.5  # (B, H, keys, queries)
        if hidden is not None:
            scores = scores + hidden
        return self.out((scores.softmax(-2).transpose(-1, -2) @ v).transpose(1, 2).flatten(2))


def small_transformer(
    tensors: Mapping[str, Tensor], name: str, *, act_fn: str, causal: bool
) -> SmallTransformer:
    """Build the transformer from weights under the names of TransformerLens."""
    if act_fn not in ACTIVATIONS:
        raise FileFormatError(
            f"{name}: activation {act_fn!r} is unknown (known: {', '.join(ACTIVATIONS)})."
        )

    def tensor(key: str) -> Tensor:
        if key not in tensors:
            raise FileFormatError(f"{name}: the weights hold no {key!r}.")
        found = tensors[key].float()
        if not found.isfinite().all():
            raise FileFormatError(f"{name}: {key} holds NaN or infinity.")
        return found

    layers = sum(key.endswith("attn.W_Q") for key in tensors)
    first = tensor("blocks.0.attn.W_Q")
    if first.ndim != 3:
        raise FileFormatError(
            f"{name}: blocks.0.attn.W_Q must have shape (heads, width, head width), got "
            f"{tuple(first.shape)}."
        )
    heads, width, d_head = first.shape
    sizes: dict[str, Any] = dict(
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_size=width,
        head_dim=d_head,
        vocab_size=len(tensor("embed.W_E")),
        max_position_embeddings=len(tensor("pos_embed.W_pos")),
        d_mlp=tensor("blocks.0.mlp.W_in").shape[-1],
        vocab_out=tensor("unembed.W_U").shape[-1],
        act_fn=act_fn,
        causal=causal,
        norm="blocks.0.ln1.w" in tensors,
    )
    config = SmallConfig(**sizes)
    config._name_or_path = name
    module = SmallTransformer(config)
    state = {
        "embed.weight": tensor("embed.W_E"),
        "positions.weight": tensor("pos_embed.W_pos"),
        "unembed.weight": tensor("unembed.W_U").T,
        "unembed.bias": tensor("unembed.b_U"),
    }
    norms = [("final_norm", "ln_final")] if config.norm else []
    for i in range(layers):
        block = f"blocks.{i}"  # under both names
        if config.norm:
            norms += [(f"{block}.attn_norm", f"{block}.ln1"), (f"{block}.mlp_norm", f"{block}.ln2")]
        for to, letter in [("queries", "Q"), ("keys", "K"), ("values", "V")]:
            weight = tensor(f"{block}.attn.W_{letter}")  # (H, D, d_head)
            state[f"{block}.attn.{to}.weight"] = weight.transpose(1, 2).flatten(0, 1)
            state[f"{block}.attn.{to}.bias"] = tensor(f"{block}.attn.b_{letter}").flatten()
        state[f"{block}.attn.out.weight"] = tensor(f"{block}.attn.W_O").flatten(0, 1).T
        state[f"{block}.attn.out.bias"] = tensor(f"{block}.attn.b_O")
        for to, letters in [(0, "in"), (2, "out")]:
            state[f"{block}.mlp.{to}.weight"] = tensor(f"{block}.mlp.W_{letters}").T
            state[f"{block}.mlp.{to}.bias"] = tensor(f"{block}.mlp.b_{letters}")
    for ours, theirs in norms:
        state[f"{ours}.weight"] = tensor(f"{theirs}.w")
        state[f"{ours}.bias"] = tensor(f"{theirs}.b")
    try:
        module.load_state_dict(state)
    except RuntimeError as error:  # names every shape that does not fit, a line each
        cause = str(error).splitlines()[-1].strip()
        raise FileFormatError(f"{name}: the weights do not fit each other. {cause}") from error
    return module.eval()

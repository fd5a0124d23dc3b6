"""Weights as TransformerLens's mathematics writes them, whatever the family calls them."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from circuit_toolkit.errors import InputError
from circuit_toolkit.models.architectures import Architecture
from circuit_toolkit.models.devices import plain
from circuit_toolkit.models.model import Model

Projection = Literal["queries", "keys", "values"]


def in_block(model: Model, path: str | None, layer: int) -> nn.Module:
    """Return a module of a block of the Hugging Face model; None is a norm that is not there."""
    if path is None:
        raise InputError(
            f"In {model.name} no norm stands in front of attention and MLP, so what needs the norm "
            "that is read through cannot be had. Sites of the stream and of attention, and their "
            "interventions, can."
        )
    return model.hf.get_submodule(model.architecture.in_block(path, layer))


def expect_weights(model: Model) -> None:
    """Refuse a model of which only the layout is here: a local run would fetch its weights."""
    if model.remote:
        raise InputError(
            f"The weights of {model.name} are not here, only its layout: it was loaded with "
            "remote=True. On NDIF capture(..., remote=True) reads sites, but not head_out, "
            "attn_pattern, or attn_z under folded value biases; regressions and head codes take "
            "what it gives. For all else load the model here: load_model(name)."
        )


def _matrix(model: Model, module: Any) -> Tensor:
    """Weight of a linear map, shape (inputs, outputs); GPT-2's Conv1D holds it that way round."""
    weight = module.weight
    expect_weights(model)
    return plain((weight.T if isinstance(module, nn.Linear) else weight).detach(), model.device)


def linear_map(model: Model, module: Any) -> tuple[Tensor, Tensor]:
    """Return weight (inputs, outputs) and bias (outputs,) of a linear map."""
    matrix = _matrix(model, module)
    if module.bias is None:
        return matrix, matrix.new_zeros(matrix.shape[1])
    return matrix, module.bias.detach().to(matrix)


def output_matrix(model: Model, layer: int) -> Tensor:
    """Return W_O, which turns z of each head into what the head adds to the stream."""
    matrix = _matrix(model, in_block(model, model.architecture.out_proj, layer))
    factor = factor_of(model, model.architecture.added_factor)
    matrix = matrix if factor == 1 else matrix * factor
    return matrix.unflatten(0, (model.n_heads, model.d_head))


def output_bias(model: Model, layer: int) -> Tensor:
    """Return b_O, which attention adds to the stream whatever it reads."""
    _, bias = linear_map(model, in_block(model, model.architecture.out_proj, layer))
    return bias * factor_of(model, model.architecture.added_factor)


def factor_of(model: Model, entry: str | None) -> float:
    """Return a factor that the configuration holds, 1 where the family has none."""
    return 1.0 if entry is None else float(getattr(model.config, entry))


def input_matrices(model: Model, layer: int, name: Projection) -> tuple[Tensor, Tensor]:
    """Return W_Q, W_K or W_V, and its bias."""
    row = model.architecture
    matrix, bias = linear_map(model, in_block(model, getattr(row, name), layer))  # (D, outputs)
    third = ("queries", "keys", "values").index(name)
    heads, width = model.n_heads, model.d_head

    def of_heads(x: Tensor) -> Tensor:  # (..., outputs) -> (..., H, d_head)
        if row.value_rows == "thirds":
            x = x.split(_parts(x, heads * width), -1)[third]
        if row.value_rows == "interleaved":
            return x.unflatten(-1, (heads, 3, width))[..., third, :]
        x = x.unflatten(-1, (-1, width))
        return x.repeat_interleave(heads // x.shape[-2], dim=-2)

    return of_heads(matrix).transpose(0, 1), of_heads(bias)


def value_bias(model: Model, layer: int, *, fold_ln: bool) -> Tensor:
    """Return b_V: since a pattern sums to 1, every z holds it once."""
    matrices, bias = input_matrices(model, layer, "values")
    if model.architecture.sinks and bias.any():
        raise InputError(
            f"Patterns of {model.name} add up to less than 1, so z does not hold the biases of the "
            "values once: attention is no linear sum with them. Use methods that run the model."
        )
    norm: Any = in_block(model, model.architecture.attn_norm, layer) if fold_ln else None
    if getattr(norm, "bias", None) is None:
        return bias
    return bias + torch.einsum("d,hde->he", norm.bias.detach().to(matrices), matrices)


def with_heads(y: Tensor, new: Tensor, name: Projection, row: Architecture) -> Tensor:
    """Put queries, keys or values into the output of the map that makes them."""
    if row.value_rows == "own":
        return new.flatten(-2)
    axis = -2 if row.value_rows == "interleaved" else -3
    shape = (*new.shape[-2:-1], 3, new.shape[-1]) if axis == -2 else (3, *new.shape[-2:])
    if y.shape[-1] != 3 * new.shape[-2:].numel():
        y = _in_thirds(y, *new.shape[-2:])
    parts = list(y.unflatten(-1, shape).unbind(axis))  # three of (B, T, H, d_head)
    parts[("queries", "keys", "values").index(name)] = new
    return torch.stack(parts, axis).flatten(-3)


def _parts(y: Tensor, queries: int) -> list[int]:
    """Numbers of queries, keys and values of one map; heads may share the last two."""
    shared = (y.shape[-1] - queries) // 2
    return [queries, shared, shared]


def _in_thirds(y: Tensor, heads: int, width: int) -> Tensor:
    """Repeat keys and values that heads share, in the output of a map that makes all three."""
    parts = [part.unflatten(-1, (-1, width)) for part in y.split(_parts(y, heads * width), -1)]
    return torch.cat([x.repeat_interleave(heads // x.shape[-2], -2).flatten(-2) for x in parts], -1)


def of_every_head(y: Tensor, model: Model) -> Tensor:
    """Repeat keys or values (B, T, groups * d_head) that heads share, for each head its own."""
    groups = y.shape[-1] // model.d_head
    if model.architecture.value_rows == "thirds" and groups != 3 * model.n_heads:
        return _in_thirds(y, model.n_heads, model.d_head)
    if model.architecture.value_rows != "own" or groups == model.n_heads:
        return y
    heads = y.unflatten(-1, (groups, -1)).repeat_interleave(model.n_heads // groups, dim=-2)
    return heads.flatten(-2)


def norm_weight(norm: Any, row: Architecture) -> tuple[Tensor, Tensor | None]:
    """Weight by which a norm multiplies, and its bias, each of shape (D,)."""
    bias = getattr(norm, "bias", None)
    weight = plain(norm.weight.detach()) + row.norm_offset
    return weight, None if bias is None else plain(bias.detach())


def normalised(x: Tensor, norm: Any, row: Architecture) -> Tensor:
    """Apply a norm without its weight and bias, in float32 as transformers does."""
    y = x.float()
    if row.layer_norm:
        y = y - y.mean(-1, keepdim=True)
    return (y * norm_gain(x, norm, row)).to(x.dtype)


def norm_gain(x: Tensor, norm: Any, row: Architecture) -> Tensor:
    """Return what a norm multiplies each activation by: one over its size, its weight left out."""
    eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    y = x.float()
    if row.layer_norm:
        y = y - y.mean(-1, keepdim=True)
    return torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)


def shared_by_norm(parts: Tensor, total: Tensor, norm: Any, row: Architecture) -> Tensor:
    """Return the share of each part (B, n, T, D) in what a norm makes of their total (B, T, D).

    The factor is that of the total, as in this run; a bias of the norm is nobody's.
    """
    if row.layer_norm:
        parts = parts - parts.mean(-1, keepdim=True)
    gain = norm_gain(total, norm, row)
    factor = gain * norm_weight(norm, row)[0].to(gain)
    return (parts * factor[:, None]).to(parts.dtype)


def frozen_norm(x: Tensor, norm: nn.Module, row: Architecture) -> Tensor:
    """Apply a norm whole, whose factor is a constant to gradients; a mean it takes away is not."""
    y = x.float()
    if row.layer_norm:
        y = y - y.mean(-1, keepdim=True)
    y = y * norm_gain(x.detach(), norm, row) * norm_weight(norm, row)[0].to(y)
    return (y - y.detach()).to(x.dtype) + normed(x, norm).detach()


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    """Apply a norm whole, past the hooks by which a trace of the model would see it."""
    return type(norm).forward(norm, x.to(next(norm.parameters(), x))).to(x)

"""From a batch of prompts to the frozen model: one run, and weights that are worked out once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from circuit_toolkit.attribution.frozen.linear import (
    ActiveFeatures,
    AttentionWeights,
    Decomposed,
    FrozenAttention,
    FrozenModel,
    FrozenSkip,
)
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.directions import decoder_rows, is_normed, stream_of
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Batch, Model, run
from circuit_toolkit.models.weights import (
    in_block,
    input_matrices,
    norm_gain,
    norm_weight,
    output_bias,
    output_matrix,
    value_bias,
)
from circuit_toolkit.sites import Site


@dataclass(frozen=True, eq=False)
class Written:
    """What a dictionary writes to the stream."""

    dictionary: Dictionary
    decoder: Tensor
    bias: Tensor
    skip: Tensor | None


@dataclass(frozen=True, eq=False)
class FrozenWeights:
    """Weights of the first blocks of a model, with norms folded in."""

    attention: list[AttentionWeights]
    transcoders: list[Written | None]
    streams: dict[tuple[int, bool], Written] = field(default_factory=dict)


def upstream_of(dictionaries: Mapping[Site, Dictionary]) -> dict[int, Dictionary]:
    """Return the transcoder of each layer."""
    found: dict[int, Dictionary] = {}
    for dictionary in dictionaries.values():
        if dictionary.out.kind != "mlp_out" or dictionary.kind != "transcoder":
            continue
        first = found.setdefault(dictionary.out.layer, dictionary)
        if first is not dictionary:
            raise InputError(
                f"{first.name!r} and {dictionary.name!r} both reconstruct {dictionary.out}. "
                "Pass one of them."
            )
    return found


@torch.no_grad()
def frozen_weights(
    model: Model,
    transcoders: Mapping[int, Dictionary],
    n_attention: int,
    n_mlps: int,
    streams: Mapping[tuple[int, bool], Dictionary] | None = None,
) -> FrozenWeights:
    """Work out the weights of the first layers, and of autoencoders of the stream."""
    attention = [_attention_weights(model, layer) for layer in range(n_attention)]
    each = [transcoders.get(layer) for layer in range(n_mlps)]
    return FrozenWeights(
        attention,
        [d and _written(model, d) for d in each],
        {place: _written(model, d) for place, d in (streams or {}).items()},
    )


def _attention_weights(model: Model, layer: int) -> AttentionWeights:
    row = model.architecture
    weight, _ = norm_weight(in_block(model, row.attn_norm, layer), row)
    values = input_matrices(model, layer, "values")[0].float()
    values = values * weight.to(values)[:, None]
    if row.layer_norm:
        values = values - values.mean(1, keepdim=True)  # the norm takes the mean over D away
    return AttentionWeights(
        values,
        value_bias(model, layer, fold_ln=True).float(),
        output_matrix(model, layer).float(),
        output_bias(model, layer).to(values),
    )


def _written(model: Model, dictionary: Dictionary) -> Written:
    decoder = decoder_rows(model, dictionary)
    device = model.device
    nothing = decoder.new_zeros(1, dictionary.n_features)
    bias = dictionary.writes.revert_difference(dictionary.decode(nothing))[0]
    matrix = getattr(dictionary.sae, "W_skip", None)  # (D_out, D_in)
    if matrix is None:
        return Written(dictionary, decoder.to(device), bias.to(device), None)
    row, site = model.architecture, dictionary.site
    norm = in_block(model, row.mlp_norm, site.layer)

    def skipped(x: Tensor) -> Tensor:  # normalised stream -> what is added
        if site.kind == "mlp_norm":
            weight, offset = norm_weight(norm, row)
            x = x * weight.to(x)
            x = x if offset is None else x + offset.to(x)
        seen = dictionary.reads.apply(x.float())
        return dictionary.writes.revert_difference(seen @ matrix.detach().to(seen).T)

    fixed = skipped(decoder.new_zeros(1, model.width))  # (1, D)
    skip = skipped(torch.eye(model.width, device=decoder.device)) - fixed
    if is_normed(dictionary) and row.layer_norm:
        skip = skip - skip.mean(0)  # the norm takes the mean over D away
    parts = (decoder, bias + fixed[0], skip)
    return Written(dictionary, *(part.to(device) for part in parts))


@torch.no_grad()
def frozen_run(
    model: Model,
    batch: Batch,
    weights: FrozenWeights,
    read: set[Site],
    counted: Tensor | None = None,
) -> tuple[FrozenModel, dict[Site, Tensor]]:
    """Run a batch once and hold its patterns and norm factors.

    Features count at the tokens that are `counted`, by default all; elsewhere what they write is
    left to the error.
    """
    row, counted = model.architecture, batch.mask if counted is None else counted
    behind = row.attn_out != row.out_proj  # a norm stands behind attention
    sites = {Site("embed"), Site("resid_pre", 0), *read}
    for layer in range(len(weights.attention)):
        sites |= {Site("resid_pre", layer), Site("attn_pattern", layer)}
        sites |= {Site("attn_z", layer)} if behind else set()
    for layer, each in enumerate(weights.transcoders):
        sites.add(Site("mlp_out", layer))
        if each is not None:
            sites.add(each.dictionary.site)
            sites |= {stream_of(model, each.dictionary)} if each.skip is not None else set()
    sites |= {each.dictionary.site for each in weights.streams.values()}
    values = {site: x.float() for site, x in run(model, batch, sorted(sites)).items()}
    attention = []
    for layer, each in enumerate(weights.attention):
        x = values[Site("resid_pre", layer)]
        gain = norm_gain(x, in_block(model, row.attn_norm, layer), row)
        factor = None
        if behind:
            z = values[Site("attn_z", layer)]
            out = torch.einsum("bthe,hed->btd", z, each.out) + each.bias
            factor = _norm_factor(model, in_block(model, row.attn_out, layer), out)
        pattern = values[Site("attn_pattern", layer)]
        attention.append(FrozenAttention(each, pattern, x, gain, factor))
    mlps = [
        _decomposed(model, each, values, values[Site("mlp_out", layer)], counted)
        for layer, each in enumerate(weights.transcoders)
    ]
    streams: Any = {
        place: _decomposed(model, each, values, values[each.dictionary.site], counted)
        for place, each in weights.streams.items()
    }
    ends = values[Site("embed")], values[Site("resid_pre", 0)]
    return FrozenModel(*ends, attention, mlps, model.parallel, streams), values


def _norm_factor(model: Model, norm: nn.Module, x: Tensor) -> Tensor:
    """By what a norm behind a module multiplies what that puts out, weight included."""
    weight, _ = norm_weight(norm, model.architecture)
    gain = norm_gain(x, norm, model.architecture)
    return gain * weight.to(gain)


def _decomposed(
    model: Model,
    weights: Written | None,
    values: Mapping[Site, Tensor],
    out: Tensor,
    mask: Tensor,
) -> Decomposed | Tensor:
    """Take the output of an MLP, or the stream, apart, if there is a dictionary."""
    if weights is None:
        return out
    dictionary = weights.dictionary
    acts = dictionary.encode(values[dictionary.site]).to(out) * mask[..., None]  # (B, T, F)
    error = out - acts @ weights.decoder - weights.bias
    skip = None
    if weights.skip is not None:
        place = stream_of(model, dictionary)
        x = values[place]
        gain = torch.ones_like(x[..., :1])
        if is_normed(dictionary):
            norm = in_block(model, model.architecture.mlp_norm, place.layer)
            gain = norm_gain(x, norm, model.architecture)
        skip = FrozenSkip(weights.skip, x, gain)
        error = error - skip.forward(x)
    row, place, feature = acts.nonzero(as_tuple=True)
    active = ActiveFeatures(row, place, feature, acts[row, place, feature])
    return Decomposed(active, weights.decoder, weights.bias, error, skip)

"""What features read of the residual stream and write to it, in the stream's own coordinates.

Whatever norm stands in between, and however the model was processed that a dictionary was trained
on: a feature's pre-activation is `gain * x @ rows[i] + constant`, with x the raw stream and gain
the norm's factor at that token (`norm_gain`), and one unit of it adds `rows[i]` of the decoder.
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuit_toolkit.dictionaries.dictionary import BY_INPUT, Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.models.devices import plain
from circuit_toolkit.models.weights import (
    expect_weights,
    factor_of,
    in_block,
    norm_weight,
    output_matrix,
)
from circuit_toolkit.sites import Site

STREAM = ("resid_pre", "resid_mid", "resid_post")
_NORMED = ("mlp_in", "mlp_norm")
_WRITERS = (*STREAM, "mlp_out", "attn_out", "attn_z")


def stream_of(model: Model, dictionary: Dictionary) -> Site:
    """Return the place of the residual stream that a dictionary reads."""
    site = dictionary.site
    if site.kind in STREAM:
        return site
    if site.kind in _NORMED:
        return Site("resid_pre" if model.parallel else "resid_mid", site.layer)
    raise InputError(
        f"{dictionary.name!r} reads {site}, which is not the residual stream: its encoder cannot "
        "be set against embeddings and decoders. Use transcoders (kind='transcoder') or "
        "autoencoders of the stream."
    )


def is_normed(dictionary: Dictionary) -> bool:
    """Whether a norm stands between the stream and what a dictionary reads."""
    return dictionary.site.kind in _NORMED


@torch.no_grad()
def encoder_rows(model: Model, dictionary: Dictionary, features: Tensor | None = None) -> Tensor:
    """Return what features, by default all, read of the residual stream."""
    stream_of(model, dictionary)
    if getattr(dictionary.sae, "W_enc", None) is None:
        raise InputError(
            f"{dictionary.name!r} finds its features by matching pursuit: it has no encoder."
        )
    row = model.architecture
    matrix = dictionary.sae.W_enc.detach()
    chosen = slice(None) if features is None else features.to(matrix.device)
    rows = matrix[:, chosen].float().T  # (F, D)
    if dictionary.reads.centre or dictionary.sae.cfg.normalize_activations == "layer_norm":
        rows = rows - rows.mean(1, keepdim=True)
    if dictionary.reads.scale is not None:
        rows = rows / dictionary.reads.scale.to(rows)
    if dictionary.site.kind == "mlp_norm":
        weight, _ = norm_weight(in_block(model, row.mlp_norm, dictionary.site.layer), row)
        rows = rows * weight.to(rows)
    if is_normed(dictionary) and row.layer_norm:
        rows = rows - rows.mean(1, keepdim=True)
    return (rows * _gain(dictionary)[chosen, None]).to(model.device)


@torch.no_grad()
def encoder_constants(
    model: Model, dictionary: Dictionary, features: Tensor | None = None
) -> Tensor:
    """Return what does not depend on the stream in pre-activations; see `encoder_rows`."""
    stream_of(model, dictionary)
    sae, reads, row = dictionary.sae, dictionary.reads, model.architecture
    if sae.cfg.normalize_activations in BY_INPUT:
        raise InputError(
            f"{dictionary.name!r} scales each activation by its own norm: its pre-activations are "
            "not a sum over what is written to the stream. Use one without such a scale."
        )
    if getattr(sae, "b_enc", None) is None:
        raise InputError(
            f"{dictionary.name!r} has gates, or no encoder: its features are not one linear "
            "reading of the stream. Use one of another architecture."
        )
    chosen = slice(None) if features is None else features.to(sae.W_enc.device)
    weights = sae.W_enc.detach()[:, chosen].float()  # (D, F)
    at_zero = weights.new_zeros(model.width)  # what the dictionary sees where the norm puts out 0
    if dictionary.site.kind == "mlp_norm":
        _, bias = norm_weight(in_block(model, row.mlp_norm, dictionary.site.layer), row)
        at_zero = at_zero if bias is None else bias.to(weights)
    seen = reads.apply(at_zero)
    if sae.cfg.apply_b_dec_to_input:
        seen = seen - sae.b_dec.detach().float()
    constants = seen @ weights + sae.b_enc.detach().float()[chosen]
    return (constants * _gain(dictionary)[chosen]).to(model.device)


def _gain(dictionary: Dictionary) -> Tensor:
    """Factor of pre-activations, shape (F,): norms of decoder rows, where activations hold them."""
    rows = dictionary.sae.W_dec.detach().float()
    if getattr(dictionary.sae.cfg, "rescale_acts_by_decoder_norm", False):
        return rows.norm(dim=1)
    return rows.new_ones(len(rows))


def can_promote(dictionary: Dictionary) -> bool:
    """Whether what a dictionary reconstructs is added to the residual stream."""
    return dictionary.out.kind in _WRITERS


@torch.no_grad()
def decoder_rows(model: Model, dictionary: Dictionary) -> Tensor:
    """Return what one unit of each feature adds to the residual stream."""
    out = dictionary.out
    if not can_promote(dictionary):
        raise InputError(
            f"{dictionary.name!r} reconstructs {out}, which is not added to the residual stream."
        )
    rows = dictionary.directions.to(model.device)
    if dictionary.shape:
        rows = rows.unflatten(-1, dictionary.shape)
    rows = dictionary.writes.revert_difference(rows)
    if out.kind == "attn_z":
        rows = torch.einsum("fhe,hed->fd", rows, output_matrix(model, out.layer).to(rows))
    return rows


@torch.no_grad()
def embedding_rows(model: Model, tokens: Tensor | None = None) -> Tensor:
    """Return what tokens put on the stream by themselves, positions left out."""
    module = model.hf.get_submodule(model.architecture.embed)
    expect_weights(model)
    if tokens is None:
        tokens = torch.arange(model.d_vocab)
    factor = factor_of(model, model.architecture.embed_factor)
    return factor * module(tokens.to(model.device)).float()


@torch.no_grad()
def unembedding_rows(model: Model, *, final_norm: bool = True) -> Tensor:
    """Return what each logit reads of the last stream."""
    expect_weights(model)
    head = model.hf.get_output_embeddings()
    rows = plain(head.weight.detach(), model.device)  # type: ignore[union-attr]
    rows = rows / factor_of(model, model.architecture.logit_divisor)
    if not final_norm:
        return rows
    row = model.architecture
    weight, _ = norm_weight(model.hf.get_submodule(row.final_norm), row)
    rows = rows * weight.to(rows)
    return rows - rows.mean(1, keepdim=True) if row.layer_norm else rows

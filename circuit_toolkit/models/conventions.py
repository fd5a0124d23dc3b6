"""What TransformerLens does to weights, and how the activations that it shows differ for it.

Most published dictionaries were trained on activations of a TransformerLens model, whose weights
may have been processed when it was loaded. The computation stays the same; what is seen at a site
does not. The differences are affine, so they are worked out once for a site and applied to
whatever the Hugging Face module computes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_toolkit.models.model import Model
from circuit_toolkit.models.weights import in_block, norm_weight, output_matrix, value_bias
from circuit_toolkit.sites import Site

_WRITTEN = ("embed", "resid_pre", "head_out", "attn_out", "resid_mid", "mlp_out", "resid_post")


@dataclass(frozen=True)
class Conventions:
    """Processing of a TransformerLens model, named as `HookedTransformer.from_pretrained` does.

    Parameters
    ----------
    fold_ln : bool
        Weights and biases of the norms are folded into the maps behind them.
    center_writing_weights : bool
        What writes to the residual stream has its mean over D taken away. Families with RMSNorm
        are left as they are, since these norms see the mean.
    center_unembed : bool
        Logits have their mean over the vocabulary taken away. Families that cap their logits are
        left as they are.
    fold_value_biases : bool
        Biases of the values are moved into the output of attention.
    prepend_bos : bool, optional
        Whether prompts begin with the beginning-of-sequence token; None: as the tokenizer does.

    Notes
    -----
    `from_pretrained` has all of them true, `from_pretrained_no_processing`, which sae_lens uses,
    all but `prepend_bos` false.
    """

    fold_ln: bool = False
    center_writing_weights: bool = False
    center_unembed: bool = False
    fold_value_biases: bool = False
    prepend_bos: bool | None = None


RAW = Conventions()  # what Hugging Face modules compute


@dataclass(frozen=True, eq=False)
class Shift:
    """How an activation under some conventions differs from the raw one: y = P((x - b) / w).

    Parameters
    ----------
    centre : bool
        Whether P takes away the mean over the last axis; else it is the identity.
    offset : Tensor, optional
        b, of the last axes of the activation.
    scale : Tensor, optional
        w, of the last axis.
    deaf : bool
        Whether the maps that read the site do not hear the mean over the last axis: TransformerLens
        centres those behind a folded LayerNorm, so what is written loses its mean.
    """

    centre: bool = False
    offset: Tensor | None = None
    scale: Tensor | None = None
    deaf: bool = False

    @property
    def is_identity(self) -> bool:
        """Whether what is read is the raw activation."""
        return not self.centre and self.offset is None and self.scale is None

    def apply(self, x: Tensor) -> Tensor:
        """Turn a raw activation into the conventional one.

        Parameters
        ----------
        x : Tensor, shape (..., *`Model.shape_at`)
            What `run` gives.

        Returns
        -------
        Tensor, of the same shape
        """
        y = self._affine(x)
        return y - y.mean(-1, keepdim=True) if self.centre else y

    def revert(self, new: Tensor, x: Tensor) -> Tensor:
        """Turn a conventional activation into the raw one, to write it.

        Parameters
        ----------
        new : Tensor
            The value to be written, under the conventions.
        x : Tensor, of the same shape
            The raw activation that it replaces; what the conventions took away comes from there.

        Returns
        -------
        Tensor, of the same shape
        """
        if self.centre:
            new = new + self._affine(x).mean(-1, keepdim=True)
        new = self.revert_difference(new)
        return new if self.offset is None else new + self.offset.to(new)

    def revert_difference(self, change: Tensor) -> Tensor:
        """Turn a difference of conventional activations into one of raw activations.

        Parameters
        ----------
        change : Tensor
            To be added to a conventional activation.

        Returns
        -------
        Tensor, of the same shape
        """
        if self.deaf:
            change = change - change.mean(-1, keepdim=True)
        return change if self.scale is None else change * self.scale.to(change)

    def _affine(self, x: Tensor) -> Tensor:
        if self.offset is not None:
            x = x - self.offset.to(x)
        return x if self.scale is None else x / self.scale.to(x)


def shift(model: Model, conventions: Conventions, site: Site) -> Shift:
    """Work out how an activation under some conventions differs from what `run` gives.

    Parameters
    ----------
    model : Model
        The model; only weights of the one layer are read.
    conventions : Conventions
        What was done to the TransformerLens model.
    site : Site
        Where.

    Returns
    -------
    Shift

    Raises
    ------
    InputError
        If the model lacks the site, or weights are needed that are not here.
    """
    model.check_site(site)
    row, kind = model.architecture, site.kind
    centre = conventions.center_writing_weights and row.layer_norm and kind in _WRITTEN
    if kind == "logits":
        capped = getattr(model.config, "final_logit_softcapping", None) is not None
        return Shift(centre=conventions.center_unembed and not capped)
    if kind in ("mlp_in", "mlp_norm") and conventions.fold_ln:
        if kind == "mlp_in":
            return Shift(deaf=row.layer_norm)
        weight, bias = norm_weight(in_block(model, row.mlp_norm, site.layer), row)
        return Shift(offset=bias, scale=weight, deaf=row.layer_norm)
    offset = None
    if kind in ("attn_z", "head_out") and conventions.fold_value_biases:
        offset = value_bias(model, site.layer, fold_ln=conventions.fold_ln)  # (H, d_head)
        if kind == "head_out":
            offset = torch.einsum("he,hed->hd", offset, output_matrix(model, site.layer))
    if offset is not None and not offset.any():
        offset = None  # a family without such biases
    return Shift(centre=centre, offset=offset)

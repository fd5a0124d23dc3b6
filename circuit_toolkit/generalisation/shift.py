"""SHIFT's ranking of features: integrated gradients of a classifier (Marks et al., 2024)."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.errors import InputError
from circuit_toolkit.generalisation.spurious import Ranking
from circuit_toolkit.models import Batch, Model, run, token_mask
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task
from circuit_toolkit.tasks.prompt_pairs import row_slices

_KINDS = ("resid_pre", "attn_out", "mlp_out", "resid_post")


def rank_by_gradients(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: Task,
    *,
    reader: Dictionary,
    weights: np.ndarray,
    signs: np.ndarray,
    n: int = 100,
    steps: int = 10,
    batch_size: int = 128,
    progress: bool = False,
) -> Ranking:
    """Rank features by integrated gradients to zero, through model and classifier."""
    for each in (*dictionaries.values(), reader):
        if each.site.kind not in _KINDS or each.kind != "sae" or each.needs_input:
            raise InputError(
                f"Integrated gradients need autoencoders at {', '.join(_KINDS)} that scale no "
                f"activation by its own norm; {each.name!r} is a {each.kind} at {each.site}."
            )
    began = time.perf_counter()
    support = {where: torch.zeros(each.n_features) for where, each in dictionaries.items()}
    texts = task.clean
    column = torch.as_tensor(weights, dtype=torch.float32)
    bos = shared_bos([*dictionaries.values(), reader])
    for rows in row_slices(len(texts), batch_size, progress, "gradients"):
        batch = model.tokenize(texts[rows], bos=bos)
        mask = token_mask(model, batch)
        share = mask / mask.sum(1, keepdim=True)  # (B, T)
        sign = torch.as_tensor(signs[rows], dtype=torch.float32)
        # What the margin would gain by each token's features.
        value = share * sign.to(share.device)[:, None]
        plain = run(model, batch, list(dictionaries))
        for where, dictionary in dictionaries.items():
            z = dictionary.encode(plain[where])  # (B, T, F)
            if (
                where == reader.site
            ):  # the classifier reads them: the gradient is the same everywhere
                gain = (z * value[..., None].to(z.device)).sum((0, 1)).cpu() * column
            else:
                slope = torch.zeros(())
                for step in range(steps):
                    removed = (1 - (step + 0.5) / steps) * dictionary.difference(
                        z * 0, z * mask[..., None].to(z.device)
                    )
                    slope = slope + _slope(model, batch, where, removed, reader, column, value)
                rows = dictionary.writes.revert_difference(dictionary.directions)  # (F, D)
                along = (slope / steps) @ rows.T  # (B, T, F)
                gain = (z * mask[..., None] * along).sum((0, 1)).cpu()
            support[where] += gain / len(texts)
    triples = [
        (where, int(f), float(each[f]))
        for where, each in support.items()
        for f in torch.nonzero(each > 0)
    ]
    found = sorted(triples, key=lambda each: -each[2])
    return Ranking.of(found[:n], time.perf_counter() - began)


def _slope(
    model: Model,
    batch: Batch,
    where: Site,
    removed: Tensor,
    reader: Dictionary,
    column: Tensor,
    value: Tensor,
) -> Tensor:
    """Gradient (B, T, D) of the summed margins with respect to a site, from which is taken."""
    leaves: list[Tensor] = []

    def less(x: Tensor) -> Tensor:
        leaves.append((x.detach() - removed.to(x)).requires_grad_())
        return leaves[0]

    x = run(model, batch, [reader.site], {where: less}, grad=True)[reader.site]
    with torch.enable_grad():
        acts = reader.encode_for_gradients(x)  # (B, T, F)
        margin = ((acts @ column.to(acts)) * value.to(acts)).sum()
    return torch.autograd.grad(margin, leaves[0])[0].float()

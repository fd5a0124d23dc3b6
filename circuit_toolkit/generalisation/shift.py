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
from circuit_toolkit.models import Batch, Model, token_mask
from circuit_toolkit.models.ports import Port, block_port, run_ports
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

# Where an autoencoder's features can be scaled with a gradient: site -> module and side of a block.
_PORTS = {
    "resid_pre": ("", "input"),
    "attn_out": ("attn_out", "output"),
    "mlp_out": ("mlp_out", "output"),
    "resid_post": ("", "output"),
}


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
) -> Ranking:
    """Rank features by integrated gradients to zero, through model and classifier."""
    for each in (*dictionaries.values(), reader):
        if each.site.kind not in _PORTS or each.kind != "sae" or each.needs_input:
            raise InputError(
                f"Integrated gradients need autoencoders at {', '.join(_PORTS)} that scale no "
                f"activation by its own norm; {each.name!r} is a {each.kind} at {each.site}."
            )
    began = time.perf_counter()
    support = {where: torch.zeros(each.n_features) for where, each in dictionaries.items()}
    texts = task.clean
    column = torch.as_tensor(weights, dtype=torch.float32)
    for start in range(0, len(texts), batch_size):
        batch = model.tokenize(
            texts[start : start + batch_size], bos=shared_bos([*dictionaries.values(), reader])
        )
        mask = token_mask(model, batch)
        share = mask / mask.sum(1, keepdim=True)  # (B, T)
        sign = torch.as_tensor(signs[start : start + len(batch.ids)], dtype=torch.float32)
        # What the margin would gain by each token's features.
        value = share * sign.to(share.device)[:, None]
        plain = run_ports(model, batch, {}, {_port(model, where) for where in dictionaries})
        for where, dictionary in dictionaries.items():
            z = dictionary.encode(plain[_port(model, where)])  # (B, T, F)
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

    end = _port(model, reader.site)
    x = run_ports(model, batch, {_port(model, where): [less]}, {end}, grad=True)[end]
    # `Dictionary.encode` keeps no graph.
    with torch.enable_grad():
        acts = reader.sae.encode(reader.reads.apply(x.float()))  # (B, T, F)
        margin = ((acts @ column.to(acts)) * value.to(acts)).sum()
    return torch.autograd.grad(margin, leaves[0])[0].float()


def _port(model: Model, site: Site) -> Port:
    return block_port(model, *_PORTS[site.kind], site.layer)

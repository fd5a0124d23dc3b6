"""Logits as sums over the stream: without their cap, and without their mean."""

from __future__ import annotations

import torch
from torch import Tensor

from circuit_toolkit.models.model import Model


def plain_logits(model: Model, logits: Tensor) -> Tensor:
    """Return logits (..., V) before their cap, minus their mean over the vocabulary, in float64."""
    plain = logits.double()
    if cap := getattr(model.config, "final_logit_softcapping", None):
        plain = cap * torch.atanh(plain / cap)
    return plain - plain.mean(-1, keepdim=True)


def logits_are_changed_late(model: Model) -> bool:
    """Return whether what the unembedding puts out is capped or scaled to give the logits."""
    divided = model.architecture.logit_divisor is not None
    return divided or bool(getattr(model.config, "final_logit_softcapping", None))

"""Which model something was made for: the very object, or another one of the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_toolkit.models.model import Model

SAMPLES = 16  # entries of each weight that are looked at: reading all takes seconds
HALF = 2.0**-8  # how far bfloat16 rounds, twice over


@dataclass(frozen=True, eq=False)
class Identity:
    """What tells a model from others: its object, and some entries of all its weights."""

    name: str
    key: str
    dtype: torch.dtype
    samples: Mapping[str, Tensor]  # none of weights that are far

    def fits(self, model: Model) -> bool:
        """Return whether a model is this one, or one of the same weights to rounding."""
        if model.key == self.key:
            return True
        other = identity_of(model)
        if not self.samples or not other.samples:
            return self.name == other.name
        if self.samples.keys() != other.samples.keys():
            return False
        rounding = 0.0 if self.dtype == other.dtype else HALF
        return all(
            mine.shape == theirs.shape and torch.allclose(mine, theirs, rounding, rounding / 1000)
            for mine, theirs in ((self.samples[name], other.samples[name]) for name in self.samples)
        )


def identity_of(model: Model) -> Identity:
    """Return what tells a model from others."""
    weights = {} if model.remote else dict(model.hf.named_parameters())
    samples = {name: _some(each) for name, each in weights.items() if not each.is_meta}
    return Identity(model.name, model.key, model.dtype, samples)


def _some(weight: Tensor) -> Tensor:
    flat = weight.detach().reshape(-1)
    n = min(SAMPLES, len(flat))
    places = torch.arange(n) * (len(flat) - 1) // max(1, n - 1)  # whole: float32 rounds past 2**24
    return flat[places.to(flat.device)].float().cpu()

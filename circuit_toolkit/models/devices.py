"""Where a model is and in which type it computes, and what the mathematics sees of it."""

from __future__ import annotations

import torch
from torch import Tensor


def plain(x: Tensor, device: torch.device | None = None) -> Tensor:
    """Return a tensor in float32 if it is of half precision, on a device if one is given."""
    return x.to(device or x.device, torch.promote_types(x.dtype, torch.float32))


def best_device() -> torch.device:
    """Return CUDA where there is one, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

"""What a checkpoint says of weights, optimizer and schedule, held against what would go on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def load_state(path: Path, device: torch.device | str, like: Mapping[str, Any]) -> dict[str, Any]:
    """Read what `torch.save` wrote; ValueError unless all of it is of the kind of another state."""
    state = torch.load(path, weights_only=True, map_location=device)
    check_state(state, like, path.name)
    return state


def adam_like(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the state of an optimizer as it is after a step; tensors stand for their shapes."""
    values = [each for group in optimizer.param_groups for each in group["params"]]
    moments = [
        {"step": torch.zeros(()), "exp_avg": each, "exp_avg_sq": each}  # its step is on the CPU
        for each in values
    ]
    return {**optimizer.state_dict(), "state": dict(enumerate(moments))}


def check_state(state: Any, like: Any, name: str) -> None:
    """Raise ValueError where keys, types or shapes differ, or a number is not finite."""
    if isinstance(like, Tensor):
        fine = (
            isinstance(state, Tensor)
            and (state.shape, state.dtype) == (like.shape, like.dtype)
            and bool(state.isfinite().all())
        )
    elif isinstance(like, Mapping):
        fine = isinstance(state, Mapping) and list(state) == list(like)
        for key in like if fine else ():
            check_state(state[key], like[key], f"{name}[{key!r}]")
    elif isinstance(like, list | tuple):
        fine = isinstance(state, list | tuple) and len(state) == len(like)
        for i in range(len(like) if fine else 0):
            check_state(state[i], like[i], f"{name}[{i}]")
    elif type(like) in (int, float):
        fine = type(state) in (int, float) and math.isfinite(state)
    else:
        fine = type(state) is type(like)
    if not fine:
        raise ValueError(f"{name} is of another kind, or not finite")

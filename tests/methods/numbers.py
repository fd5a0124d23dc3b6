"""What a method found, as numbers to compare with what it found elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

import circuit_toolkit as ct
from circuit_toolkit.models import LOGITS, run

OF_A_LOGIT = 4  # roundings of the largest logit, or of the metric, for what is a difference of runs


def numbers(found: Any) -> dict[str, Any]:
    """Turn what a method returned into groups of numbers: values by name, or an array."""
    if isinstance(found, ct.Circuit):
        names = found.ids()
        ends = zip(found.edges["source"], found.edges["target"], strict=True)
        edges = [f"{names[i]} {names[j]}" for i, j in ends]
        each = {"nodes": (names, found.nodes["score"]), "edges": (edges, found.edges["weight"])}
        return {
            group: dict(zip(keys, values.tolist(), strict=True))
            for group, (keys, values) in each.items()
        }
    if isinstance(found, Mapping):
        return {str(key): _array(value) for key, value in found.items()}
    return {"": _array(found)}


def _array(value: Any) -> Any:
    if isinstance(value, dict):
        return value
    if isinstance(value, Tensor):  # numpy() refuses a tensor that was left on another device
        value = value.detach().numpy()
    return np.asarray(value.toarray() if hasattr(value, "toarray") else value, dtype=float)


def distances(found: Mapping[str, Any], exact: Mapping[str, Any]) -> tuple[float, float]:
    """Return how far numbers are from exact ones: as a share of their size, and the largest."""
    assert found.keys() == exact.keys()
    shares, most = [0.0], [0.0]
    for group in exact:
        here, there = found[group], exact[group]
        if isinstance(there, dict):  # what one of the two left out counts as 0
            keys = sorted({*here, *there})
            here, there = (np.array([x.get(key, 0.0) for key in keys]) for x in (here, there))
        assert here.shape == there.shape, group
        real = np.isfinite(there)
        assert (np.isfinite(here) == real).all(), group
        off = (here - there)[real]
        if off.any():
            shares.append(np.linalg.norm(off) / max(np.linalg.norm(there[real]), 1e-12))
            most.append(np.abs(off).max())
    return float(max(shares)), float(max(most))


def assert_near(
    method: Any,
    found: Mapping[str, Any],
    exact: Mapping[str, Any],
    case: Any,
    dtype: torch.dtype,
    roundings: int,
) -> None:
    """Hold what a row of the table found in half precision to what it found in float32."""
    share, most = distances(found, exact)
    eps = torch.finfo(dtype).eps
    if method.shares:
        assert most <= OF_A_LOGIT * eps
    elif method.effects:
        batch = case.model.tokenize(case.task.clean)
        logits = run(case.model, batch, [LOGITS], last_logits=True)[LOGITS]
        assert most <= OF_A_LOGIT * eps * float(logits.abs().max())
    else:
        assert share <= roundings * eps

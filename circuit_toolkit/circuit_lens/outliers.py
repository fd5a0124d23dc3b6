"""What stands out among the contributions to each example."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from circuit_toolkit.attribution.frozen.linear import ActiveFeatures


class ContributionOutliers(NamedTuple):
    """Entries that stand out; all of shape (n,)."""

    row: Tensor
    index: Tensor
    source: Tensor
    value: Tensor
    z: Tensor


def head_outliers(scores: Tensor, mask: Tensor, floor: float) -> ContributionOutliers:
    """Find (head, source) pairs that stand out among all of a layer."""
    seen = mask[:, None].expand_as(scores)
    count = seen.sum((1, 2)).double()
    values = scores.double() * seen
    mean = values.sum((1, 2)) / count
    off = (values - mean[:, None, None]) * seen
    z = off / _spread((off**2).sum((1, 2)), count)[:, None, None]
    row, head, source = (z > floor).nonzero(as_tuple=True)
    found = scores[row, head, source], z[row, head, source].to(scores)
    return ContributionOutliers(row, head, source, *found)


def feature_outliers(active: ActiveFeatures, n_rows: int, floor: float) -> ContributionOutliers:
    """Find features that stand out among those of a layer that are active."""
    value = active.value.double()
    zero = value.new_zeros(n_rows)
    count = zero.index_add(0, active.row, torch.ones_like(value))
    mean = zero.index_add(0, active.row, value) / count.clamp(min=1)
    off = value - mean[active.row]
    spread = _spread(zero.index_add(0, active.row, off**2), count)
    z = off / spread[active.row]
    keep = (z > floor).nonzero()[:, 0]
    parts = (active.row, active.feature, active.place, active.value, z.to(active.value))
    return ContributionOutliers(*(part[keep] for part in parts))


def _spread(squares: Tensor, count: Tensor) -> Tensor:
    """Sample standard deviation; infinite where nothing can stand out."""
    variance = squares / (count - 1).clamp(min=1)
    tiny = torch.finfo(variance.dtype).tiny
    return torch.where(variance > tiny, variance, torch.inf).sqrt()

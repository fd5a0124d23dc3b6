"""z-scores, and the products of weights in which outliers are sought, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

BLOCK = 2**26  # float32 values that are in memory at a time: 256 MB, some times over in z-scores
PIECE = 2**24  # of the matrix that rows are multiplied with
_NORMAL = 1.4826  # median absolute deviations in a standard deviation, of a normal distribution


def z_scores(x: Tensor, robust: bool) -> Tensor:
    """Return how far each value is from the middle of its row."""
    if robust:
        middle = x.median(1, keepdim=True).values
        spread = _NORMAL * (x - middle).abs().median(1, keepdim=True).values
    else:
        middle = x.mean(1, keepdim=True)
        spread = x.std(1, keepdim=True) if x.shape[1] > 1 else torch.zeros_like(middle)
    return torch.where(spread > 0, (x - middle) / spread, torch.zeros_like(x))


def row_outliers(
    x: Tensor, floor: float, pool: int | None, robust: bool, low: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the values that stand out in each row."""
    parts = []
    whole = pool is None or pool >= x.shape[1]
    every = z_scores(x, robust) if whole else None
    for sign in (1, -1) if low else (1,):
        if every is not None:
            row, column = (sign * every > floor).nonzero(as_tuple=True)
            parts.append((row, column, x[row, column], every[row, column]))
            continue
        assert pool is not None
        top = x.topk(pool, 1, largest=sign > 0)
        z = z_scores(top.values, robust)
        row, place = (sign * z > floor).nonzero(as_tuple=True)
        parts.append((row, top.indices[row, place], top.values[row, place], z[row, place]))
    row, column, value, z = (torch.cat(each).cpu().numpy() for each in zip(*parts, strict=True))
    order = np.lexsort((column, -value, row))
    return row[order], column[order], value[order], z[order]


def products(
    rows: Tensor, pieces: Callable[[], Iterable[Tensor]], n: int
) -> Iterator[tuple[int, Tensor]]:
    """Multiply rows with all of a matrix, never holding the whole product."""
    step = max(1, BLOCK // n)
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        yield start, torch.cat([block @ piece.T for piece in pieces()], 1)

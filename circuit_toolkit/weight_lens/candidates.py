"""What stands out among the contributions to the features of one dictionary, from weights alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.directions import decoder_rows, embedding_rows
from circuit_toolkit.features.descriptions.tables import LINK, OUTPUT, table_of_columns
from circuit_toolkit.models import Model
from circuit_toolkit.models.special_tokens import is_read, is_said
from circuit_toolkit.weight_lens.thresholds import Thresholds

BLOCK = 2**26  # float32 values that are in memory at a time: 256 MB, some times over in z-scores
PIECE = 2**24  # of the matrix that rows are multiplied with
_NORMAL = 1.4826  # median absolute deviations in a standard deviation, of a normal distribution


def _embeddings(model: Model) -> Iterator[Tensor]:
    """All embeddings in float32, piece by piece."""
    for tokens in torch.arange(model.d_vocab).split(max(1, PIECE // model.width)):
        yield embedding_rows(model, tokens)


def token_candidates(
    model: Model,
    rows: Tensor,
    limits: Thresholds,
    low: bool = True,
    inputs: Tensor | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the tokens that an encoder reads far more, or less, than others, by embedding if None.

    What stands for the tokens, `inputs`, has a row for each, (V, D).
    """
    pieces = partial(_embeddings, model) if inputs is None else lambda: [inputs]
    return _over_tokens(rows, pieces, model, limits, low, is_read(model))


def output_candidates(
    model: Model, dictionary: Dictionary, unembedding: Tensor, limits: Thresholds
) -> np.ndarray:
    """Find the tokens whose logits a decoder raises, or lowers, far more than those of others."""
    rows = decoder_rows(model, dictionary).to(unembedding.device)
    return _over_tokens(rows, lambda: [unembedding], model, limits, True, is_said(model))[0]


def upstream_candidates(
    model: Model, rows: Tensor, sources: Sequence[Dictionary], limits: Thresholds
) -> tuple[np.ndarray, np.ndarray]:
    """Find the earlier features whose decoders an encoder reads far more than those of others."""
    rows = rows.to(model.device)
    how = limits.floor_feature, limits.pool_features, limits.robust
    parts, totals = [np.empty(0, LINK)], np.zeros(len(rows), np.float32)
    for source, dictionary in enumerate(sources):
        written = decoder_rows(model, dictionary).to(rows.device)
        found, total = _among(LINK, "index", rows, lambda y=written: [y], len(written), how)
        found["source"] = source
        parts.append(found)
        totals += total
    table = np.concatenate(parts)
    return table[np.argsort(table["feature"], kind="stable")], totals


def _over_tokens(
    rows: Tensor,
    pieces: Callable[[], Iterable[Tensor]],
    model: Model,
    limits: Thresholds,
    low: bool,
    told: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Find what stands out among all tokens, and sum up the sizes of all."""
    how = limits.floor_token, limits.pool_tokens, limits.robust, low
    rows, n = rows.to(model.device), model.d_vocab
    found, totals = _among(OUTPUT, "token", rows, pieces, n, how)
    return found[told[found["token"]]], totals


def _among(
    dtype: np.dtype,
    column: str,
    rows: Tensor,
    pieces: Callable[[], Iterable[Tensor]],
    n: int,
    how: tuple[Any, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Find what stands out among the products with n rows, and sum up the sizes of all."""
    parts, totals = [], []
    for start, x in products(rows, pieces, n):
        totals.append(x.abs().sum(1).cpu().numpy())
        feature, place, value, z = row_outliers(x, *how)
        part = {"feature": feature + start, column: place, "contribution": value, "z": z}
        parts.append(table_of_columns(dtype, **part))
    return np.concatenate(parts), np.concatenate(totals)


def permuted_rows(rows: Tensor, sampled: np.ndarray, seed: int) -> Tensor:
    """Shuffle the entries of some encoder rows, each in an order of its own."""
    chosen = rows[torch.as_tensor(sampled, device=rows.device, dtype=torch.long)]
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(chosen.shape, generator=generator).argsort(1)
    return chosen.gather(1, order.to(chosen.device))


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

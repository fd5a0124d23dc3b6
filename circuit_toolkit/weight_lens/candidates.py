"""What stands out among the contributions to the features of one dictionary, from weights alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.directions import decoder_rows, embedding_rows
from circuit_toolkit.features.descriptions.tables import LINK, OUTPUT, table_of_columns
from circuit_toolkit.models import Model
from circuit_toolkit.models.special_tokens import is_read, is_said
from circuit_toolkit.weight_lens.thresholds import Thresholds
from circuit_toolkit.weight_lens.weight_outliers import PIECE, products, row_outliers


def _embeddings(model: Model) -> Iterator[Tensor]:
    """All embeddings in float32, piece by piece."""
    for tokens in torch.arange(model.hf.config.vocab_size).split(max(1, PIECE // model.width)):
        yield embedding_rows(model, tokens)


def token_candidates(
    model: Model, rows: Tensor, limits: Thresholds, low: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Find the tokens whose embeddings an encoder reads far more, or less, than those of others."""
    return _over_tokens(rows, partial(_embeddings, model), model, limits, low, is_read(model))


def output_candidates(
    model: Model, dictionary: Dictionary, unembedding: Tensor, limits: Thresholds
) -> np.ndarray:
    """Find the tokens whose logits a decoder raises, or lowers, far more than those of others."""
    rows = decoder_rows(model, dictionary).to(unembedding.device)
    return _over_tokens(rows, lambda: [unembedding], model, limits, True, is_said(model))[0]


def _over_tokens(
    rows: Tensor,
    pieces: Callable[[], Iterable[Tensor]],
    model: Model,
    limits: Thresholds,
    low: bool,
    told: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Find what stands out among all tokens, and sum up the sizes of all."""
    parts, totals = [], []
    how = limits.floor_token, limits.pool_tokens, limits.robust, low
    for start, x in products(rows.to(model.device), pieces, model.hf.config.vocab_size):
        totals.append(x.abs().sum(1).cpu().numpy())
        feature, token, value, z = row_outliers(x, *how)
        columns = {"feature": feature + start, "token": token, "contribution": value, "z": z}
        parts.append(table_of_columns(OUTPUT, **columns))
    found = np.concatenate(parts)
    return found[told[found["token"]]], np.concatenate(totals)


def upstream_candidates(
    model: Model, rows: Tensor, sources: Sequence[Dictionary], limits: Thresholds
) -> tuple[np.ndarray, np.ndarray]:
    """Find the earlier features whose decoders an encoder reads far more than those of others."""
    rows = rows.to(model.device)
    parts, totals = [np.empty(0, LINK)], np.zeros(len(rows), np.float32)
    how = limits.floor_feature, limits.pool_features, limits.robust
    for source, dictionary in enumerate(sources):
        written = decoder_rows(model, dictionary).to(rows.device)
        for start, x in products(rows, lambda y=written: [y], len(written)):
            totals[start : start + len(x)] += x.abs().sum(1).cpu().numpy()
            feature, index, value, z = row_outliers(x, *how)
            columns = {"feature": feature + start, "index": index, "contribution": value, "z": z}
            parts.append(table_of_columns(LINK, source=source, **columns))
    table = np.concatenate(parts)
    return table[np.argsort(table["feature"], kind="stable")], totals


def permuted_rows(rows: Tensor, sampled: Iterable[int], seed: int) -> Tensor:
    """Shuffle the entries of some encoder rows, each in an order of its own."""
    chosen = rows[torch.as_tensor(list(sampled), device=rows.device, dtype=torch.long)]
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(chosen.shape, generator=generator).argsort(1)
    return chosen.gather(1, order.to(chosen.device))

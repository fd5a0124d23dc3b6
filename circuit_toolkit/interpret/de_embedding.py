"""De-embedding: which tokens make a feature fire by the weights alone, here or through a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.rows import embedding_rows, encoder_rows, stream_of
from circuit_toolkit.errors import InputError
from circuit_toolkit.interpret.checks import check_whole, feature_numbers
from circuit_toolkit.interpret.special_tokens import is_read
from circuit_toolkit.interpret.virtual_weights import through_head
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    import pandas as pd


@torch.no_grad()
def token_weights(
    model: Model,
    dictionary: Dictionary,
    features: Sequence[int] | np.ndarray,
    head: tuple[int, int] | None = None,
) -> Tensor:
    """Give what the embedding of every token adds to pre-activations, factors of norms as 1.

    Parameters
    ----------
    model : Model
        The model.
    dictionary : Dictionary
        Of the features; it must read the stream.
    features : sequence of int, k of them
        Which.
    head : (layer, head), optional
        Through this head: the token stands where the head attends to. By default the token stands
        where the feature is.

    Returns
    -------
    Tensor, shape (k, V)
        Float32. What MLPs and other heads make of a token is left out, and positions are.

    Raises
    ------
    InputError
        If a feature or the head does not exist, or the head comes after what the feature reads.
    """
    index = torch.as_tensor(feature_numbers(features))
    if len(index) and not 0 <= index.min() <= index.max() < dictionary.n_features:
        raise InputError(f"{dictionary.site} has features 0 to {dictionary.n_features - 1}.")
    rows = encoder_rows(model, dictionary)
    rows = rows[index.to(rows.device)]
    if head is not None:
        layer, number = head
        if not (0 <= layer < model.n_layers and 0 <= number < model.n_heads):
            raise InputError(
                f"{model.name} has no head {head}: layers 0 to {model.n_layers - 1}, heads 0 to "
                f"{model.n_heads - 1}."
            )
        if not Site("attn_out", layer) < stream_of(model, dictionary):
            raise InputError(f"{dictionary.site} reads the stream before attention of {layer}.")
        rows = through_head(model, rows, layer, number)
    tokens = embedding_rows(model)
    return rows.to(tokens) @ tokens.T


def de_embedding(
    model: Model, dictionary: Dictionary, feature: int, *, heads: bool = False, n: int = 10
) -> pd.DataFrame:
    """Say which tokens make a feature fire by the weights alone.

    Special tokens such as padding are left out, see `special_tokens`; they count in z-scores.

    Parameters
    ----------
    model : Model
        The model.
    dictionary : Dictionary
        Of the feature.
    feature : int
        Which.
    heads : bool
        Also through each head in front of it: which tokens at the source position do.
    n : int
        So many tokens of each way, the largest weights first; at least 1.

    Returns
    -------
    DataFrame
        `through` (`direct`, or a head such as `a1.h3`), `id`, `token`, `weight` (see
        `token_weights`) and `z`, standard deviations above the mean over the vocabulary.

    Raises
    ------
    InputError
        As `token_weights`, or if `n` makes no sense.
    """
    import pandas as pd

    check_whole("n", n, 1)
    tokens = torch.from_numpy(np.flatnonzero(is_read(model)))
    place = stream_of(model, dictionary)
    ways: list[tuple[int, int] | None] = [None]
    for layer in range(model.n_layers if heads else 0):
        if Site("attn_out", layer) < place:
            ways += [(layer, head) for head in range(model.n_heads)]
    tables = []
    for way in ways:
        weights = token_weights(model, dictionary, [feature], way)[0]
        best = weights[tokens.to(weights.device)].topk(min(n, len(tokens)))
        ids = tokens[best.indices.cpu()].tolist()
        tables.append(
            pd.DataFrame(
                {
                    "through": "direct" if way is None else f"a{way[0]}.h{way[1]}",
                    "id": ids,
                    "token": [str(model.tokenizer.decode([token])) for token in ids],
                    "weight": best.values.tolist(),
                    "z": ((best.values - weights.mean()) / weights.std()).tolist(),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)

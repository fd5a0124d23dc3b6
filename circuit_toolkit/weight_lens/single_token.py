"""What every token of the vocabulary does to the stream and to features when it is run alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.arguments import whole
from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.dictionaries.fidelity import OUTLYING
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.models import Model, run
from circuit_toolkit.models.special_tokens import is_read
from circuit_toolkit.sites import Site

BATCH = 512  # prompts of two tokens in one trace
LAYER_0 = Site("resid_post", 0)


def first_token(model: Model, dictionaries: Mapping[Site, Dictionary]) -> int | None:
    """Return the token that comes before the one that is tested.

    Where the first token is an attention sink, one comes before whatever the dictionaries say.
    """
    if shared_bos(dictionaries) is False and not _first_is_sink(model):
        return None
    return model.bos_id


def _first_is_sink(model: Model, n: int = 64) -> bool:
    """Return whether the first token of a text, whatever it is, has an outlying norm."""
    known = np.flatnonzero(is_read(model))
    some = known[np.linspace(0, len(known) - 1, n, dtype=int)]
    batch = model.tokenize(np.stack([some, some[::-1]], 1).tolist())
    middle = Site("resid_post", model.n_layers // 2)
    norm = run(model, batch, [middle])[middle].float().norm(dim=-1)  # (B, 2)
    first, second = norm.median(0).values.tolist()
    return first > OUTLYING * second


def single_token_pass(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    folder: Path | None = None,
    progress: bool = False,
) -> Activations | ActivationStore:
    """Run every token of the vocabulary alone, behind the beginning of a sequence."""
    begin = first_token(model, dictionaries)
    vocabulary = range(model.d_vocab)
    prompts = [[token] if begin is None else [begin, token] for token in vocabulary]
    options: dict[str, Any] = {} if folder is None else {"store": folder}
    return capture(
        model,
        dictionaries,
        prompts,
        "last",
        bos=begin is None,  # where nothing comes first, that token is tested as any other
        batch_size=BATCH,
        progress=progress,
        **options,
    )


def first_layer_rows(model: Model, begin: int | None) -> Tensor:
    """Return what the first layer makes of every token alone: streams of norm 1, (V, D)."""
    before = [] if begin is None else [begin]
    parts = []
    for tokens in torch.arange(model.d_vocab).split(BATCH):
        batch = model.tokenize([[*before, token] for token in tokens.tolist()])
        x = run(model, batch, [LAYER_0])[LAYER_0][:, -1].float()
        parts.append(x / x.norm(dim=1, keepdim=True))
    return torch.cat(parts)


def alone_at(acts: Activations | ActivationStore, site: Site) -> sp.csr_array:
    """Return what each token alone does to the features of one site."""
    parts = [part.features[site] for part in acts.shards()]
    return sp.csr_array(sp.vstack(parts, format="csc").T)


def single_token_activations(
    model: Model, dictionaries: Mapping[Site, Dictionary], token: int
) -> dict[Site, np.ndarray]:
    """Return what one token alone does to all features.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Whose features.
    token : int
        Its id.

    Returns
    -------
    dict of Site to ndarray, shape (F,)
        Activations, 0 where a feature is not active.
    """
    dictionaries = as_dictionaries(model, dictionaries)
    token = whole(token, "token", 0)
    begin = first_token(model, dictionaries)
    prompt = [token] if begin is None else [begin, token]
    acts = capture(model, dictionaries, [prompt], "last", bos=begin is None, progress=False)
    return {site: matrix.toarray()[0] for site, matrix in acts.features.items()}

"""What every token of the vocabulary does to features when it is run alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.arguments import whole
from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site

BATCH = 512  # prompts of two tokens in one trace


def first_token(model: Model, dictionaries: Mapping[Site, Dictionary]) -> int | None:
    """Return the token that comes before the one that is tested."""
    return None if shared_bos(dictionaries) is False else model.bos_id


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

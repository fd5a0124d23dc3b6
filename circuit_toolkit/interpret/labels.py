"""Name features by the words on which they fire and the words that they promote."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
import torch

from circuit_toolkit.activations import MEAN, Activations
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site


def feature_labels(acts: Activations, n_words: int = 3) -> dict[Site, list[str]]:
    """Name every feature by the words that carry most of its activation.

    Parameters
    ----------
    acts : Activations
        Captured with `positions="all"`.
    n_words : int
        At most so many words; a word with under a twentieth of the activation is left out.

    Returns
    -------
    dict of Site to list of str
        One label for each feature; empty where it never fires on these prompts, or no word
        stands out.

    Raises
    ------
    InputError
        If the rows are not tokens.
    """
    if (acts.position == MEAN).any():
        raise InputError("Labels need the tokens: capture(..., positions='all').")
    words = [acts.tokens[p][t] for p, t in zip(acts.prompt, acts.position, strict=True)]
    vocabulary, index = np.unique(words, return_inverse=True)
    rows = np.arange(len(words))
    of_word = sp.csr_array(
        (np.ones(len(words), np.float32), (index, rows)), shape=(len(vocabulary), len(words))
    )
    labels = {}
    for site, matrix in acts.features.items():
        mass = sp.csc_array(of_word @ matrix)  # (words, F)
        labels[site] = [
            _heaviest(vocabulary, mass.indices[a:b], mass.data[a:b], n_words)
            for a, b in zip(mass.indptr[:-1], mass.indptr[1:], strict=True)
        ]
    return labels


def _heaviest(vocabulary: np.ndarray, rows: np.ndarray, mass: np.ndarray, n: int) -> str:
    order = np.argsort(-mass, kind="stable")[:n]
    return ", ".join(str(vocabulary[rows[i]]) for i in order if mass[i] >= mass.sum() / 20)


def promoted_words(
    model: Model, dictionary: Dictionary, features: np.ndarray, n_words: int = 3
) -> list[list[str]]:
    """Say which next words a feature promotes most, by its direct path to the logits.

    The logit lens on decoder rows (nostalgebraist, 2020): `W_dec` through the last norm's weight
    and the unembedding. What later layers make of the feature is left out.

    Parameters
    ----------
    model : Model
        A model with a final norm and `lm_head`, such as GPT-2.
    dictionary : Dictionary
        Whose features they are; it must write to the residual stream.
    features : ndarray of int, shape (k,)
        Which ones.
    n_words : int
        How many words each.

    Returns
    -------
    list of k lists of str
        Strongest first.
    """
    head = model.hf.get_output_embeddings()
    norm = model.hf.get_submodule(model.architecture.final_norm)
    directions = dictionary.directions[torch.as_tensor(features)]  # (k, D)
    directions = directions - directions.mean(dim=1, keepdim=True)
    effects = (directions * norm.weight) @ head.weight.T  # type: ignore[union-attr]  # (k, V)
    best = effects.topk(n_words, dim=1).indices.tolist()
    return [[str(model.tokenizer.decode([token])) for token in row] for row in best]


def named_features(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    acts: Activations,
    promoted_from: float = 0.5,
) -> dict[Site, list[str]]:
    """Name features by the words on which they fire and, late in the model, what they promote.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Those of `acts`.
    acts : Activations
        Captured with `positions="all"`.
    promoted_from : float
        Share of the model's depth from which a label also tells the promoted words.

    Returns
    -------
    dict of Site to list of str
        For example `to, with ⇒ Mary, Anna`.
    """
    labels = feature_labels(acts)
    for site, names in labels.items():
        late = site.kind == "resid_post" and (site.layer + 1) / model.n_layers > promoted_from
        if not late:
            continue
        live = np.unique(acts.features[site].indices)
        for i, words in zip(live, promoted_words(model, dictionaries[site], live), strict=True):
            names[i] = f"{names[i]} ⇒ {', '.join(words)}".lstrip()
    return labels

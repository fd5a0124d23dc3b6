"""Counting codes: which heads, and which pairs of heads, have codes that only positives use.

O'Neill and Bui, 2024, arXiv 2405.12522.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def discrete_codes(activations: Tensor, *, own_code_for_none: bool = True) -> np.ndarray:
    """Return the strongest code of every head output."""
    strongest, code = activations.max(-1)
    if own_code_for_none:
        code = torch.where(strongest > 0, code, activations.shape[-1])
    return code.numpy()


def unique_codes(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Count, for every head, the codes that positives use and negatives do not."""
    names = np.unique(np.concatenate([positive.ravel(), negative.ravel()]))
    heads = np.arange(positive.shape[1])
    only = np.zeros((len(heads), len(names)), dtype=bool)
    only[heads, np.searchsorted(names, positive)] = True
    only[heads, np.searchsorted(names, negative)] = False
    return only.sum(1).astype(float)


def unique_pairs(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Count, for every two heads, the pairs of codes that positives alone have in them together."""
    heads, size = positive.shape[1], int(max(positive.max(), negative.max())) + 1
    found = np.zeros((heads, heads))
    for head in range(heads):  # pairs of `head` with all others at once
        mine = positive[:, [head]] * size + positive  # (b, H)
        theirs = negative[:, [head]] * size + negative
        found[head] = unique_codes(mine, theirs)
    np.fill_diagonal(found, 0.0)
    return found


def heads_in_pairs(pairs: np.ndarray) -> np.ndarray:
    """Count how often a head is part of the strongest pairs: the published score of "edges"."""
    heads = len(pairs)
    first, second = (index.ravel() for index in np.indices(pairs.shape))
    apart = first != second
    order = np.argsort(-pairs.ravel()[apart], kind="stable")
    listed = np.stack([first[apart][order], second[apart][order]], 1).ravel()
    return np.bincount(listed[: heads * heads // 2], minlength=heads).astype(float)

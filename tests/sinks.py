"""Attention sinks, planted: at the first token of a prompt every feature is very active."""

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations.activations import Activations


def first_rows(acts: Activations) -> np.ndarray:
    """Return which rows are the first of their prompt, (rows,)."""
    return np.r_[True, acts.prompt[1:] != acts.prompt[:-1]]


def with_sinks(acts: Activations, size: float = 1000.0) -> Activations:
    """Return activations whose first tokens are sinks."""
    sink = first_rows(acts)[:, None]
    features = {
        site: sp.csr_array(np.where(sink, np.float32(size), matrix.toarray()))
        for site, matrix in acts.features.items()
    }
    return replace(acts, features=features)


def without_first(acts: Activations) -> Activations:
    """Return activations that do not hold the first token of any prompt."""
    rows = np.flatnonzero(~first_rows(acts))
    features = {site: sp.csr_array(matrix[rows]) for site, matrix in acts.features.items()}
    return replace(acts, features=features, prompt=acts.prompt[rows], position=acts.position[rows])

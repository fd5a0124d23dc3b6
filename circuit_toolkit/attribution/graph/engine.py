"""The graph of one prompt before pruning: what every source adds to every target.

The model is held at one prompt (`attribution.frozen`), so that everything between features is
linear. A batch of targets is one walk back, without autograd: all sources are met on the way. Rows
are kept sparse, and with a limit those of the features with the largest influence so far come next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from circuit_toolkit.attribution.graph.rows import Rows
from circuit_toolkit.attribution.graph.sources import ROWS, HeldPrompt
from circuit_toolkit.attribution.graph.targets import (
    Target,
    Targets,
    as_targets,
    target_reading,
    values_of,
    weights_of,
)
from circuit_toolkit.circuit.tables import TARGET, new_nodes
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.models import Batch, Model
from circuit_toolkit.progress import Bar
from circuit_toolkit.sites import Site

RANKINGS = 16  # of the features that are left, at most
EDGES = 2**25  # that are kept in all before pruning, the strongest into each node: 8 bytes each


@dataclass(frozen=True, eq=False)
class PromptGraph:
    """All nodes of a prompt in order of computation, and what each adds to each.

    `adjacency` (N, N) holds in row i what enters node i; `weights` (N,) what a target counts, 0 for
    all else. `value` and `bias` (N,) are the pre-activation (or logit) of nodes with a row, and
    what of it no node adds. `largest_error` is by how much a sum misses its value at most, as a
    share of it (or of a hundredth of its absolute terms, if that is more); `left_out` the largest
    share of what enters a node that was not kept. `active` are all features that are active, with
    a row or not. `targets` are what the last nodes stand for.
    """

    nodes: np.ndarray
    adjacency: sp.csr_array
    weights: np.ndarray
    value: np.ndarray
    bias: np.ndarray
    has_row: np.ndarray
    largest_error: float
    left_out: float
    active: np.ndarray
    targets: Sequence[Target]


@torch.no_grad()
def attribute(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    ids: Tensor,
    targets: Targets | Sequence[Target] = None,
    *,
    position: int = -1,
    max_features: int | None = None,
    max_inputs: int | None = None,
    progress: bool = False,
) -> PromptGraph:
    """Compute the graph of one prompt, of token ids (T,)."""
    batch = Batch(ids[None].to(model.device), torch.ones_like(ids[None]).to(model.device))
    held = HeldPrompt.of(model, dictionaries, batch, position)
    wanted = as_targets(model, targets, held.logits)
    n_columns = held.n_columns
    weights = np.zeros(n_columns + len(wanted))
    weights[n_columns:] = weights_of(wanted, held.logits)
    is_feature = held.of_features()
    active = np.flatnonzero(is_feature)
    limit = len(active) if max_features is None else min(max_features, len(active))
    n_rows = limit + len(wanted)
    rows = Rows(held, len(wanted), EDGES // n_rows if max_inputs is None else max_inputs)
    last = held.values[Site("resid_post", model.n_layers - 1)]
    rows.add(
        target_reading(model, wanted, last, held.position),
        np.arange(n_columns, len(weights)),
        values_of(model, wanted, held.logits),
    )
    _fill(rows, held, active, limit, weights, progress)
    has_row = rows.has_row()
    keep = np.append(~is_feature, np.ones(len(wanted), bool)) | has_row
    sources = held.table()
    ends = new_nodes(
        len(wanted),
        TARGET,
        label=[each.label for each in wanted],
        index=[each.index for each in wanted],
        activation=rows.value[n_columns:],
    )
    nodes = np.concatenate([sources, ends])
    return PromptGraph(
        nodes[keep],
        rows.matrix(keep),
        weights[keep],
        rows.value[keep],
        rows.bias[keep],
        has_row[keep],
        rows.largest_error,
        rows.left_out,
        sources[active],
        wanted,
    )


def _fill(
    rows: Rows,
    held: HeldPrompt,
    active: np.ndarray,
    limit: int,
    weights: np.ndarray,
    progress: bool,
) -> None:
    """Add rows of features, those of the largest influence first where there is a limit."""
    left, done = active, 0
    with Bar(total=limit, label="attribution", shown=progress) as bar:
        while n := min(max(ROWS, limit // RANKINGS), limit - done):
            if limit < len(active):
                best = np.argsort(-rows.influence(weights)[left], kind="stable")[:n]
                chosen, left = np.sort(left[best]), np.delete(left, best)
            else:
                chosen, left = left[:n], left[n:]
            for columns, reading, value in held.readings(chosen):
                rows.add(reading, columns, value)
            done += n
            bar.update(n)

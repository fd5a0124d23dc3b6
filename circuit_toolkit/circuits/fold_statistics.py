"""Statistics of folds for regressions between two sites, shard by shard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from circuit_toolkit.activations import Activations
from circuit_toolkit.errors import InputError
from circuit_toolkit.regression import Folds
from circuit_toolkit.sites import Site
from circuit_toolkit.store import ActivationStore


def site_folds(
    acts: Activations | ActivationStore,
    sources: Site,
    targets: Site,
    *,
    positions: str = "last",
    folds: int = 20,
    seed: int = 0,
    kept_sources: np.ndarray | None = None,
    kept_targets: np.ndarray | None = None,
) -> Folds:
    """Take what regressions of the features of a site on those of another need, in one pass.

    Parameters
    ----------
    acts : Activations or ActivationStore
        From `capture`. Of a store one shard at a time is in memory.
    sources, targets : Site
        Whose features are regressed on, and which are regressed.
    positions : str
        What becomes a row: the `last` token of a prompt, the `mean` of its tokens, `all` of them
        each, or a position that the task names.
    folds : int
        Number of folds. All rows of a prompt and of its twin are in one, at random.
    seed : int
        Decides in which.
    kept_sources, kept_targets : ndarray of int, optional
        Features to keep, all by default. Memory goes with the square of the former, per fold.

    Returns
    -------
    Folds
        For `cross_validate`, `stability_selection` or `lasso_path(folds.total())`.

    Raises
    ------
    InputError
        If a site was not captured, or there are so few prompts that a fold has none.
    """
    known = acts.sites
    for site in (sources, targets):
        if site not in known:
            raise InputError(f"{site} was not captured, only {', '.join(map(str, known))}.")

    def blocks() -> Iterator[tuple[Any, Any, np.ndarray]]:
        for shard in [acts] if isinstance(acts, Activations) else acts.shards():
            rows = shard.pooled(positions)
            group = rows.groups[rows.prompt]
            names, number = np.unique(group, return_inverse=True)
            fold = [np.random.default_rng((seed, int(name))).integers(folds) for name in names]
            X, Y = rows.features[sources], rows.features[targets]
            X = X if kept_sources is None else X[:, kept_sources]
            Y = Y if kept_targets is None else Y[:, kept_targets]
            yield X, Y, np.array(fold)[number]

    return Folds.from_blocks(blocks())

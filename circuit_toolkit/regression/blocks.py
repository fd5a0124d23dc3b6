"""Paths of blocks of targets, fitted apart, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression.gram import GramStatistics
from circuit_toolkit.regression.lasso import LassoPath


def join_targets(paths: Sequence[LassoPath], stats: GramStatistics) -> LassoPath:
    """Put paths of consecutive blocks of targets together.

    Parameters
    ----------
    paths : sequence of LassoPath
        From `lasso_path(stats.select(y=block), ...)`, in order, with the same settings.
    stats : GramStatistics
        Of all targets, in the form that was fitted.

    Returns
    -------
    LassoPath
        What `lasso_path(stats, ...)` gives.

    Raises
    ------
    InputError
        If there are no paths.
    MismatchError
        If they have other strengths than the first, or do not add up to the statistics.
    """
    if not paths:
        raise InputError("There are no paths to join.")
    first = paths[0]
    width = sum(path.alphas.shape[1] for path in paths)
    if width != len(stats.mean_y) or any(
        path.alphas.shape[0] != first.alphas.shape[0] or path.stats.form != stats.form
        for path in paths
    ):
        raise MismatchError(
            f"Paths of {width} targets do not make up the {len(stats.mean_y)} of the statistics, "
            "or differ in strengths or form."
        )
    weights = first.penalty.weights
    if weights.shape[1] > 1 or any(path.penalty.weights.shape[1] > 1 for path in paths):
        whole = [(len(stats.mean_x), path.alphas.shape[1]) for path in paths]
        each = [path.penalty.weights for path in paths]
        weights = np.hstack(list(map(np.broadcast_to, each, whole)))
    wide = {
        name: np.concatenate([getattr(path, name) for path in paths], axis=1)
        for name in ("alphas", "gap", "kkt", "converged", "r2")
    }
    return replace(
        first,
        strengths=np.max([path.strengths for path in paths], axis=0),
        coefficients=tuple(
            sp.csc_array(sp.hstack(blocks))
            for blocks in zip(*(path.coefficients for path in paths), strict=True)
        ),
        stats=stats,
        penalty=replace(first.penalty, weights=np.asfortranarray(weights)),
        **wide,
    )

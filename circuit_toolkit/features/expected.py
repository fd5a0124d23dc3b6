"""ERA and TWERA: virtual weights times how the two features are active together.

From Circuit Tracing (Ameisen et al., 2025). A virtual weight alone suffers from interference:
features that are never active together may have a large one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.arguments import expect, one_of
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.examples import token_rows
from circuit_toolkit.features.weight_table import VirtualWeights

LEAST = 1e-10  # of the mean activation of a target, in the denominator of TWERA
BLOCK = 1024  # targets whose products with sources are in memory at a time


@dataclass
class CoActivity:
    """Sums over tokens for some pairs of features, shard by shard."""

    n_tokens: int
    target: np.ndarray
    together: np.ndarray
    gated: np.ndarray


def expected_attributions(
    weights: VirtualWeights,
    acts: Activations | ActivationStore,
    kind: Literal["era", "twera"] = "twera",
) -> VirtualWeights:
    """Weigh virtual weights by how their features are active together.

    With V the direct virtual weight of features i and j, means over tokens:
    `ERA = mean(1(a_j > 0) a_i) V`, `TWERA = mean(a_j a_i) / mean(a_j) V`. Only the path along the
    stream is seen, and inhibition is handled poorly: an inhibited target is not active.

    Parameters
    ----------
    weights : VirtualWeights
        Direct weights; the pairs in it are those that are weighed. Strong co-activity of a pair
        that is not among them goes unseen: for chosen features keep all, `top=None`.
    acts : Activations or ActivationStore
        Captured with `positions="all"`, read shard by shard. Neither padding, beginning-of-sequence
        tokens nor those of outlying size at one of the sites count, see `Activations.inlying`.
    kind : {"era", "twera"}
        Which.

    Returns
    -------
    VirtualWeights
        The same pairs.

    Raises
    ------
    InputError
        If there are weights through heads, a site was not captured, or rows are not tokens.
    """
    expect(weights, "weights", "VirtualWeights")
    expect(acts, "acts", "Activations", "ActivationStore")
    one_of(kind, "kind", "era", "twera")
    used = {weights.kinds[number] for number in np.unique(weights.rows["kind"])}
    if used - {"direct"}:
        raise InputError(
            f"Expected attributions are of direct weights, these hold {', '.join(sorted(used))}. "
            "Use virtual_weights(..., through='direct')."
        )
    sums = co_activity(weights, acts)
    if kind == "era":
        factor = sums.gated / max(1, sums.n_tokens)
    else:
        n = max(1, sums.n_tokens)
        factor = (sums.together / n) / np.maximum(sums.target / n, LEAST)
    rows = weights.rows.copy()
    rows["weight"] *= factor
    rows["kind"] = 0
    return replace(weights, rows=rows, kinds=(kind,))


def co_activity(weights: VirtualWeights, acts: Activations | ActivationStore) -> CoActivity:
    """Sum up how the features of each pair are active together."""
    rows = weights.rows
    of_sites = np.unique(rows[["source_site", "target_site"]])
    wanted = {weights.sites[place] for pair in of_sites.tolist() for place in pair}
    if missing := sorted(wanted - set(acts.sites)):
        known = ", ".join(map(str, acts.sites))
        raise InputError(f"{', '.join(map(str, missing))} was not captured, only {known}.")
    pairs = [
        (
            weights.sites[a],
            weights.sites[b],
            np.flatnonzero((rows["source_site"] == a) & (rows["target_site"] == b)),
        )
        for a, b in of_sites.tolist()
    ]
    sums = CoActivity(0, *(np.zeros(len(rows)) for _ in range(3)))
    for part in acts.shards():
        counted = token_rows(part, *wanted)
        sums.n_tokens += len(counted)
        columns = {site: sp.csc_array(part.features[site][counted]) for site in wanted}
        for source, target, index in pairs:
            _add(sums, rows, index, columns[source], columns[target])
    return sums


def _add(
    sums: CoActivity,
    rows: np.ndarray,
    index: np.ndarray,
    source: sp.csc_array,
    target: sp.csc_array,
) -> None:
    """Add a shard for the pairs `index`, which are of one source site and one target site."""
    sources, row = np.unique(rows["source"][index], return_inverse=True)
    targets, column = np.unique(rows["target"][index], return_inverse=True)
    x = sp.csr_array(source[:, sources].T, dtype=np.float64)  # (sources, tokens)
    for start in range(0, len(targets), BLOCK):
        y = sp.csc_array(target[:, targets[start : start + BLOCK]], dtype=np.float64)
        active = y.copy()
        active.data = (y.data > 0).astype(np.float64)
        here = (column >= start) & (column < start + BLOCK)
        mine, at = index[here], (row[here], column[here] - start)
        sums.target[mine] += y.sum(axis=0)[at[1]]
        sums.together[mine] += _at(x @ y, at)
        sums.gated[mine] += _at(x @ active, at)


def _at(matrix: sp.sparray, places: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return entries of a sparse matrix."""
    return sp.csr_matrix(matrix)[places].A1  # of arrays, scipy gives entries as sparse again

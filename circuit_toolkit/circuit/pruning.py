"""What pruning keeps: the best features, the best edges, and what still reaches a target."""

from __future__ import annotations

import numpy as np

from circuit_toolkit.arguments import number, whole
from circuit_toolkit.circuit.tables import TARGET


def kept(
    nodes: np.ndarray,
    edges: np.ndarray,
    max_features: int | None,
    max_edges: int | None,
    min_score: float | None,
    share: float | None,
    max_per_site: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return masks of the nodes (n,) and edges (e,) that stay; see `Circuit.prune`."""
    is_target = nodes["kind"] == TARGET
    if max_features is not None:
        max_features = whole(max_features, "max_features", 0)
    if max_edges is not None:
        max_edges = whole(max_edges, "max_edges", 0)
    least = 0.0 if min_score is None else number(min_score, "min_score", 0, np.inf)
    keep = is_target.copy()  # (n,)
    score = nodes["score"][~keep]
    best = _best(score, max_features)
    if share is not None:
        best &= _best(score, _reaching(score, number(share, "share", 0, 1)))
    if max_per_site is not None:
        max_per_site, sites = whole(max_per_site, "max_per_site", 0), nodes["site"][~keep]
        for site in set(sites.tolist()):
            best[sites == site] &= _best(score[sites == site], max_per_site)
    keep[~keep] = best
    keep_edge = keep[edges["source"]] & keep[edges["target"]]  # (e,)
    keep_edge &= edges["score"] >= least
    keep_edge[keep_edge] = _best(edges["score"][keep_edge], max_edges)
    keep &= _reaches(is_target, edges[keep_edge])
    return keep, keep_edge & keep[edges["source"]] & keep[edges["target"]]


def _best(score: np.ndarray, limit: int | None) -> np.ndarray:
    """Mask of the `limit` highest scores (n,); ties go to the earlier row."""
    mask = np.zeros(len(score), dtype=bool)
    mask[np.argsort(-score, kind="stable")[:limit]] = True
    return mask


def _reaching(score: np.ndarray, share: float) -> int:
    """Count the highest scores that add up to a share of all."""
    sums = np.cumsum(np.sort(score.astype(float))[::-1])
    total = sums[-1] if len(sums) else 0.0
    return int(np.searchsorted(sums, share * total * (1 - 1e-9))) + 1 if share * total else 0


def _reaches(ends: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mask of the nodes (n,) from which one of a mask can be reached."""
    reached = ends
    while True:
        found = reached.copy()
        found[edges["source"][reached[edges["target"]]]] = True
        if (found == reached).all():
            return reached
        reached = found

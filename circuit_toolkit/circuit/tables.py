"""The two tables of a circuit: their columns, and what must hold in them."""

from __future__ import annotations

import numpy as np

from circuit_toolkit.errors import InputError
from circuit_toolkit.sites import Site

NODE = np.dtype(
    [("site", "U64"), ("feature", "i4"), ("activation", "f4"), ("score", "f4"), ("label", "U160")]
)
EDGE = np.dtype([("source", "i4"), ("target", "i4"), ("weight", "f4"), ("score", "f4")])
TARGET = "target"  # the site name of the one target node


def check_tables(nodes: np.ndarray, edges: np.ndarray) -> None:
    """Refuse tables that are no circuit."""
    _check_dtype("nodes", nodes, NODE)
    _check_dtype("edges", edges, EDGE)
    _check_nodes(nodes)
    _check_edges(edges, nodes["site"], depths(nodes["site"]))


def depths(sites: np.ndarray) -> np.ndarray:
    """Rank of each site in the order of computation, from 0; the target's comes last."""
    names = sites.tolist()
    order = sorted({name for name in names if name != TARGET}, key=Site.parse)
    rank = {name: i for i, name in enumerate([*order, TARGET])}
    return np.array([rank[name] for name in names])


def _check_dtype(name: str, table: np.ndarray, dtype: np.dtype) -> None:
    if not isinstance(table, np.ndarray) or table.dtype != dtype or table.ndim != 1:
        got = f"{table.dtype} of shape {table.shape}" if isinstance(table, np.ndarray) else table
        raise InputError(f"{name} must be one row per {name[:-1]} with dtype {dtype}, got {got}.")
    for column in (c for c in dtype.fields or () if dtype[c].kind == "f"):
        if not np.isfinite(table[column]).all():
            raise InputError(f"{name}[{column!r}] holds NaN or infinity.")
    if (table["score"] < 0).any():
        raise InputError(f"{name}['score'] holds negative values; a score is a size, 0 or more.")


def _check_nodes(nodes: np.ndarray) -> None:
    is_target = nodes["site"] == TARGET
    if not is_target[-1:].any() or is_target.sum() != 1 or nodes["feature"][-1] != 0:
        raise InputError(
            f"The last node, and no other, must be the target (site {TARGET!r}, feature 0); "
            f"{is_target.sum()} of {len(nodes)} nodes are."
        )
    if (nodes["feature"] < 0).any():
        raise InputError("nodes['feature'] holds a negative index.")
    keys, counts = np.unique(nodes[["site", "feature"]], return_counts=True)
    if (counts > 1).any():
        site, feature = keys[counts > 1][0]
        raise InputError(f"Node {site}/{feature} is there twice. Merge its rows.")


def _check_edges(edges: np.ndarray, site: np.ndarray, depth: np.ndarray) -> None:
    if (np.diff(depth) < 0).any():
        row = int(np.argmax(np.diff(depth) < 0)) + 1
        raise InputError(
            f"nodes must be in order of computation: {site[row]} (row {row}) comes after "
            f"{site[row - 1]}. Sort the rows by Site."
        )
    source, target = edges["source"], edges["target"]
    ends = np.concatenate([source, target])
    if ((ends < 0) | (ends >= len(site))).any():
        raise InputError(f"edges name rows outside the {len(site)} nodes.")
    backward = depth[source] >= depth[target]
    if backward.any():
        s, t = (site[ends[np.argmax(backward)]] for ends in (source, target))
        raise InputError(f"An edge runs from {s} to {t}, against the order of computation.")
    keys, counts = np.unique(edges[["source", "target"]], return_counts=True)
    if (counts > 1).any():
        s, t = keys[counts > 1][0]
        raise InputError(f"The edge from row {s} to row {t} is there twice. Add up its weights.")

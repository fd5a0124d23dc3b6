"""The two tables of a circuit: their columns, the names of nodes, and what must hold in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from circuit_toolkit.arguments import refuse_surrogates
from circuit_toolkit.errors import InputError
from circuit_toolkit.sites import Site

TEXT = "O"  # of any length: nothing is cut
NODE = np.dtype(
    [
        ("kind", TEXT),
        ("site", TEXT),
        ("position", TEXT),
        ("index", "i4"),
        ("activation", "f4"),
        ("score", "f4"),
        ("label", TEXT),
    ]
)
EDGE = np.dtype(
    [
        ("source", "i4"),
        ("target", "i4"),
        ("weight", "f4"),
        ("score", "f4"),
        ("status", TEXT),
        ("low", "f4"),
        ("high", "f4"),
    ]
)
TARGET, TOKEN = "target", "token"  # kinds whose nodes stand at a site of the same name
KINDS = ("feature", "error", "head", "mlp", "embedding", TOKEN, TARGET)
STATUS = ("untested", "confirmed", "refuted")
UNKNOWN = {"low": -np.inf, "high": np.inf}  # the interval of an edge that was not tested


def new_nodes(n: int, kind: str | Sequence[str] = "feature", **columns: Any) -> np.ndarray:
    """Make a table of nodes.

    Parameters
    ----------
    n : int
        How many.
    kind : str or sequence of str
        Of `KINDS`.
    **columns
        Other columns of `NODE`, a value for all or one each; what is not given is empty or 0.

    Returns
    -------
    ndarray, shape (n,), dtype NODE
    """
    given = {"kind": kind, "site": kind, "position": "", "label": "", **columns}
    return _filled(np.zeros(n, NODE), given)


def new_edges(n: int, **columns: Any) -> np.ndarray:
    """Make a table of edges, untested where nothing else is said.

    Parameters
    ----------
    n : int
        How many.
    **columns
        Columns of `EDGE`, a value for all or one each.

    Returns
    -------
    ndarray, shape (n,), dtype EDGE
    """
    given = {"status": STATUS[0], **UNKNOWN, **columns}
    return _filled(np.zeros(n, EDGE), given)


def _filled(table: np.ndarray, columns: dict[str, Any]) -> np.ndarray:
    for name, values in columns.items():
        table[name] = values
    return table


def ids_of(nodes: np.ndarray) -> list[str]:
    """Return names that people can type, such as `blocks.3.hook_resid_post/17@s2`."""
    return [
        _name(kind, site, index, label) + (f"@{position}" if position else "")
        for kind, site, position, index, _, _, label in nodes.tolist()
    ]


def _name(kind: str, site: str, index: int, label: str) -> str:
    if kind in (TARGET, TOKEN):
        return f"{kind}:{label}" if label else kind
    if kind in ("head", "mlp"):
        layer = Site.parse(site).layer
        return f"a{layer}.h{index}" if kind == "head" else f"m{layer}"
    return {"feature": f"{site}/{index}", "error": f"{site}/error", "embedding": "embed"}[kind]


def check_tables(nodes: np.ndarray, edges: np.ndarray) -> None:
    """Refuse tables that are no circuit."""
    _check_dtype("nodes", nodes, NODE)
    _check_dtype("edges", edges, EDGE)
    _check_nodes(nodes)
    _check_edges(edges, nodes["site"], depths(nodes["site"]))


def depths(sites: np.ndarray) -> np.ndarray:
    """Rank of each site in the order of computation, from 0; tokens come first, targets last."""
    names = sites.tolist()
    order = sorted({name for name in names if name not in (TARGET, TOKEN)}, key=Site.parse)
    ends = [[name] if name in names else [] for name in (TOKEN, TARGET)]
    rank = {name: i for i, name in enumerate([*ends[0], *order, *ends[1]])}
    return np.array([rank[name] for name in names])


def _check_dtype(name: str, table: np.ndarray, dtype: np.dtype) -> None:
    if not isinstance(table, np.ndarray) or table.dtype != dtype or table.ndim != 1:
        got = f"{table.dtype} of shape {table.shape}" if isinstance(table, np.ndarray) else table
        raise InputError(f"{name} must be one row per {name[:-1]} with dtype {dtype}, got {got}.")
    for column in dtype.fields or ():
        if dtype[column].kind == "O":
            if not all(isinstance(text, str) for text in table[column].tolist()):
                raise InputError(f"{name}[{column!r}] must hold texts.")
            for text in table[column].tolist():
                refuse_surrogates(text, f"{name}[{column!r}]")
        elif np.isnan(table[column]).any() or (
            column not in UNKNOWN and not np.isfinite(table[column]).all()
        ):
            raise InputError(f"{name}[{column!r}] holds NaN or infinity.")
    if (table["score"] < 0).any():
        raise InputError(f"{name}['score'] holds negative values; a score is a size, 0 or more.")


def _check_nodes(nodes: np.ndarray) -> None:
    is_target = nodes["kind"] == TARGET
    n = int(is_target.sum())
    if not n or not is_target[-n:].all():
        raise InputError(f"The last nodes, and no others, must be targets (kind {TARGET!r}).")
    for kind, site in nodes[["kind", "site"]].tolist():
        if kind not in KINDS:
            raise InputError(f"Unknown kind of node {kind!r}. Use one of {', '.join(KINDS)}.")
        at_own = site if site in (TARGET, TOKEN) else None
        if at_own != (kind if kind in (TARGET, TOKEN) else None):
            raise InputError(f"A node of kind {kind!r} cannot stand at site {site!r}.")
    if (nodes["index"] < 0).any():
        raise InputError("nodes['index'] holds a negative index.")
    name, count = Counter(ids_of(nodes)).most_common(1)[0]
    if count > 1:
        raise InputError(f"Node {name:.200} is there twice. Merge its rows.")


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
    keys, counts = np.unique(np.stack([source, target], 1), axis=0, return_counts=True)
    if (counts > 1).any():
        s, t = keys[counts > 1][0]
        raise InputError(f"The edge from row {s} to row {t} is there twice. Add up its weights.")
    if unknown := set(edges["status"].tolist()) - set(STATUS):
        raise InputError(f"Unknown status {unknown.pop()!r} of an edge: {', '.join(STATUS)}.")


def short(site: str) -> str:
    """Return the short name of a node's site, which may be that of tokens or targets."""
    return site if site in (TOKEN, TARGET) else Site.parse(site).short

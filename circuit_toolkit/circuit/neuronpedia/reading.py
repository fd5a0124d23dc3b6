"""A graph in Neuronpedia's format as a circuit; what it breaks is said."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.arguments import described
from circuit_toolkit.circuit.neuronpedia.schema import (
    EMBEDDING,
    ERROR,
    FEATURE,
    MAX_BYTES,
    OURS,
    TYPES,
    fault,
)
from circuit_toolkit.circuit.neuronpedia.seal import unsealed
from circuit_toolkit.circuit.neuronpedia.writing import pinned_ids
from circuit_toolkit.circuit.tables import (
    EDGE,
    NODE,
    TARGET,
    TOKEN,
    depths,
    ids_of,
    new_edges,
    new_nodes,
)
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.files.reading import read_json
from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    from circuit_toolkit.circuit.circuit import Circuit

_OUTPUT = re.compile(r'Output "(.*)" \(p=[\d.]+\)', re.DOTALL)
_NAME = re.compile(r"(E|\d+)_(\d{1,10})_\d+")
_LAYER = re.compile(r"[0-9]{1,6}")
_SAID_ELSEWHERE = ("prompt", "prompt_tokens", "schema_version", OURS)


def circuit_of(make: Callable[..., Circuit], source: Any) -> Circuit:
    """Read a graph from a file or a dict."""
    graph, name = _parsed(source)
    metadata = graph.get("metadata") if isinstance(graph, Mapping) else None
    ours = isinstance(metadata, Mapping) and OURS in metadata
    if wrong := fault(graph, ours=ours):
        raise FileFormatError(f"{name} is no graph in Neuronpedia's format, at {wrong}.")
    if ours and (bare := unsealed(graph)):
        graph = bare
        warnings.warn(
            f"{name} was changed after it was written: its evidence is of other nodes and links, "
            "and is left out. Test the circuit again.",
            UserWarning,
            stacklevel=3,
        )
    try:
        return _circuit(make, graph, ours)
    except InputError as error:
        raise FileFormatError(f"{name} holds no graph that can be read: {error}") from error


def _parsed(source: Any) -> tuple[Any, str]:
    """Return a graph and what to call it in an error."""
    if isinstance(source, Mapping):
        return dict(source), "The graph"
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"Pass a path, or the graph as a dict; got {described(source)}.")
    path = resolved(source)
    return read_json(path, "Pass a graph's JSON.", largest=MAX_BYTES), f"{path}"


def _circuit(make: Callable[..., Circuit], graph: Mapping[str, Any], ours: bool) -> Circuit:
    given = graph["nodes"]
    name, count = Counter(node["node_id"] for node in given).most_common(1)[0]
    if count > 1:
        kinds = sorted({node["feature_type"] for node in given if node["node_id"] == name})
        raise InputError(
            f"{count} nodes have the id {name!r} ({', '.join(kinds)}), so its links are "
            "ambiguous. Give each node an id of its own."
        )
    tokens = graph["metadata"]["prompt_tokens"]
    rows = [_our_node(node) if ours else _node(node, tokens) for node in given]
    for row, node in zip(rows, given, strict=True):
        if row["index"] >= 2**31:
            raise InputError(f"node {node['node_id']!r} has the index {row['index']}: too large.")
    nodes = new_nodes(len(rows), **{c: [row[c] for row in rows] for c in NODE.names or ()})
    if TARGET not in nodes["kind"]:
        raise InputError("no node is a logit, so nothing is explained.")
    order = np.argsort(depths(nodes["site"]), kind="stable")  # tokens first, targets last
    nodes = nodes[order]
    row_of = {given[i]["node_id"]: row for row, i in enumerate(order.tolist())}
    edges = _edges(graph["links"], row_of)
    if ours:
        extra = graph["metadata"][OURS]
        settings, evidence = dict(extra["settings"]), extra["evidence"]
    else:
        chances = np.array([given[i].get("token_prob") or 0.0 for i in order.tolist()])
        _score(nodes, edges, chances, [given[i].get("influence") for i in order.tolist()])
        settings, evidence = _settings(graph["metadata"], nodes, chances), {}
    ids = ids_of(nodes)
    our_id = {name: ids[row] for name, row in row_of.items()}
    groups = _groups(graph["qParams"].get("supernodes", []), our_id, nodes, ids)
    circuit = make(nodes, edges, settings, evidence, groups)
    pinned = [our_id[each] for each in graph["qParams"].get("pinnedIds", []) if each in our_id]
    if pinned == pinned_ids(circuit):
        return circuit
    return make(nodes, edges, settings | {"pinned": pinned}, evidence, groups)


def _our_node(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of our own; the label of a feature may have been edited in a viewer."""
    row = {**node[OURS], "activation": node.get("activation") or 0.0}
    return row | ({"label": node["clerp"]} if row["kind"] == "feature" else {})


def _node(node: Mapping[str, Any], tokens: list[str]) -> dict[str, Any]:
    """Return the row of a node that another program wrote."""
    kind, at, layer = node["feature_type"], node["ctx_idx"], str(node["layer"])
    name, label = node["node_id"], node["clerp"]
    if kind not in TYPES:
        known = ", ".join(map(repr, TYPES))
        raise InputError(f"node {name!r} is of type {kind!r}; a circuit has {known}.")
    if not 0 <= at < len(tokens):
        raise InputError(f"node {name!r} is at token {at} of {len(tokens)}.")
    parsed = _NAME.match(name)
    row: dict[str, Any] = {"position": str(at), "score": 0.0}
    row["activation"] = node.get("activation") or 0.0
    if kind == EMBEDDING:
        index = int(parsed[2]) if parsed and parsed[1] == "E" else 0
        word = tokens[at].strip() or repr(tokens[at])
        return row | {"kind": TOKEN, "site": TOKEN, "index": index, "label": word, "activation": 1}
    if kind not in (FEATURE, ERROR):
        match = _OUTPUT.fullmatch(label)
        word = (match[1].strip() or repr(match[1])) if match else label
        index = max(node["feature"] or 0, 0)
        return row | {
            **{"kind": TARGET, "site": TARGET, "position": ""},
            **{"index": index, "label": word or str(index)},
        }
    if not _LAYER.fullmatch(layer):
        raise InputError(f"node {name!r} is in layer {layer!r}, which is no number.")
    if kind == ERROR:
        site = str(Site("mlp_out", int(layer)))
        return row | {"kind": "error", "site": site, "index": 0, "label": label or "error"}
    index = _index(node["feature"], int(layer), parsed, name)
    site = str(Site("mlp_in", int(layer)))
    return row | {"kind": "feature", "site": site, "index": index, "label": label}


def _index(feature: int | None, layer: int, parsed: re.Match[str] | None, name: str) -> int:
    """Return the index of a feature, from its id or from the pairing of layer and index."""
    if parsed and parsed[1] == str(layer):
        return int(parsed[2])
    if feature is not None and feature >= 0:
        total = (isqrt(8 * feature + 1) - 1) // 2  # layer + index
        index = feature - total * (total + 1) // 2
        if total - index == layer:
            return index
    raise InputError(f"node {name!r} names no feature of layer {layer}: {feature}.")


def _edges(links: Sequence[Mapping[str, Any]], row_of: Mapping[str, int]) -> np.ndarray:
    for link in links:
        for end in ("source", "target"):
            if link[end] not in row_of:
                raise InputError(
                    f"the link from {link['source']!r} to {link['target']!r} has no {end}: no node "
                    "has that id."
                )
    unknown = new_edges(1)[0]
    columns: dict[str, Any] = {
        name: [link.get(name, unknown[name]) for link in links]
        for name in EDGE.names or ()
        if name not in ("source", "target")
    }
    ends = {end: [row_of[link[end]] for link in links] for end in ("source", "target")}
    return new_edges(len(links), **columns, **ends)


def _score(
    nodes: np.ndarray,
    edges: np.ndarray,
    chances: np.ndarray,
    cumulative: Sequence[float | None],
) -> None:
    """Set scores: of nodes their share of influence, of edges the influence that they carry.

    The graph gives the cumulative share, the largest first: a step is the share of one node, and of
    those pruned before it, so that it is at most the step before. Without it, shares are those in
    the graph itself.
    """
    source, target = edges["source"], edges["target"]
    size = np.abs(edges["weight"].astype(float))
    total = np.bincount(target, size, len(nodes))
    share = np.divide(size, total[target], out=np.zeros_like(size), where=total[target] > 0)
    influence = chances.copy()
    order = np.argsort(target, kind="stable")
    starts = np.searchsorted(target[order], np.arange(len(nodes) + 1))
    for row in range(len(nodes) - 1, -1, -1):  # whatever a node drives comes after it
        here = order[starts[row] : starts[row + 1]]
        np.add.at(influence, source[here], share[here] * influence[row])
    edges["score"] = share * influence[target]
    is_target = nodes["kind"] == TARGET
    inner = np.flatnonzero(~is_target)
    given = [cumulative[i] for i in inner.tolist()]
    known = [value for value in given if value is not None]
    if len(known) == len(inner):
        ranked = np.argsort(known, kind="stable")
        steps = np.diff(np.array(known)[ranked], prepend=0.0).clip(0)
        nodes["score"][inner[ranked]] = np.minimum.accumulate(steps)
    elif influence[inner].sum() > 0:
        nodes["score"][inner] = influence[inner] / influence[inner].sum()
    nodes["score"][is_target] = chances[is_target]


def _settings(
    metadata: Mapping[str, Any], nodes: np.ndarray, chances: np.ndarray
) -> dict[str, Any]:
    """Return what the graph says of itself; what has no place among settings is kept as it is."""
    is_target, words = nodes["kind"] == TARGET, nodes[nodes["kind"] == TOKEN]
    tokens = metadata["prompt_tokens"]
    settings = {
        **{"method": "attribution_graph", "level": "features", "scope": "prompt"},
        "model": metadata["scan"],
        "prompt": metadata["prompt"],
        "tokens": tokens,
        "target": nodes["label"][is_target].tolist(),
        "probabilities": chances[is_target].tolist(),
        "neuronpedia": {
            key: value for key, value in metadata.items() if key not in _SAID_ELSEWHERE
        },
    }
    if len(words) == len(tokens):
        at = dict(zip(words["position"].tolist(), words["index"].tolist(), strict=True))
        settings["token_ids"] = [at[str(i)] for i in range(len(tokens))]
    pruning = metadata.get("pruning_settings", {})
    shares = {
        "node_share": pruning.get("node_threshold", metadata.get("node_threshold")),
        "edge_share": pruning.get("edge_threshold"),
    }
    return settings | {name: share for name, share in shares.items() if share is not None}


def _groups(
    supernodes: Sequence[Sequence[str]],
    our_id: Mapping[str, str],
    nodes: np.ndarray,
    ids: Sequence[str],
) -> dict[str, list[str]]:
    """Return supernodes; a viewer's may hold targets and share nodes, which ours cannot."""
    targets = {
        each for each, kind in zip(ids, nodes["kind"].tolist(), strict=True) if kind == TARGET
    }
    taken: set[str] = set()
    groups: dict[str, list[str]] = {}
    lost = 0
    for label, *members in supernodes:
        known = dict.fromkeys(our_id[each] for each in members if each in our_id)
        kept = [each for each in known if each not in targets and each not in taken]
        lost += len(members) - len(kept)
        taken.update(kept)
        name, n = label.strip() or "supernode", 1
        while name in groups or name in ids:
            n += 1
            name = f"{label.strip() or 'supernode'} ({n})"
        if kept:
            groups[name] = kept
    if lost:
        warnings.warn(
            f"{lost} members of supernodes were left out: targets, nodes of two supernodes, or "
            "nodes that the graph does not have.",
            UserWarning,
            stacklevel=6,
        )
    return groups

"""A circuit of one prompt as a graph in Neuronpedia's format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit import __version__
from circuit_toolkit.arguments import described
from circuit_toolkit.circuit.file import rows_of
from circuit_toolkit.circuit.neuronpedia.schema import (
    EMBEDDING,
    ERROR,
    FEATURE,
    LOGIT,
    MAX_BYTES,
    MIN_BYTES,
    OURS,
    fault,
)
from circuit_toolkit.circuit.neuronpedia.seal import seal_of
from circuit_toolkit.circuit.neuronpedia.sources import known_source, model_id
from circuit_toolkit.circuit.tables import STATUS, TARGET, TOKEN
from circuit_toolkit.errors import InputError
from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    from circuit_toolkit.circuit.circuit import Circuit

_TYPES = {"feature": FEATURE, "error": ERROR, TOKEN: EMBEDDING, TARGET: LOGIT}
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]+")
_ONLY_PROMPTS = (
    "Neuronpedia's format holds the graph of one prompt: features, errors, tokens and targets at "
    "the numbers of tokens."
)


def graph_of(
    circuit: Circuit,
    slug: str | None,
    scan: str | None,
    source_set: str | None,
    description: str,
    pinned: Iterable[str] | None,
) -> dict[str, Any]:
    """Return a circuit as a graph in the format, checked against its schema."""
    tokens = _tokens(circuit)
    position = circuit.settings.get("position", -1)  # of the token that the targets follow
    explained = (position if isinstance(position, int) else -1) % len(tokens)
    names = node_ids(circuit.nodes, explained)
    of_ours = dict(zip(circuit.ids(), names, strict=True))
    pins = pinned_ids(circuit) if pinned is None else _known_pins(circuit, pinned)
    settings = circuit.settings if pinned is None else circuit.settings | {"pinned": pins}
    about = settings.get("neuronpedia")
    about = about if isinstance(about, dict) else {}  # of a graph that was read
    known = known_source(settings.get("transcoders"))
    details: dict[str, Any] = about.get("feature_details") or {}
    if source_set or known:
        details = details | {"neuronpedia_source_set": source_set or (known or ("", ""))[1]}
    prompt = settings.get("prompt")
    graph = {
        "metadata": {
            "slug": _slug(slug, about.get("slug"), prompt or "".join(tokens)),
            "scan": scan or about.get("scan") or (known or [model_id(settings.get("model"))])[0],
            "transcoder_list": [],
            "prompt_tokens": tokens,
            "prompt": prompt if isinstance(prompt, str) else "".join(tokens),
            "schema_version": 1,  # a feature is the Cantor pairing of layer and index
            **_thresholds(settings),
            **({"feature_details": details} if details else {}),
            "info": {
                **({"description": description} if description else {}),
                "generator": {"name": "circuit_toolkit", "version": __version__},
            },
            OURS: {"settings": settings, "evidence": circuit.evidence},
        },
        "qParams": {
            "pinnedIds": [of_ours[each] for each in pins],
            "supernodes": [
                [name, *(of_ours[each] for each in nodes)] for name, nodes in circuit.groups.items()
            ],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": _nodes(circuit, names, explained),
        "links": _links(circuit.edges, names),
    }
    graph["metadata"][OURS]["sha256"] = seal_of(graph)
    if wrong := fault(graph, ours=True):
        raise InputError(f"This circuit breaks Neuronpedia's format at {wrong}.")
    return graph


def text_of(graph: dict[str, Any]) -> str:
    """Return a graph as JSON; refuse what is too small or too large for Neuronpedia."""
    text = json.dumps(graph, ensure_ascii=False, separators=(",", ":"))
    size = len(text.encode())
    if not MIN_BYTES <= size <= MAX_BYTES:
        raise InputError(
            f"The graph takes {size:,} bytes and Neuronpedia reads {MIN_BYTES:,} to "
            f"{MAX_BYTES:,}. Prune the circuit less or more: circuit.prune(max_edges=...)."
        )
    return text


def node_ids(nodes: np.ndarray, explained: int) -> list[str]:
    """Return ids as Neuronpedia writes them, `layer_index_token`, each unique.

    An error has the index -1. Where a layer has two sites, the later one's ids say which.
    """
    found: dict[str, None] = {}
    for kind, site, position, index in nodes[["kind", "site", "position", "index"]].tolist():
        layer = _layer(kind, site, nodes)
        at = explained if kind == TARGET else position
        name = f"{layer}_{-1 if kind == 'error' else index}_{at}"
        if name in found and kind in ("feature", "error"):
            name += f"_{Site.parse(site).kind}"
        while name in found:  # several directions as targets
            name += "_"
        found[name] = None
    return list(found)


def pinned_ids(circuit: Circuit) -> list[str]:
    """Return the nodes that a viewer shows beside the graph: as set, or those in supernodes."""
    ids, wanted = circuit.ids(), circuit.settings.get("pinned")
    if isinstance(wanted, list):
        return [each for each in wanted if each in set(ids)]
    return default_pins(circuit)


def default_pins(circuit: Circuit) -> list[str]:
    """Return the nodes in supernodes, and the targets with them."""
    if not circuit.groups:
        return []
    inside = {each for nodes in circuit.groups.values() for each in nodes}
    kinds = circuit.nodes["kind"].tolist()
    return [
        each
        for each, kind in zip(circuit.ids(), kinds, strict=True)
        if each in inside or kind == TARGET
    ]


def cantor(layer: int, index: int) -> int:
    """Return one whole number for two (Cantor's pairing function)."""
    return (layer + index) * (layer + index + 1) // 2 + index


def _tokens(circuit: Circuit) -> list[str]:
    """Return the prompt's tokens; refuse what the format cannot hold."""
    kinds = set(circuit.nodes["kind"].tolist())
    if unknown := sorted(kinds - set(_TYPES)):
        raise InputError(f"This circuit has nodes of kind {', '.join(unknown)}. {_ONLY_PROMPTS}")
    tokens = circuit.settings.get("tokens")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(t, str) for t in tokens):
        raise InputError(f"This circuit's settings have no tokens. {_ONLY_PROMPTS}")
    inner = circuit.nodes[circuit.nodes["kind"] != TARGET]
    numbers = [str(i) for i in range(len(tokens))]
    if wrong := sorted(set(inner["position"].tolist()) - set(numbers)):
        raise InputError(
            f"This circuit has nodes at position {wrong[0]!r}, of {len(tokens)} tokens. "
            f"{_ONLY_PROMPTS}"
        )
    return tokens


def _known_pins(circuit: Circuit, pinned: Any) -> list[str]:
    known = set(circuit.ids())
    if isinstance(pinned, str) or not hasattr(pinned, "__iter__"):
        raise InputError(f"pinned must be a list of ids, got {described(pinned)}.")
    for each in (pinned := list(pinned)):
        if each not in known:
            raise InputError(f"There is no node {each!r} to pin. See circuit.ids().")
    return pinned


def _slug(slug: Any, before: Any, prompt: Any) -> str:
    if slug is None and isinstance(before, str) and _SLUG.fullmatch(before):
        return before
    if slug is None:
        words = re.findall(r"[a-z0-9]+", str(prompt).lower())
        return "-".join(["graph", *words])[:60].rstrip("-")
    if not isinstance(slug, str) or not _SLUG.fullmatch(slug):
        raise InputError(
            f"slug must be two or more letters, digits, - or _, got {described(slug)}."
        )
    return slug


def _thresholds(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the viewers read of pruning and attribution, where it is known."""
    given = {
        name: settings[name]
        for name in ("node_share", "edge_share", "max_features")
        if isinstance(settings.get(name), int | float)
    }
    found: dict[str, Any] = {}
    if "node_share" in given:
        found["node_threshold"] = given["node_share"]
    names = {"node_share": "node_threshold", "edge_share": "edge_threshold"}
    if pruning := {names[name]: given[name] for name in names if name in given}:
        found["pruning_settings"] = pruning
    if "max_features" in given:
        found["generation_settings"] = {"max_feature_nodes": given["max_features"]}
    return found


def _layer(kind: str, site: str, nodes: np.ndarray) -> str:
    if kind == TOKEN:
        return "E"
    if kind != TARGET:
        return str(Site.parse(site).layer)
    sites = set(nodes["site"].tolist()) - {TOKEN, TARGET}
    return str(max((Site.parse(each).layer for each in sites), default=-1) + 2)


def _nodes(circuit: Circuit, names: list[str], explained: int) -> list[dict[str, Any]]:
    nodes = circuit.nodes
    chances = _probabilities(circuit)
    influence = _cumulative(nodes)
    found = []
    for i, row in enumerate(rows_of(nodes)):
        kind, index = row["kind"], row["index"]
        layer = _layer(kind, row["site"], nodes)
        at = explained if kind == TARGET else int(row["position"])
        feature, label, chance = index, row["label"], 0.0
        if kind == "feature":
            feature = cantor(int(layer), index)
        elif kind == "error":
            feature = -1
        elif kind == TOKEN:
            feature = at
        else:
            chance = chances[i - len(nodes)]
            label = f'Output "{label}" (p={chance:.3f})'
        found.append(
            {
                "node_id": names[i],
                "feature": feature,
                "layer": layer,
                "ctx_idx": at,
                "feature_type": _TYPES[kind],
                "token_prob": chance,
                "is_target_logit": kind == TARGET and i == len(nodes) - len(chances),
                "run_idx": 0,
                "reverse_ctx_idx": 0,
                "jsNodeId": names[i],
                "clerp": label,
                "influence": influence[i],
                "activation": row.pop("activation"),
                OURS: row,
            }
        )
    return found


def _probabilities(circuit: Circuit) -> list[float]:
    n = int((circuit.nodes["kind"] == TARGET).sum())
    given = circuit.settings.get("probabilities")
    if not isinstance(given, list) or len(given) != n:
        return [1.0 / n] * n
    return [float(each) for each in given]


def _cumulative(nodes: np.ndarray) -> list[float | None]:
    """Return the share of influence up to each node, the largest first; None of targets."""
    inner = np.flatnonzero(nodes["kind"] != TARGET)
    score = nodes["score"][inner].astype(float)
    order = np.argsort(-score, kind="stable")
    found: list[float | None] = [None] * len(nodes)
    for i, value in zip(inner[order].tolist(), np.cumsum(score[order]).tolist(), strict=True):
        found[i] = min(round(value, 7), 1.0)
    return found


def _links(edges: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
    found = []
    for row in rows_of(edges):
        link = {
            "source": names[row["source"]],
            "target": names[row["target"]],
            "weight": row["weight"],
            "score": row["score"],
        }
        if row["status"] != STATUS[0]:
            link["status"] = row["status"]
        ends = {name: row[name] for name in ("low", "high") if np.isfinite(row[name])}
        found.append(link | ends)
    return found

"""What binds the evidence in a graph of ours to its nodes and links.

A viewer may name nodes anew, group and pin them, and write numbers in its own way. One that takes
nodes or links away leaves evidence that was measured on other tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuit_toolkit.circuit.neuronpedia.schema import OURS
from circuit_toolkit.circuit.tables import STATUS
from circuit_toolkit.files.documents import digest

_UNTESTED = ("status", "low", "high")


def seal_of(graph: Mapping[str, Any]) -> str:
    """Return a checksum of what evidence was measured on, in any order, and of the evidence."""
    nodes = []
    for each in graph["nodes"]:
        row = {name: value for name, value in each[OURS].items() if name != "label"}
        nodes.append([each["node_id"], row, each.get("activation")])
    names = ("source", "target", "weight", "score", *_UNTESTED)
    links = [[each.get(name) for name in names] for each in graph["links"]]
    extra = graph["metadata"][OURS]
    whole = [sorted(map(repr, map(_number, each))) for each in (nodes, links)]
    return digest({"tables": whole, "told": _number([extra["settings"], extra["evidence"]])})


def unsealed(graph: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a graph without its evidence where that is not of its nodes and links, else None."""
    extra = graph["metadata"][OURS]
    is_tested = extra["evidence"] or any(
        each.get("status", STATUS[0]) != STATUS[0] for each in graph["links"]
    )
    if not is_tested or extra.get("sha256") == seal_of(graph):
        return None
    links = [{k: v for k, v in each.items() if k not in _UNTESTED} for each in graph["links"]]
    metadata = graph["metadata"] | {OURS: {**extra, "evidence": {}}}
    return {**graph, "links": links, "metadata": metadata}


def _number(value: Any) -> Any:
    """Return a value with every number as a float: JSON's 1 and 1.0 are the same."""
    if isinstance(value, Mapping):
        return {key: _number(each) for key, each in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [_number(each) for each in value]
    return float(value) if type(value) in (int, float) else value

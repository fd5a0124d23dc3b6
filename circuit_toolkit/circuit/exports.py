"""A circuit as tables and graphs for other programs: networkx, CSV, GraphML."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.circuit.groups import group_of_each
from circuit_toolkit.errors import InputError
from circuit_toolkit.files.documents import resolved, write_file
from circuit_toolkit.files.folder import replacing

if TYPE_CHECKING:
    import networkx
    import pandas as pd

    from circuit_toolkit.circuit.circuit import Circuit

# What XML cannot hold, and the carriage return, which it makes a line feed.
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_networkx(circuit: Circuit) -> networkx.DiGraph:
    """Return a circuit as a graph; see `Circuit.to_networkx`."""
    import networkx as nx

    nodes, edges = _tables(circuit)
    graph = nx.DiGraph(settings=circuit.settings, evidence=circuit.evidence)
    names, more = list(nodes.columns[1:]), list(edges.columns[2:])
    for name, *row in nodes.itertuples(index=False):
        graph.add_node(name, **dict(zip(names, row, strict=True)))
    for source, target, *row in edges.itertuples(index=False):
        graph.add_edge(source, target, **dict(zip(more, row, strict=True)))
    return graph


def write_csv(circuit: Circuit, folder: str | os.PathLike) -> Path:
    """Write both tables, whole or not at all; see `Circuit.to_csv`."""
    nodes, edges = _tables(circuit)
    ends = {name: edges[name].where(np.isfinite(edges[name])) for name in ("low", "high")}
    tables = {"nodes.csv": nodes, "edges.csv": edges.assign(**ends)}
    folder = resolved(folder)
    for name, table in tables.items():
        _check_ours(folder / name, list(table.columns))
    with replacing(folder, [*tables]) as new:
        for name, table in tables.items():
            table.to_csv(new / name, index=False, quoting=_quoting(table), **_CSV)
    return folder


def write_graphml(circuit: Circuit, path: str | os.PathLike) -> Path:
    """Write a circuit as GraphML; see `Circuit.to_graphml`."""
    import networkx as nx

    graph = to_networkx(circuit)
    plain = nx.DiGraph(
        settings=_xml(json.dumps(circuit.settings)), evidence=_xml(json.dumps(circuit.evidence))
    )
    for name, row in graph.nodes(data=True):
        plain.add_node(_xml(name), **{key: _xml(value) for key, value in row.items()})
    for source, target, row in graph.edges(data=True):
        known = {key: value for key, value in row.items() if value not in (-np.inf, np.inf)}
        plain.add_edge(_xml(source), _xml(target), **known)
    return write_file(path, lambda part: nx.write_graphml_xml(plain, part))


def _tables(circuit: Circuit) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return nodes with id and supernode, and edges by id, in the order of the tables."""
    import pandas as pd

    ids = circuit.ids()
    nodes = pd.DataFrame({name: circuit.nodes[name] for name in circuit.nodes.dtype.names or ()})
    nodes.insert(0, "id", ids)
    nodes["group"] = group_of_each(circuit.groups, ids)
    edges = pd.DataFrame({name: circuit.edges[name] for name in circuit.edges.dtype.names or ()})
    for end in ("source", "target"):
        edges[end] = [ids[row] for row in edges[end]]
    return nodes, edges


_CSV: Any = {"lineterminator": "\n", "encoding": "utf-8"}


def _quoting(table: pd.DataFrame) -> Any:
    """Quote texts where one has a carriage return, which writers leave bare and readers obey."""
    texts = (text for name in table.columns for text in table[name] if isinstance(text, str))
    return csv.QUOTE_NONNUMERIC if any("\r" in text for text in texts) else csv.QUOTE_MINIMAL


def _check_ours(path: Path, columns: list[str]) -> None:
    """Refuse to replace a table with other columns, which is somebody else's."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        head = next(csv.reader([file.readline()]), [])
    if head != columns:
        raise InputError(
            f"{path} is there and no table of a circuit, and is not replaced. Pass a new folder."
        )


def _xml(value: Any) -> Any:
    """Return a text with the characters that XML cannot hold written out."""
    if not isinstance(value, str):
        return value
    return _NOT_XML.sub(lambda match: match[0].encode("unicode_escape").decode(), value)

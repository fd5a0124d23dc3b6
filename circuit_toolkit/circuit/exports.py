"""A circuit as tables and graphs for other programs: networkx, CSV, Parquet, GraphML."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable
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


def to_networkx(circuit: Circuit, plain: bool = False) -> networkx.DiGraph:
    """Return a circuit as a graph; see `Circuit.to_networkx`."""
    import networkx as nx

    nodes, edges = _tables(circuit)
    graph = nx.DiGraph()
    for key, value in (("settings", circuit.settings), ("evidence", circuit.evidence)):
        graph.graph[key] = json.dumps(value) if plain else value
    names, more = list(nodes.columns[1:]), list(edges.columns[2:])
    for name, *row in nodes.itertuples(index=False):
        graph.add_node(name, **dict(zip(names, row, strict=True)))
    for source, target, *row in edges.itertuples(index=False):
        known = dict(zip(more, row, strict=True))
        if plain:
            known = {key: value for key, value in known.items() if value not in (-np.inf, np.inf)}
        graph.add_edge(source, target, **known)
    return graph


def write_csv(circuit: Circuit, folder: str | os.PathLike) -> Path:
    """Write both tables, whole or not at all; see `Circuit.to_csv`."""

    def write(table: pd.DataFrame, path: Path) -> None:
        table.to_csv(path, index=False, quoting=_quoting(table), **_CSV)

    return _write_tables(circuit, folder, ".csv", write, _csv_columns)


def write_parquet(circuit: Circuit, folder: str | os.PathLike) -> Path:
    """Write both tables, whole or not at all; see `Circuit.to_parquet`."""

    def write(table: pd.DataFrame, path: Path) -> None:
        table.to_parquet(path, index=False, engine="pyarrow")

    return _write_tables(circuit, folder, ".parquet", write, _parquet_columns)


def _write_tables(
    circuit: Circuit,
    folder: str | os.PathLike,
    ending: str,
    write: Callable[[pd.DataFrame, Path], None],
    columns_of: Callable[[Path], list[str]],
) -> Path:
    nodes, edges = _tables(circuit)
    ends = {name: edges[name].where(np.isfinite(edges[name])) for name in ("low", "high")}
    tables = {f"nodes{ending}": nodes, f"edges{ending}": edges.assign(**ends)}
    folder = resolved(folder)
    for name, table in tables.items():
        _check_ours(folder / name, list(table.columns), columns_of)
    with replacing(folder, [*tables]) as new:
        for name, table in tables.items():
            write(table, new / name)
    return folder


def write_graphml(circuit: Circuit, path: str | os.PathLike) -> Path:
    """Write a circuit as GraphML; see `Circuit.to_graphml`."""
    import networkx as nx

    graph = to_networkx(circuit, plain=True)
    safe = nx.DiGraph()
    safe.graph.update({key: _xml(value) for key, value in graph.graph.items()})
    for name, row in graph.nodes(data=True):
        safe.add_node(_xml(name), **{key: _xml(value) for key, value in row.items()})
    for source, target, row in graph.edges(data=True):
        safe.add_edge(_xml(source), _xml(target), **row)
    return write_file(path, lambda part: nx.write_graphml_xml(safe, part))


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


def _check_ours(path: Path, columns: list[str], columns_of: Callable[[Path], list[str]]) -> None:
    """Refuse to replace a table with other columns, which is somebody else's."""
    if path.is_file() and columns_of(path) != columns:
        raise InputError(
            f"{path} is there and no table of a circuit, and is not replaced. Pass a new folder."
        )


def _csv_columns(path: Path) -> list[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        return next(csv.reader([file.readline()]), [])


def _parquet_columns(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path).names
    except (pa.ArrowException, OSError, ValueError):
        return []


def _xml(value: Any) -> Any:
    """Return a text with the characters that XML cannot hold written out."""
    if not isinstance(value, str):
        return value
    return _NOT_XML.sub(lambda match: match[0].encode("unicode_escape").decode(), value)

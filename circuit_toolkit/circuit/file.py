"""The JSON file of a circuit: written whole or not at all, and checked when it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.circuit.tables import EDGE, KINDS, NODE, STATUS, TARGET, UNKNOWN
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.documents import document, parsed_document
from circuit_toolkit.files.schema import closed, record, schema_fault
from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    from circuit_toolkit.circuit.circuit import Circuit

FORMAT = "circuit_toolkit.circuit"
SCHEMA_VERSION = 4
_DICTS = ("settings", "evidence", "groups")
REMEDY = (
    "Pass a file that `Circuit.save` wrote, or take out its `sha256`, its evidence and the status "
    "of its edges to read a changed one as untested."
)
_ROW = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}  # int32
_REAL = {"type": "number", "minimum": -3.4e38, "maximum": 3.4e38}  # float32
_SCORE = _REAL | {"minimum": 0}
_TEXT = {"type": "string"}
_END = {"type": ["number", "null"], "minimum": -3.4e38, "maximum": 3.4e38}
_NODE = closed(
    record(
        {
            "kind": {"enum": list(KINDS)},
            "site": _TEXT,
            "position": _TEXT,
            "index": _ROW,
            "activation": _REAL,
            "score": _SCORE,
            "label": _TEXT,
        }
    )
)
_EDGE = closed(
    record(
        {
            "source": _ROW,
            "target": _ROW,
            "weight": _REAL,
            "score": _SCORE,
            "status": {"enum": list(STATUS)},
            "low": _END,
            "high": _END,
        }
    )
)
SCHEMA = closed(
    record(
        {
            "settings": {"type": "object"},
            "evidence": {"type": "object"},
            "groups": {
                "type": "object",
                "additionalProperties": {"type": "array", "items": _TEXT, "minItems": 1},
            },
            "nodes": {"type": "array", "items": _NODE, "minItems": 1},
            "edges": {"type": "array", "items": _EDGE},
        }
    )
)


def document_of(circuit: Circuit) -> dict[str, Any]:
    """Return what the file of a circuit holds: format, version, checksum, dicts and tables."""
    content: dict[str, Any] = {name: getattr(circuit, name) for name in _DICTS}
    content |= {"nodes": rows_of(circuit.nodes), "edges": rows_of(circuit.edges)}
    return document(FORMAT, SCHEMA_VERSION, content, flat=True)


def rows_of(table: np.ndarray) -> list[dict[str, Any]]:
    """Return the rows of a table as dicts; a float32 as the shortest number that rounds to it."""
    names = table.dtype.names or ()
    columns = [
        [float(str(value)) for value in table[name]]
        if table.dtype[name].kind == "f"
        else table[name].tolist()
        for name in names
    ]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _table(rows: list[dict[str, Any]], dtype: np.dtype) -> np.ndarray:
    def value(row: dict[str, Any], column: str) -> Any:
        return UNKNOWN[column] if row[column] is None else row[column]

    return np.array([tuple(value(row, c) for c in dtype.names or ()) for row in rows], dtype)


def parsed(make: Callable[..., Circuit], found: Any, name: str) -> Circuit:
    """Make a circuit of a parsed document; FileFormatError where it breaks the schema."""
    older = {1: _from_1, 2: _from_2, 3: dict}
    content = parsed_document(
        found, FORMAT, SCHEMA_VERSION, name, REMEDY, flat=True, unsealed=_tested, older=older
    )
    if wrong := schema_fault(content, SCHEMA, ["nodes", "edges"]):
        raise FileFormatError(f"{name} is damaged at {wrong}. Save the circuit again.")
    dicts = {name: content[name] for name in _DICTS}
    try:
        return make(_table(content["nodes"], NODE), _table(content["edges"], EDGE), **dicts)
    except InputError as error:
        raise FileFormatError(f"{name} does not hold a valid circuit: {error}") from error


def _tested(content: dict[str, Any]) -> str | None:
    """Say what a file of another program must not hold: evidence is of the tables it measured."""
    edges = content.get("edges")
    edges = edges if isinstance(edges, list) else []
    status = {each.get("status", STATUS[0]) for each in edges if isinstance(each, dict)}
    if content.get("evidence") or status - {STATUS[0]}:
        return (
            "holds evidence or tested edges but no checksum (`sha256`), so it may be of other "
            "tables. Take out both, and test the circuit again."
        )
    return None


def _from_2(content: dict[str, Any]) -> dict[str, Any]:
    """Bring a circuit of version 2 to this one: it had no supernodes."""
    return {**content, "groups": {}}


def _from_1(content: dict[str, Any]) -> dict[str, Any]:
    """Bring a circuit of version 1 to version 2 and on: its nodes had neither kind nor position."""
    settings = content["settings"]
    level, position = settings.get("level"), settings.get("positions")
    kinds = {"resid_pre": "embedding", "head_out": "head", "mlp_out": "mlp"}

    def node(old: dict[str, Any]) -> dict[str, Any]:
        site = old["site"]
        kind = TARGET
        if site != TARGET:
            kind = "feature" if level in (None, "features") else kinds[Site.parse(site).kind]
        at = position if kind == "feature" and isinstance(position, str) else ""
        rest = {name: value for name, value in old.items() if name != "feature"}
        return {**rest, "kind": kind, "position": at, "index": old["feature"]}

    untested = {"status": STATUS[0], "low": None, "high": None}
    nodes = [node(old) for old in content["nodes"]]
    edges = [{**old, **untested} for old in content["edges"]]
    return _from_2({**content, "nodes": nodes, "edges": edges})

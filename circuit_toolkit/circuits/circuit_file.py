"""The JSON file of a circuit: written whole or not at all, and checked when it is read."""

from __future__ import annotations

import json
import os
import uuid
from functools import cache
from pathlib import Path
from typing import Any

from circuit_toolkit.errors import FileFormatError
from circuit_toolkit.store.paths import check_file

FORMAT = "circuit_toolkit.circuit"
SCHEMA_VERSION = 1


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    closed = {"type": "object", "additionalProperties": False}
    return closed | {"required": list(properties), "properties": properties}


_ROW = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}  # int32
_REAL = {"type": "number", "minimum": -3.4e38, "maximum": 3.4e38}  # float32
_SCORE = _REAL | {"minimum": 0}
_NODE = _object(
    site={"type": "string", "maxLength": 64},
    feature=_ROW,
    activation=_REAL,
    score=_SCORE,
    label={"type": "string", "maxLength": 160},
)
_EDGE = _object(source=_ROW, target=_ROW, weight=_REAL, score=_SCORE)
SCHEMA = _object(
    format={"const": FORMAT},
    schema_version={"const": SCHEMA_VERSION},
    settings={"type": "object"},
    evidence={"type": "object"},
    nodes={"type": "array", "items": _NODE, "minItems": 1},
    edges={"type": "array", "items": _EDGE},
)


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file whole or not at all.

    Parameters
    ----------
    path : str or Path
        Where; a file of that name is replaced.
    text : str
        What, as UTF-8.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If no file can be written there.
    """
    path = Path(path)
    check_file(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # same folder, so that it moves
    try:
        with part.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def write_document(path: str | Path, document: dict[str, Any]) -> Path:
    """Write the content of a circuit, with its format and version, as JSON."""
    document = {"format": FORMAT, "schema_version": SCHEMA_VERSION, **document}
    return write_text(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))


def read_document(path: str | Path) -> dict[str, Any]:
    """Read the content of a circuit from JSON.

    Parameters
    ----------
    path : str or Path
        A file that `write_document` wrote.

    Returns
    -------
    dict
        With `nodes`, `edges`, `settings` and `evidence`.

    Raises
    ------
    FileFormatError
        If the file is not JSON, not a circuit, of another version, or breaks the schema.
    """
    from jsonschema.exceptions import best_match

    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise FileFormatError(
            f"{path} is not readable JSON ({error}). Is it cut off? Save the circuit again."
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FileFormatError(
            f"{path} is not a circuit: its `format` is not {FORMAT!r}. "
            "Pass a file that `Circuit.save` wrote."
        )
    if document.get("schema_version") != SCHEMA_VERSION:
        raise FileFormatError(
            f"{path} has schema version {document.get('schema_version')!r}; this release reads "
            f"version {SCHEMA_VERSION}. Use the release of circuit_toolkit that wrote it."
        )
    if error := best_match(_validator().iter_errors(document)):
        place = "/".join(map(str, error.absolute_path)) or "its top level"
        raise FileFormatError(
            f"{path} is damaged at {place}: {error.message[:200]}. Save the circuit again."
        )
    return document


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(SCHEMA)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")

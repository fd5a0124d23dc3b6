"""Columns inside columns, and the published tables that are made of them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from circuit_toolkit.errors import InputError

Row = Mapping[str, Any]
_FORMS: list[dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("tables.toml").read_text(encoding="utf-8")
)["forms"]
PARTS = ("clean", "corrupted", "answer", "wrong")


def published_columns(row: Row, given: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the columns of the parts of a prompt pair where a row is of a published form.

    What was named goes before; a counterfactual that is named also gives the wrong answers.
    """
    for form in _FORMS:
        if given["clean"] or any(lookup(row, each) is None for each in form["needs"]):
            continue
        other = given["corrupted"]
        named = other is not None and isinstance(row.get(other), Mapping)
        which = other if named else form.get("counterfactual", "")
        found = {part: form[part].replace("{counterfactual}", which) for part in PARTS}
        return found | {
            part: name
            for part, name in given.items()
            if name and not (part == "corrupted" and named)
        }
    return dict(given)


def with_columns(rows: Sequence[Row], columns: Iterable[str | None]) -> Sequence[Row]:
    """Add to rows the columns that lie inside others, `a.b` and `a[b]`, by these names."""
    inside = [each for each in columns if each and each not in rows[0] and _is_path(each)]
    if not inside:
        return rows
    for each in inside:
        if all(lookup(row, each) is None for row in rows):
            raise InputError(f"There is nothing at {each!r} in any row, among {[*rows[0]]}.")
    return [{**row, **{each: lookup(row, each) for each in inside}} for row in rows]


def lookup(row: Row, path: str) -> Any:
    """Return what a path says of a row, or None."""
    if path in row:
        return row[path]
    path, _, index = path.partition("[")
    found: Any = row
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    if not index or found is None:
        return found
    number = lookup(row, index.removesuffix("]"))
    try:
        return found[int(number)]
    except (TypeError, ValueError, IndexError, KeyError):
        return None


def _is_path(name: str) -> bool:
    return "." in name or name.endswith("]")

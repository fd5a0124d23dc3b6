"""How commands write: plain text, tables as Markdown, or one JSON document."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from circuit_toolkit.errors import InputError
from circuit_toolkit.files.documents import plain
from circuit_toolkit.texts import printable


def write(*lines: str) -> None:
    """Write lines, with what a terminal would obey written out."""
    _put("\n".join(map(printable, lines)))


def write_json(result: dict[str, Any]) -> None:
    """Write a result as JSON; what is no finite number is null."""
    _put(json.dumps(plain(result, "result"), indent=1))


def _put(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    """Write a line beside the result."""
    sys.stderr.write(f"{printable(text)}\n")


def markdown(heads: Sequence[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    """Return the lines of a table."""
    written = [f"| {' | '.join(map(str, row))} |" for row in [heads, *rows]]
    return [written[0], "|" + "---|" * len(heads), *written[1:]]


def number(value: float | None, form: str) -> str:
    """Write a number, and nothing for none."""
    return "" if value is None else format(value, form)


def bundled_task(name: str) -> Any:
    """Return what makes a bundled task."""
    from circuit_toolkit.tasks import BUNDLED

    if name not in BUNDLED:
        raise InputError(f"Unknown task {name!r}. Use one of {', '.join(BUNDLED)}.")
    return BUNDLED[name]

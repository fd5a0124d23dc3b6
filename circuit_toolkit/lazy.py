"""Public names of a package, loaded when they are first used: importing the package stays cheap."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from circuit_toolkit.extras import needed


def lazy(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package."""

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = needed(f"{package}.{homes[name] or name}")
        value = getattr(module, name) if homes[name] else module
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted(homes), list(homes)


def read_contents(file: str) -> dict[str, dict[str, str]]:
    """Return the names that the stub beside a package re-exports, by its headings (`## Models`)."""
    contents: dict[str, dict[str, str]] = {}
    for line in Path(file).with_suffix(".pyi").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            contents[line.removeprefix("## ")] = part = {}
        elif found := re.fullmatch(r"from circuit_toolkit\.?(\S*) import (\w+) as \2", line):
            part[found[2]] = found[1]
    return contents

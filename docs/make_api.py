"""Write docs/api.md: every public name by heading, with the first sentence of its docstring.

`python docs/make_api.py` writes it; a test holds that it is up to date.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import circuit_toolkit as ct


def page() -> str:
    """Return the page as Markdown."""
    lines = [
        "# API",
        "",
        "`import circuit_toolkit as ct`. Every name has its full documentation in the notebook: "
        "`ct.capture?`.",
    ]
    for heading, names in ct.CONTENTS.items():
        lines += ["", f"## {heading}", "", "| name | what it is |", "|---|---|"]
        for name in names:
            thing = getattr(ct, name)
            public = ", ".join(f"`{each}`" for each in getattr(thing, "__all__", []))
            lines.append(f"| `ct.{name}` | {summary(thing)}{public and f' Public: {public}.'} |")
    return "\n".join(lines) + "\n"


def summary(thing: object) -> str:
    """Return the first paragraph of a docstring on one line, safe in a table."""
    paragraph = (inspect.getdoc(thing) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).replace("|", "\\|")


if __name__ == "__main__":
    Path(__file__).with_name("api.md").write_text(page(), encoding="utf-8")

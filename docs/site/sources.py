"""Files of the repository that are pages of the site, and links between them.

A page is written for the repository's view: its links lead to files beside it. Here each link is
led to the page that the file became; a file that is no page is shown as one, with its source.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INCLUDED = {  # file of the repository -> page
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "report_a_weakness.md",
    "benchmarks/RESULTS.md": "results.md",
    "circuit_toolkit/demo/model/README.md": "bundled_model.md",
    "binder/README.md": "binder.md",
    **{
        f"notebooks/{path.name}": f"tutorials/{path.stem}.md"
        for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
    },
}
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)(#[^)\s]*)?(\s+\"[^\"]*\")?\)")
FENCED = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)


def origin(page: str) -> str:
    """Return the file of the repository that became a page."""
    of = {made: file for file, made in INCLUDED.items()}
    return of.get(page, f"docs/{page}")


def page_of(file: str) -> str:
    """Return the page, or the picture, that a file of the repository became."""
    if file in INCLUDED:
        return INCLUDED[file]
    return file.removeprefix("docs/") if file.startswith("docs/") else f"source/{file}.md"


def relinked(text: str, page: str) -> str:
    """Lead the relative links of a page, as they stand in the repository, to pages."""
    folder = os.path.dirname(origin(page))

    def lead(found: re.Match[str]) -> str:
        head, target, anchor, title = found.groups(default="")
        if re.match(r"[a-z]+:|/", target):
            return found[0]
        file = os.path.normpath(os.path.join(folder, target))
        if not (ROOT / file).is_file():
            return found[0]  # a link within the site, which MkDocs checks
        to = os.path.relpath(page_of(file), os.path.dirname(page) or ".")
        return f"{head}{to}{anchor}{title})"

    return outside_fences(text, lambda part: LINK.sub(lead, part))


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """Change a text of Markdown, but for its blocks of code."""
    made, last = [], 0
    for fence in FENCED.finditer(text):
        made += [change(text[last : fence.start()]), fence[0]]
        last = fence.end()
    return "".join([*made, change(text[last:])])


def shown_sources(texts: dict[str, str]) -> dict[str, str]:
    """Return a page for each file that is linked to and is no page: its source."""
    linked: set[str] = set()
    for page, text in texts.items():
        folder = os.path.dirname(origin(page))
        for _, target, *_ in LINK.findall(FENCED.sub("", text)):
            file = os.path.normpath(os.path.join(folder, target))
            if not file.startswith(("docs/", "..")) and (ROOT / file).is_file():
                linked.add(file)
    made = {}
    for file in sorted(linked - INCLUDED.keys()):
        kind = {".py": "python", ".ts": "typescript"}.get(Path(file).suffix, "text")
        source = (ROOT / file).read_text(encoding="utf-8").rstrip()
        made[page_of(file)] = f"# {file}\n\n~~~~{kind}\n{source}\n~~~~\n"
    return made

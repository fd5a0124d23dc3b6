"""Blocks of code in the pages, and what can be said of one that is not run."""

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]*)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block; one that needs what is not here says so in its title, and is not run."""

    kind: str
    title: str
    text: str

    @property
    def runs(self) -> bool:
        return not self.title.startswith(("Needs", "Starts"))


def blocks(text: str) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(text)]


def pages() -> list[Path]:
    """Pages for readers that hold blocks."""
    every = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in every if FENCE.search(page.read_text(encoding="utf-8"))]


def misused(code: str) -> list[str]:
    """Name what a block asks of the toolkit that is not there: names, and arguments of calls."""
    tree, known, wrong = ast.parse(code), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                if each.name.partition(".")[0] == "circuit_toolkit":
                    known[each.asname or each.name] = importlib.import_module(each.name)
        elif isinstance(node, ast.ImportFrom) and "circuit_toolkit" in (node.module or ""):
            for each in node.names:
                module = importlib.import_module(node.module)
                known[each.asname or each.name] = getattr(module, each.name)
    known.setdefault("ct", importlib.import_module("circuit_toolkit"))

    def found(node):
        if isinstance(node, ast.Name):
            return known.get(node.id)
        if isinstance(node, ast.Attribute) and (owner := found(node.value)) is not None:
            if not hasattr(owner, node.attr):
                wrong.append(ast.unparse(node))
            return getattr(owner, node.attr, None)
        return None

    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and callable(called := found(node.func)):
            given = {each.arg: None for each in node.keywords if each.arg}
            try:
                inspect.signature(called).bind(*[None for _ in node.args], **given)
            except TypeError as error:
                wrong.append(f"{ast.unparse(node)}: {error}")
    return wrong

"""The reference: a page for each heading of `ct.CONTENTS`, and one for each sub-package."""

from __future__ import annotations

import re
from types import ModuleType

import circuit_toolkit as ct

Pages = dict[str, tuple[str, str]]  # address -> title, Markdown


def slug(text: str) -> str:
    """Return a heading as the name of a file."""
    return re.sub(r"\W+", "_", text.lower()).strip("_")


def home(thing: object) -> str:
    """Return the path under which a name is defined, which is what mkdocstrings reads."""
    return f"{thing.__module__}.{thing.__qualname__}"  # type: ignore[attr-defined]


def entry(thing: object, name: str) -> str:
    """Return what mkdocstrings turns into the documentation of one name."""
    return f"::: {home(thing)}\n    options:\n      heading: {name}\n      toc_label: {name}\n"


def pages() -> Pages:
    """Return the pages of the reference, in the order of the contents."""
    made: Pages = {}
    for heading, names in ct.CONTENTS.items():
        things = {name: getattr(ct, name) for name in names}
        own = [name for name, thing in things.items() if not isinstance(thing, ModuleType)]
        if own:
            entries = [entry(things[name], f"ct.{name}") for name in own]
            made[f"api/{slug(heading)}.md"] = (heading, "\n".join([f"# {heading}\n", *entries]))
    return made | packages()


def packages() -> Pages:
    """Return the pages of sub-packages: the public names that `ct` itself does not have."""
    top = {name for names in ct.CONTENTS.values() for name in names}
    made: Pages = {}
    for package in ct.CONTENTS["Sub-packages"]:
        module = getattr(ct, package)
        rest = [name for name in getattr(module, "__all__", ()) if name not in top]
        named = [name for name in rest if hasattr(getattr(module, name), "__qualname__")]
        constants = [f"`{name}`" for name in rest if name not in named]
        if not rest:
            continue
        lines = [f"# ct.{package}", "", str(module.__doc__).split("\n\n")[0], ""]
        if constants:
            lines += [f"Constants: {', '.join(constants)}.", ""]
        lines += [entry(getattr(module, name), f"ct.{package}.{name}") for name in named]
        made[f"api/packages/{package}.md"] = (f"ct.{package}", "\n".join(lines))
    return made


def types(content: str) -> str:
    """Write types as the docstrings do: `ndarray, shape (k,)` is read as a tuple with a call."""

    def plain(found: re.Match[str]) -> str:
        return found[1] + re.sub(r"\b(shapes?)\(", r"\1 (", found[2]) + found[3]

    return re.sub(r"(<td>\s*<code>)\((.+)\)(</code>\s*</td>)", plain, content)


def linked(index: str) -> str:
    """Let each name in the table of docs/api.md lead to its documentation."""

    def link(found: re.Match[str]) -> str:
        thing = getattr(ct, found[1])
        if not isinstance(thing, ModuleType):
            return f"| [`ct.{found[1]}`][{home(thing)}] |"
        page = f"api/packages/{found[1]}.md"
        return f"| [`ct.{found[1]}`]({page}) |" if page in packages() else found[0]

    return re.sub(r"^\| `ct\.(\w+)` \|", link, index, flags=re.MULTILINE)

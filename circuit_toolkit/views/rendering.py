"""Templates, style sheets and scripts: files of the package, filled in with every text escaped."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from circuit_toolkit.features.descriptions.words import spelled
from circuit_toolkit.sites import Site
from circuit_toolkit.texts import whole
from circuit_toolkit.views import colours

ROOTS = ".ct-graph, .ct-fc, .ct-panel"  # what the package draws stands inside one of these


def render(name: str, **values: Any) -> Markup:
    """Fill in a template of the package, such as `views/templates/card.html`."""
    return Markup(whole(environment().get_template(name).render(values)))


@cache
def environment() -> Environment:
    """Return where templates come from; what they are given is escaped, whatever it is."""
    made = Environment(
        loader=PackageLoader("circuit_toolkit", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"colours": colours, "script": script, "stylesheet": stylesheet}
    made.globals |= {"vis_network": vis_network}
    made.filters |= {"token": token, "feature": feature, "spelled": spelled}
    made.tests |= {"spaced": lambda text: text[:1].isspace()}
    return made


@cache
def script(*names: str) -> Markup:
    """Join scripts of the package, such as `views/static/graph.js`; they may use `COLOURS`."""
    return Markup("\n".join([f"const COLOURS = {json.dumps(colours.NAMED)};", *map(_read, names)]))


@cache
def stylesheet(name: str) -> Markup:
    """Read a style sheet of the package, with the colours that it names, by JupyterLab's theme."""
    light, dark = (
        " ".join(_named(each, colour) for each, colour in theme.items())
        for theme in (colours.NAMED, colours.DARK)
    )
    in_dark = f'[data-jp-theme-light="false"] :is({ROOTS})'
    return Markup(f"{ROOTS} {{ {light} }}\n{in_dark} {{ {dark} }}\n{_read(name)}")


def _named(name: str, colour: str) -> str:
    """Define a colour for a style sheet: JupyterLab's where it has one."""
    own = colours.OF_JUPYTER.get(name)
    return f"--ct-{name.lower().replace('_', '-')}: {f'var({own}, {colour})' if own else colour};"


@cache
def vis_network() -> Markup:
    """Read vis-network from the installed pyvis: a UMD script that defines `vis`."""
    script = files("pyvis").joinpath("templates/lib/vis-9.1.2/vis-network.min.js")
    return Markup(script.read_text(encoding="utf-8").partition("//# sourceMappingURL")[0])


def token(text: str) -> str:
    """Write a token by itself: what cannot be seen gets a sign."""
    text = text.replace("\n", "↵")
    return ("␣" if text[:1] == " " else "") + text.strip(" ")


def feature(name: str) -> str:
    """Shorten the name of a feature, `mlp_in 3/17`; other names stay."""
    site, slash, index = name.rpartition("/")
    named = name.startswith(("target:", "token:"))  # by texts, which may have a slash in them
    return f"{Site.parse(site).short}/{index}" if slash and not named else name


def drawable(text: str) -> str:
    """Replace what XML has no place for: most control characters."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "�", text)


def _read(name: str) -> str:
    return files("circuit_toolkit").joinpath(name).read_text(encoding="utf-8")

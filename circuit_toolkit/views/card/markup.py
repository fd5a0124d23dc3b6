"""Small pieces of a feature's card: sections, tokens, numbers of a column, bars; all escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from circuit_toolkit.sites import Site
from circuit_toolkit.views.graph.scene import NEGATIVE, POSITIVE


def text_of(text: str) -> str:
    """Escape a text."""
    return html.escape(text, quote=True)


def token_of(token: str, *, inside: bool = False) -> str:
    """Write a token: what cannot be seen gets a sign."""
    visible = token.replace("\n", "↵")
    if not inside:
        visible = ("␣" if visible[:1] == " " else "") + visible.strip(" ")
    return text_of(visible)


def section(title: str, note: str, body: str) -> str:
    """Write a part of the card."""
    said = f" <small>{text_of(note)}</small>" if note else ""
    return f"<section><h4>{title}{said}</h4>{body}</section>"


def quiet(text: str) -> str:
    """Write a remark."""
    return f'<p class="ct-quiet">{text_of(text)}</p>'


def feature_name(name: str) -> str:
    """Shorten the name of a feature: `mlp_in 3/17`."""
    site, slash, index = name.rpartition("/")
    return f"{Site.parse(site).short}/{index}" if slash else name


def alike(values: Sequence[float], sign: str = "+") -> list[str]:
    """Write the numbers of a column, all with as many digits."""
    peak = max(map(abs, values), default=0)
    digits = max(0, 2 - math.floor(math.log10(peak))) if peak else 0
    return [f"{value:{sign}.{digits}f}".replace("-", "−") for value in values]


def bar(value: float, written: str, peak: float) -> str:
    """Write two cells of a table: a number, and a bar."""
    width, colour = 100 * abs(value) / (peak or 1), POSITIVE if value > 0 else NEGATIVE
    return (
        f'<td class="ct-value">{written}</td><td class="ct-bar">'
        f'<i style="width:{width:.0f}%;background:{colour}"></i></td>'
    )

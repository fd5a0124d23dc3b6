"""A circuit as a still picture: for papers, and for notebooks where no widget can live."""

from __future__ import annotations

from textwrap import wrap

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.errors import InputError
from circuit_toolkit.views.colours import PAPER
from circuit_toolkit.views.graph.scene import scene_of
from circuit_toolkit.views.rendering import drawable, render

# Of the usual systems; the first that is there is taken, as browsers do.
LETTER = 6  # px of a letter of the evidence, which is 12 px high
FONTS = "Helvetica Neue, Arial, Segoe UI, Roboto, Liberation Sans, Noto Sans, DejaVu Sans"


def graph_svg(circuit: Circuit) -> str:
    """Draw a circuit as SVG, without any script."""
    return still(scene_of(circuit))


def still(scene: dict) -> str:
    """Draw a scene as SVG."""
    letters = int(scene["width"] // LETTER)
    evidence = [part for line in scene["header"]["evidence"] for part in wrap(line, letters)]
    page = render("views/templates/circuit.svg", fonts=FONTS, evidence=evidence, **scene)
    return drawable(str(page))


def graph_png(circuit: Circuit, scale: float) -> bytes:
    """Draw a circuit as PNG, with so many pixels per CSS pixel."""
    if len(set(map(_pixels, (_word("M"), _word(" "))))) == 1:
        raise InputError(
            f"This machine has none of the fonts that a picture is written with ({FONTS}). Install "
            "one, such as Debian's package fonts-dejavu, or use to_svg."
        )
    return _pixels(graph_svg(circuit), scale)


def _word(text: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" font-family="{FONTS}">'
        f'<text y="9">{text}</text></svg>'
    )


def _pixels(svg: str, scale: float = 1) -> bytes:
    from resvg_py import svg_to_bytes

    return bytes(svg_to_bytes(svg_string=svg, zoom=scale, background=PAPER))

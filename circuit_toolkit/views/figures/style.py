"""What all figures look like."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from circuit_toolkit.texts import whole
from circuit_toolkit.views.colours import INK, faded
from circuit_toolkit.views.graph.header import shorten
from circuit_toolkit.views.rendering import render

LONGEST = 200  # letters of a name in a figure


class Figure(go.Figure):
    """A figure of plotly that follows JupyterLab's dark theme."""

    def _ipython_display_(self) -> None:
        from IPython.display import display

        theme = str(render("views/templates/figure_theme.html"))
        display({"text/html": theme, "text/plain": ""}, raw=True)
        super()._ipython_display_()


def finished(figure: go.Figure, height: int, **options: Any) -> Figure:
    """Set height, margins and font, and what else a figure wants of its layout."""
    margin = {"l": 10, "r": 10, "t": 46 if options.get("title") else 30, "b": 10}
    font = {"color": INK, "size": 12.5}
    usual = {"template": "plotly_white", "height": height, "margin": margin, "font": font}
    made = Figure(figure)
    made.update_layout(**usual | options)
    return made


def plotted(text: str) -> str:
    """Return a text as plotly shows it as it stands: it reads tags, formulas and templates."""
    plain = html.escape(whole(shorten(text, LONGEST)), quote=False)
    return plain.replace("$", "&#36;").replace("%{", "&#37;{")


def add_band(
    figure: go.Figure,
    x: Sequence[float] | np.ndarray,
    low: Sequence[float] | np.ndarray,
    high: Sequence[float] | np.ndarray,
    colour: str,
    **where: Any,
) -> None:
    """Fill between two lines that are not drawn."""
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(x=x, y=high, **edge, **where)
    fill = {"fill": "tonexty", "fillcolor": faded(colour, 0.15)}
    figure.add_scatter(x=x, y=low, **edge, **where, **fill)

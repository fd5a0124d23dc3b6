"""What all figures look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from circuit_toolkit.views.colours import INK, faded


def finished(figure: go.Figure, height: int, **options: Any) -> go.Figure:
    """Set height, margins and font, and what else a figure wants of its layout."""
    margin = {"l": 10, "r": 10, "t": 46 if options.get("title") else 30, "b": 10}
    font = {"color": INK, "size": 12.5}
    usual = {"template": "plotly_white", "height": height, "margin": margin, "font": font}
    return figure.update_layout(**usual | options)


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

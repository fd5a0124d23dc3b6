"""What all figures look like."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from circuit_toolkit.views.colours import INK


def finished(figure: go.Figure, height: int, **options: Any) -> go.Figure:
    """Set height, margins and font, and what else a figure wants of its layout."""
    margin = {"l": 10, "r": 10, "t": 46 if options.get("title") else 30, "b": 10}
    font = {"color": INK, "size": 12.5}
    usual = {"template": "plotly_white", "height": height, "margin": margin, "font": font}
    return figure.update_layout(**usual | options)

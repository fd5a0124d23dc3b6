"""One figure of methods side by side: how good against how long, and what is kept or found."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from circuit_toolkit.benchmark.comparison import Comparison
from circuit_toolkit.views.graph.scene import INK

# Colours by kind of method: exact, gradients, ours, those that are trivial baselines; others by
# turns.
_COLOURS = {
    "edge_patching": "#1f2d3d",
    "activation_patching": "#66788a",
    "attribution_patching": "#c9a227",
    "eap": "#f0b27a",
    "eap_absolute": "#dd6b20",
    "eap_ig": "#e6a5a0",
    "eap_ig_absolute": "#b03a2e",
    "circuit_lasso": "#b9a3d6",
    "circuit_lasso_relevance": "#7fb3d5",
    "circuit_lasso_randomised": "#21918c",
    "circuit_lasso_randomised_edges": "#2c5fa8",
    "random": "#b8c0c8",
    "empty": "#d5dae0",
}
_OTHERS = ["#7b4ea3", "#3d9970", "#a35d4e", "#4e7ba3"]


def compare_figure(comparison: Comparison) -> go.Figure:
    """Draw a comparison of methods.

    Parameters
    ----------
    comparison : Comparison
        From `compare`.

    Returns
    -------
    plotly.graph_objects.Figure
        Left, each method by its CPU seconds and its best summary: average precision against the
        truth, else CPR. Beside it, over the number of strongest edges, the share of the true
        edges among them, and the share of the metric that they keep alone (bands: 95 % over
        prompts), as far as there are these.
    """
    table, curves = comparison.table, comparison.curves
    score, title = ("edge_ap", "edge AP") if "edge_ap" in table else ("cpr", "CPR")
    panels = [
        (column, text)
        for column, text in [
            ("recall", "share of the true edges found"),
            ("kept", "share of the metric kept"),
        ]
        if column in curves
    ]
    lines, n = curves.to_dict("records"), 1 + len(panels)
    heads = [f"{title} and time", *(text for _, text in panels)]
    figure = make_subplots(1, n, subplot_titles=heads, horizontal_spacing=0.09)
    for number, name in enumerate(comparison.runs):
        colour = _COLOURS.get(name, _OTHERS[number % len(_OTHERS)])
        style = {"legendgroup": name, "name": name.replace("_", " ")}
        row, shown = table.loc[name], True
        if row.get(score) is not None and row[score] == row[score]:  # not NaN: nodes alone
            figure.add_scatter(
                x=[max(row["cpu_seconds"], 1e-3)],
                y=[row[score]],
                mode="markers",
                marker={"size": 13, "color": colour, "line": {"color": "white", "width": 1}},
                hovertemplate=f"%{{x:.3g}} s, {title} %{{y:.3f}}",
                row=1,
                col=1,
                **style,
            )
            shown = False
        mine = [line for line in lines if line["method"] == name]
        for column, (key, _) in enumerate(panels, start=2):
            if not mine:
                continue
            if key == "kept":
                _band(figure, mine, colour, name, column)
            figure.add_scatter(
                x=[line["size"] for line in mine],
                y=[line[key] for line in mine],
                mode="lines",
                line={"color": colour, "width": 2},
                showlegend=shown,
                hovertemplate="%{x} edges: %{y:.1%}",
                row=1,
                col=column,
                **style,
            )
            shown = False
    figure.update_xaxes(type="log", title="CPU seconds", dtick=1, row=1, col=1)
    figure.update_yaxes(range=[-0.04, 1.06], row=1, col=1)
    for column, (key, _) in enumerate(panels, start=2):
        figure.update_xaxes(type="log", title="strongest edges", dtick=1, row=1, col=column)
        figure.update_yaxes(tickformat=".0%", row=1, col=column)
        if key == "recall":
            figure.update_yaxes(range=[-0.04, 1.06], row=1, col=column)
    figure.update_annotations(font={"size": 13})
    figure.update_xaxes(title_font={"size": 12.5})
    figure.update_layout(
        template="plotly_white",
        height=400,
        margin={"l": 10, "r": 10, "t": 36, "b": 10},
        font={"color": INK, "size": 12.5},
        legend={"orientation": "h", "y": -0.28, "x": 0, "itemwidth": 30},
    )
    return figure


def _band(
    figure: go.Figure, mine: list[dict[Any, Any]], colour: str, name: str, column: int
) -> None:
    """Fill from the lower to the upper end of the intervals."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    x = [line["size"] for line in mine]
    where = {"row": 1, "col": column, "legendgroup": name}
    figure.add_scatter(x=x, y=[line["high"] for line in mine], **edge, **where)
    fill = {"fill": "tonexty", "fillcolor": f"rgba({red},{green},{blue},.15)"}
    figure.add_scatter(x=x, y=[line["low"] for line in mine], **edge, **where, **fill)

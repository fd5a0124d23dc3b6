"""One figure of methods side by side: how good against how long, and what is kept or found."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from circuit_toolkit.benchmark.comparison import Comparison
from circuit_toolkit.views.colours import METHODS, OTHER_METHODS
from circuit_toolkit.views.figures.style import add_band, finished, plotted


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
        colour = METHODS.get(name, OTHER_METHODS[number % len(OTHER_METHODS)])
        style = {"legendgroup": name, "name": plotted(name.replace("_", " "))}
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
                low, high = ([line[end] for line in mine] for end in ("low", "high"))
                where = {"row": 1, "col": column, "legendgroup": name}
                add_band(figure, [line["size"] for line in mine], low, high, colour, **where)
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
    return finished(figure, 400, legend={"orientation": "h", "y": -0.28, "x": 0, "itemwidth": 30})

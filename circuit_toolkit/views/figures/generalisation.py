"""How well mended classifiers do, as bars: all texts, and the worst group."""

from __future__ import annotations

import plotly.graph_objects as go

from circuit_toolkit.errors import InputError
from circuit_toolkit.generalisation.scores import Generalisation
from circuit_toolkit.views.colours import GREY, INK, NEGATIVE, RULE, TEAL
from circuit_toolkit.views.figures.style import finished, plotted

NAMES = {
    "original": "as trained",
    "unranked": "all judged features, unranked",
    "label": "what tells the other label",
    "linear_probe": "linear probe",
    "cbp": "concept bottleneck",
    "random": "random features removed",
    "shift": "SHIFT",
    "circuit_lasso": "CircuitLasso",
    "oracle": "oracle (balanced training)",
}


def generalisation_figure(result: Generalisation) -> go.Figure:
    """Show the worst group's accuracy of every method, with what there is to know beside it.

    Parameters
    ----------
    result : Generalisation
        From `generalise`.

    Returns
    -------
    plotly.graph_objects.Figure
        Bars are the worst group, lines their 95 % intervals; dots are all texts, rings how often
        the prediction tells the spurious label, for which one half is chance.

    Raises
    ------
    InputError
        If there are no scores.
    """
    if not result.scores:
        raise InputError("There are no scores to draw: pass methods to generalise.")
    target, spurious = (plotted(str(result.settings[each])) for each in ("target", "spurious"))
    rows = [_name(each.method) for each in result.scores]
    worst = [each.worst for each in result.scores]
    ours = [each.method.startswith("circuit_lasso") for each in result.scores]
    figure = go.Figure()
    figure.add_bar(
        x=[each.value for each in worst],
        y=rows,
        orientation="h",
        width=0.6,
        name="worst group",
        marker_color=[TEAL if mine else RULE for mine in ours],
        error_x={
            "array": [each.high - each.value for each in worst],
            "arrayminus": [each.value - each.low for each in worst],
            "color": GREY,
            "thickness": 1.5,
            "width": 3,
        },
        customdata=[[each.n_features, _seconds(each.seconds)] for each in result.scores],
        hovertemplate="%{y}: worst group %{x:.1%}<br>%{customdata[0]} features removed"
        "%{customdata[1]}<extra></extra>",
    )
    dots = {"mode": "markers", "y": rows}
    figure.add_scatter(
        x=[each.target.value for each in result.scores],
        name=f"{target}, all texts",
        marker={"size": 9, "color": INK},
        **dots,
    )
    figure.add_scatter(
        x=[each.spurious.value for each in result.scores],
        name=f"{spurious} told (chance 50%)",
        marker={"size": 9, "color": NEGATIVE, "symbol": "circle-open", "line": {"width": 2}},
        **dots,
    )
    figure.add_vline(x=0.5, line={"color": GREY, "dash": "dot", "width": 1})
    figure.update_xaxes(title="share of test texts", tickformat=".0%", range=[0, 1.02])
    figure.update_yaxes(autorange="reversed")
    legend = {"orientation": "h", "y": 1.08, "yanchor": "bottom"}
    return finished(figure, 140 + 32 * len(rows), legend=legend)


def _name(method: str) -> str:
    plain = method.removesuffix("_retrain")
    return NAMES.get(plain, plotted(plain)) + (", retrained" if plain != method else "")


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f", ranked in {seconds:.2g} s"

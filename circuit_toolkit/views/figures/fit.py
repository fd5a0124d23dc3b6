"""Plotly figures: the path of strengths, the evidence of a circuit, activations on tokens."""

from __future__ import annotations

from textwrap import wrap

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.evidence import UNVALIDATED, prompts_of
from circuit_toolkit.errors import InputError
from circuit_toolkit.views.colours import GREY, INK, NEGATIVE, RAMP, RULE, TEAL, WARNING
from circuit_toolkit.views.figures.style import add_band, finished, plotted
from circuit_toolkit.views.graph.header import shorten

TITLE = 64  # letters of an axis title that a line holds beside the names of bars


def path_figure(
    strengths: np.ndarray,
    fit: np.ndarray,
    n_nodes: np.ndarray | None = None,
    n_edges: np.ndarray | None = None,
    strength: float | None = None,
    fit_name: str = "held-out R²",
) -> go.Figure:
    """Show how fit and size change with the regularisation strength.

    Parameters
    ----------
    strengths : ndarray, shape (k,)
        Fractions of the strength at which the circuit is empty; above 0.
    fit : ndarray, shape (k,) or (k, q)
        One value per strength, or one per target too: then the median is drawn, with the band
        from the 10th to the 90th percentile.
    n_nodes, n_edges : ndarray, shape (k,), optional
        Sizes of the circuit.
    strength : float, optional
        The chosen strength, marked by a line.
    fit_name : str, default "held-out R²"
        What `fit` is.

    Returns
    -------
    plotly.graph_objects.Figure

    Raises
    ------
    InputError
        If an array does not have one row per strength, or a strength is not above 0.
    """
    strengths, fit = np.asarray(strengths, float), np.asarray(fit, float)
    sizes = [(name, v) for name, v in (("nodes", n_nodes), ("edges", n_edges)) if v is not None]
    for name, values in [("fit", fit), *sizes]:
        if len(values) != len(strengths):
            raise InputError(f"{name} must have {len(strengths)} rows, got {len(values)}.")
    if (strengths <= 0).any():
        raise InputError(f"strengths must be above 0, got {strengths.min()}.")
    order, fit_name = np.argsort(strengths), plotted(fit_name)
    x, rows = strengths[order], 2 if sizes else 1
    figure = make_subplots(rows, 1, shared_xaxes=True, vertical_spacing=0.08)
    if fit.ndim == 2:
        low, fit, high = np.nanquantile(fit, [0.1, 0.5, 0.9], axis=1)  # (k,) each
        add_band(figure, x, low[order], high[order], TEAL)
    style = {"mode": "lines+markers", "marker": {"size": 6}}
    figure.add_scatter(x=x, y=fit[order], name=fit_name, line={"color": TEAL}, **style)
    for (name, values), colour in zip(sizes, (RAMP[0], GREY), strict=False):
        y = np.asarray(values)[order]
        figure.add_scatter(x=x, y=y, name=name, line={"color": colour}, row=2, col=1, **style)
    if strength is not None:
        figure.add_vline(x=strength, line={"color": INK, "dash": "dot", "width": 1.5})
    figure.update_xaxes(type="log", dtick=1)
    figure.update_xaxes(title="strength (1 = empty circuit)", row=rows, col=1)
    figure.update_yaxes(title=fit_name, rangemode="tozero", nticks=6, row=1, col=1)
    if sizes:
        figure.update_yaxes(title="count", rangemode="tozero", row=2, col=1)
    return finished(figure, height=260 + 160 * (rows - 1), hovermode="x unified")


def evidence_figure(circuit: Circuit) -> go.Figure:
    """Compare the circuit alone, and everything but it, with random sets of equal size.

    Parameters
    ----------
    circuit : Circuit
        Its evidence may lack `ablation`; the figure then says so.

    Returns
    -------
    plotly.graph_objects.Figure
        Faithfulness and completeness, as `evaluate` describes them.
    """
    ablation = circuit.evidence.get("ablation") or {}
    if ablation.get("faithfulness") is None:
        text = "no ablation yet" if circuit.evidence else UNVALIDATED
        figure = go.Figure().update_xaxes(visible=False).update_yaxes(visible=False)
        figure.add_annotation(text=text, showarrow=False, font={"size": 15, "color": WARNING})
        return finished(figure, height=160)
    figure, rows, shares = go.Figure(), [], [0.0, 1.0]
    bar = {"orientation": "h", "width": 0.55, "showlegend": False}
    dots = {"size": 9, "color": INK, "opacity": 0.45}
    legend = True
    for key, name, colour in [
        ("faithfulness", "circuit alone", TEAL),
        ("completeness", "everything but the circuit", NEGATIVE),
    ]:
        if ablation.get(key) is None:
            continue
        rows.append(name)
        figure.add_bar(
            x=[ablation[key]],
            y=[name],
            marker_color=colour,
            name=key,
            texttemplate="<b>%{x:.2f}</b>",
            **bar,
        )
        draws = [value for value in ablation.get(f"random_{key}") or [] if value is not None]
        shares += [ablation[key], *draws]
        if draws:
            alone = "random sets alone" if key == "faithfulness" else "everything but random sets"
            rows.append(f"{alone}<br>mean {np.mean(draws):.2f}")  # a number on dots is unreadable
            figure.add_bar(
                x=[float(np.mean(draws))], y=rows[-1:], marker_color=RULE, name=key, **bar
            )
            figure.add_scatter(
                x=draws,
                y=rows[-1:] * len(draws),
                mode="markers",
                marker=dots,
                name=f"{len(draws)} random sets of the same size",
                showlegend=legend,
            )
            legend = False
    how = f"{ablation['ablation']} ablation of " if ablation.get("ablation") else ""
    on = prompts_of(ablation.get("evaluated_on") or {})
    lines = ["1: as the model, 0: as with everything ablated"]
    lines += wrap(shorten(f"({how}{on})", 150), TITLE)  # in one line it would be cut off
    title = {"text": "<br>".join(map(plotted, lines)), "font": {"size": 12.5}}
    figure.update_xaxes(title=title)
    low, high = min(shares), max(shares)
    figure.update_xaxes(range=[low - 0.02 * (low < 0), 1.02 * high])
    figure.update_yaxes(categoryarray=rows[::-1], categoryorder="array")
    return finished(figure, height=320, legend={"orientation": "h", "y": 1.15})

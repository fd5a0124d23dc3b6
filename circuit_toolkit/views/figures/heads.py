"""Figures of attention heads: scores by layer and head, attention on a prompt, methods in bars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from circuit_toolkit.benchmark.heads.comparison import HeadComparison
from circuit_toolkit.errors import InputError
from circuit_toolkit.head_codes.fit import HeadCodesFit
from circuit_toolkit.views.colours import DIVERGING, GOLD, INK, RISING, SLATE, TEAL
from circuit_toolkit.views.figures.style import finished, plotted
from circuit_toolkit.views.graph.header import shorten

_USES = {"activations": TEAL, "gradients": GOLD, "interventions": SLATE}


def codes_figure(fit: HeadCodesFit, truth: np.ndarray | None = None) -> go.Figure:
    """Draw the scores of head codes, see `HeadCodesFit.figure`."""
    task = str(fit.settings.get("task") or "")
    return head_figure(fit.scores, truth=truth, layers=fit.layers, title=task)


def head_figure(
    scores: np.ndarray,
    *,
    truth: np.ndarray | None = None,
    layers: Sequence[int] | None = None,
    title: str = "",
    unit: str = "score",
) -> go.Figure:
    """Draw a number for every head as a heat map, layers downwards.

    Parameters
    ----------
    scores : ndarray, shape (L, H)
        For example `HeadCodesFit.scores` or `HeadEffects.share()`; colours of two signs where
        there are two.
    truth : ndarray of bool, shape (L, H), optional
        Heads to mark with a ring, such as those of a reference circuit.
    layers : sequence of int, length L, optional
        Their numbers; by default from 0.
    title : str
        Plain text.
    unit : str
        What the numbers are.

    Returns
    -------
    plotly.graph_objects.Figure

    Raises
    ------
    InputError
        If the shapes do not fit each other.
    """
    scores = np.asarray(scores, dtype=float)
    marked = np.zeros(scores.shape, dtype=bool) if truth is None else np.asarray(truth, dtype=bool)
    if scores.ndim != 2 or marked.shape != scores.shape:
        raise InputError(
            f"Scores must be of shape (layers, heads), and the truth of the same: {scores.shape}, "
            f"{marked.shape}."
        )
    layers = list(range(len(scores)) if layers is None else layers)
    if len(layers) != len(scores):
        raise InputError(f"{len(layers)} numbers of layers for {len(scores)} rows of scores.")
    signed = bool((scores < 0).any())
    unit = plotted(unit)
    figure = go.Figure(
        go.Heatmap(
            z=scores,
            y=[str(layer) for layer in layers],
            x=[str(head) for head in range(scores.shape[1])],
            colorscale=DIVERGING if signed else RISING,
            zmid=0 if signed else None,
            zmin=None if signed else 0,
            xgap=2,
            ygap=2,
            hovertemplate=f"layer %{{y}}, head %{{x}}<br>{unit} %{{z:.3g}}<extra></extra>",
            colorbar={"title": {"text": unit, "side": "right"}, "thickness": 10, "nticks": 4},
        )
    )
    if truth is not None:
        rows, columns = np.nonzero(marked)
        figure.add_scatter(
            x=[str(column) for column in columns],
            y=[str(layers[row]) for row in rows],
            mode="markers",
            marker={
                "symbol": "circle-open",
                "size": 17,
                "color": INK,
                "line": {"width": 2, "color": INK},
            },
            name="in the reference circuit",
            hoverinfo="skip",
        )
    axis = {"type": "category", "showgrid": False, "zeroline": False}
    figure.update_xaxes(title="head", **axis)
    figure.update_yaxes(title="layer", autorange="reversed", **axis)
    return finished(
        figure,
        130 + 34 * max(len(scores), 3),
        width=max(420, 170 + 40 * scores.shape[1]),
        title=plotted(title) or None,
        legend={"orientation": "h", "y": -0.32, "x": 0},
    )


def attention_figure(pattern: np.ndarray, tokens: Sequence[str], title: str = "") -> go.Figure:
    """Draw where each token of a prompt looks.

    Parameters
    ----------
    pattern : ndarray, shape (T, T)
        Share of its attention that a token (row) gives to each token (column).
    tokens : sequence of str, length T
        The prompt.
    title : str
        Plain text.

    Returns
    -------
    plotly.graph_objects.Figure

    Raises
    ------
    InputError
        If there are not as many tokens as rows and columns.
    """
    pattern = np.asarray(pattern, dtype=float)
    if pattern.shape != (len(tokens), len(tokens)):
        raise InputError(f"A pattern of {pattern.shape} for {len(tokens)} tokens.")
    # Numbers keep words apart that occur twice; plotly reads tags in text.
    words = [plotted(shorten(word.strip(" ") or "␣", 12)) for word in tokens]
    places = list(range(len(words)))
    seen = np.where(np.tril(np.ones_like(pattern)) > 0, pattern, np.nan).astype(object)
    seen[np.triu_indices(len(words), 1)] = None  # what comes later is not seen; JSON has no NaN
    figure = go.Figure(
        go.Heatmap(
            z=seen,
            customdata=[[f"{row} → {column}" for column in words] for row in words],
            colorscale=RISING,
            zmin=0,
            zmax=1,
            hoverongaps=False,
            hovertemplate="%{customdata}<br>%{z:.1%}<extra></extra>",
            colorbar={"title": "attention", "thickness": 10, "nticks": 3, "tickformat": ".0%"},
        )
    )
    ticks = {"tickvals": places, "ticktext": words, "showgrid": False, "zeroline": False}
    figure.update_xaxes(title="looks at", tickangle=-60, **ticks)
    figure.update_yaxes(autorange="reversed", **ticks)
    side = 20 * len(words)
    return finished(figure, 190 + side, width=280 + side, title=plotted(title) or None)


def head_comparison_figure(comparison: HeadComparison) -> go.Figure:
    """Draw how well ways to find heads agree with the truth.

    Parameters
    ----------
    comparison : HeadComparison
        From `compare_heads`.

    Returns
    -------
    plotly.graph_objects.Figure
        A bar of ROC AUC for each, the best on top, with the standard deviation over seeds;
        coloured by what a way does to the model. The line is what chance gives.
    """
    rows = sorted(comparison.rows, key=lambda row: row["node_auc"])
    figure = go.Figure()
    for uses, colour in _USES.items():
        mine = [row for row in rows if row["uses"] == uses]
        if not mine:
            continue
        figure.add_bar(
            x=[row["node_auc"] for row in mine],
            y=[plotted(row["method"]) for row in mine],
            error_x={"array": [row["node_auc_spread"] for row in mine], "thickness": 1.2},
            orientation="h",
            name=f"reads {uses}" if uses == "activations" else f"uses {uses}",
            marker_color=colour,
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    figure.add_vline(x=0.5, line={"color": INK, "dash": "dot", "width": 1.2})
    order = [plotted(row["method"]) for row in rows]
    figure.update_yaxes(categoryorder="array", categoryarray=order)
    figure.update_xaxes(title=f"ROC AUC over {comparison.truth.size} heads", range=[0, 1.04])
    legend = {"orientation": "h", "y": 1.1, "x": 0}
    height = 130 + 30 * len(rows)
    return finished(figure, height, legend=legend, barmode="overlay", showlegend=True)

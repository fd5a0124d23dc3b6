"""Virtual weights as figures: the neighbours of one feature, and a map between chosen features."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from circuit_toolkit.errors import InputError
from circuit_toolkit.features.weight_table import VirtualWeights
from circuit_toolkit.sites import Site
from circuit_toolkit.views.graph.scene import INK, NEGATIVE, POSITIVE, shorten

Labels = Mapping[Site, Sequence[str]]
LARGEST = 200  # features a side of a map


def neighbours_figure(
    weights: VirtualWeights,
    site: Site | str,
    feature: int,
    labels: Labels | None = None,
    n: int = 12,
) -> go.Figure:
    """Show what feeds a feature, and what it feeds, as bars.

    Parameters
    ----------
    weights : VirtualWeights
        In which the feature is a target, a source, or both.
    site : Site or str
        Where it is.
    feature : int
        Which.
    labels : dict of Site to sequence of str, optional
        Names of features.
    n : int
        At most so many on a side, the strongest.

    Returns
    -------
    plotly.graph_objects.Figure
        Left what feeds it, right what it feeds, the strongest on top; blue adds, orange takes away.

    Raises
    ------
    InputError
        If no weight is of this feature.
    """
    site = Site.parse(site)
    sides: list[tuple[Literal["source", "target"], str, VirtualWeights]] = [
        ("source", "reads from", weights.into(site, feature).top(n)),
        ("target", "feeds", weights.out_of(site, feature).top(n)),
    ]
    sides = [side for side in sides if len(side[2])]
    if not sides:
        raise InputError(f"No weight is of {site}/{feature}. Choose it with sources= or targets=.")
    figure = make_subplots(
        1, len(sides), subplot_titles=[title for _, title, _ in sides], horizontal_spacing=0.22
    )
    every = {weights.kinds[kind] for _, _, found in sides for kind in found.rows["kind"].tolist()}
    for column, (end, _, found) in enumerate(sides, start=1):
        kinds = [found.kinds[kind] for kind in found.rows["kind"].tolist()]
        names = _names(found, end, labels)
        shown = [
            name if kind == "direct" or len(every) == 1 else f"{name} · {kind}"
            for name, kind in zip(names, kinds, strict=True)
        ]
        values = found.rows["weight"]
        figure.add_bar(
            x=values,
            y=list(range(len(found))),  # names may be the same, such as through two heads
            orientation="h",
            marker_color=[NEGATIVE if value < 0 else POSITIVE for value in values],
            customdata=[
                [html.escape(name, quote=False), kind]
                for name, kind in zip(found.names(end), kinds, strict=True)
            ],
            hovertemplate="%{customdata[0]}<br>%{customdata[1]} %{x:.3g}<extra></extra>",
            showlegend=False,
            row=1,
            col=column,
        )
        figure.update_yaxes(
            tickvals=list(range(len(found))),
            ticktext=[html.escape(shorten(name, 34), quote=False) for name in shown],
            autorange="reversed",
            row=1,
            col=column,
        )
    only = every.pop() if len(every) == 1 else "direct"
    what = {"direct": "virtual weight", "era": "ERA", "twera": "TWERA"}
    figure.update_xaxes(
        title=what.get(only, f"virtual weight through {only}"), zerolinecolor=INK, nticks=6
    )
    height = 110 + 24 * max(len(found) for *_, found in sides)
    title = _name(site, feature, labels)
    return _finish(figure, max(height, 200), f"<b>{html.escape(title, quote=False)}</b>")


def weights_map(weights: VirtualWeights, labels: Labels | None = None) -> go.Figure:
    """Show weights between chosen features as a map."""
    if not len(weights):
        raise InputError("There are no weights to show.")
    ends, index, names = [], [], []
    for end in ("source", "target"):
        keys = weights.rows[[f"{end}_site", end]]
        found, place = np.unique(keys, return_inverse=True)
        if len(found) > LARGEST:
            raise InputError(
                f"A map of {len(found)} features on a side cannot be read, at most {LARGEST}. "
                "Choose features with sources= and targets=, or use .top(n)."
            )
        ends.append(found)
        index.append(place)
        names.append([_name(weights.sites[s], i, labels) for s, i in found.tolist()])
    shape = len(ends[0]), len(ends[1])
    sums, there = np.zeros(shape), np.zeros(shape, dtype=bool)
    np.add.at(sums, tuple(index), weights.rows["weight"])
    there[tuple(index)] = True
    z = sums.astype(object)
    z[~there] = None  # not NaN: a widget's message is JSON
    shown = [[html.escape(shorten(name, 30), quote=False) for name in side] for side in names]
    figure = go.Figure(
        go.Heatmap(
            z=z,
            x=list(range(shape[1])),
            y=list(range(shape[0])),
            colorscale=[[0, NEGATIVE], [0.5, "#ffffff"], [1, POSITIVE]],
            zmid=0,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            text=[[f"{a} → {b}" for b in shown[1]] for a in shown[0]],
            hovertemplate="%{text}<br>%{z:.3g}<extra></extra>",
            colorbar={"title": "weight", "thickness": 10, "nticks": 5},
        )
    )
    axis = {"showgrid": False, "zeroline": False}
    figure.update_xaxes(
        tickvals=list(range(shape[1])), ticktext=shown[1], tickangle=-40, title="target", **axis
    )
    figure.update_yaxes(tickvals=list(range(shape[0])), ticktext=shown[0], title="source", **axis)
    figure.update_yaxes(autorange="reversed")
    return _finish(figure, 190 + max(22 * shape[0], 80), None)


def _names(
    weights: VirtualWeights, end: Literal["source", "target"], labels: Labels | None
) -> list[str]:
    places, numbers = weights.rows[f"{end}_site"].tolist(), weights.rows[end].tolist()
    return [_name(weights.sites[s], i, labels) for s, i in zip(places, numbers, strict=True)]


def _name(site: Site, feature: int, labels: Labels | None) -> str:
    label = str(labels[site][feature]) if labels and site in labels else ""
    return f"{site.short}/{feature}" + (f" {label}" if label else "")


def _finish(figure: go.Figure, height: int, title: str | None) -> go.Figure:
    margin = {"l": 10, "r": 10, "t": 70 if title else 24, "b": 10}
    font = {"color": INK, "size": 12.5}
    figure.update_annotations(font={"size": 13})
    figure.update_xaxes(automargin=True).update_yaxes(automargin=True)
    figure.update_layout(template="plotly_white", height=height, margin=margin, font=font)
    return figure.update_layout(title={"text": title, "font": {"size": 14}} if title else None)

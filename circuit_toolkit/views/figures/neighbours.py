"""Virtual weights as a figure: the neighbours of one feature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from circuit_toolkit.errors import InputError
from circuit_toolkit.features.weight_table import VirtualWeights
from circuit_toolkit.sites import Site
from circuit_toolkit.views.colours import INK, of_sign
from circuit_toolkit.views.figures.style import finished, plotted
from circuit_toolkit.views.graph.header import shorten

Labels = Mapping[Site, Sequence[str]]


def neighbours_figure(
    weights: VirtualWeights,
    site: Site | str,
    feature: int,
    labels: Labels | None = None,
    n: int = 12,
) -> go.Figure:
    """Show the strongest upstream and downstream features of a feature, as bars.

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
        Left upstream, right downstream, the strongest on top; blue adds, orange takes away.

    Raises
    ------
    InputError
        If no weight is of this feature.
    """
    site = Site.parse(site)
    sides: list[tuple[Literal["source", "target"], str, VirtualWeights]] = [
        ("source", "upstream features", weights.into(site, feature).top(n)),
        ("target", "downstream features", weights.out_of(site, feature).top(n)),
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
            marker_color=list(map(of_sign, values)),
            customdata=[
                [plotted(name), plotted(kind)]
                for name, kind in zip(found.names(end), kinds, strict=True)
            ],
            hovertemplate="%{customdata[0]}<br>%{customdata[1]} %{x:.3g}<extra></extra>",
            showlegend=False,
            row=1,
            col=column,
        )
        figure.update_yaxes(
            tickvals=list(range(len(found))),
            ticktext=[plotted(shorten(name, 34)) for name in shown],
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
    figure.update_annotations(font={"size": 13})
    figure.update_xaxes(automargin=True).update_yaxes(automargin=True)
    heading = {"text": f"<b>{plotted(title)}</b>", "font": {"size": 14}}
    return finished(
        figure, max(height, 200), margin={"l": 10, "r": 10, "t": 70, "b": 10}, title=heading
    )


def _names(
    weights: VirtualWeights, end: Literal["source", "target"], labels: Labels | None
) -> list[str]:
    places, numbers = weights.rows[f"{end}_site"].tolist(), weights.rows[end].tolist()
    return [_name(weights.sites[s], i, labels) for s, i in zip(places, numbers, strict=True)]


def _name(site: Site, feature: int, labels: Labels | None) -> str:
    label = str(labels[site][feature]) if labels and site in labels else ""
    return f"{site.short}/{feature}" + (f" {label}" if label else "")

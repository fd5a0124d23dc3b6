from __future__ import annotations

import numpy as np
import pytest

from circuit_toolkit.errors import InputError
from circuit_toolkit.features.weight_table import WEIGHT, VirtualWeights
from circuit_toolkit.sites import Site
from circuit_toolkit.views.colours import NEGATIVE, POSITIVE
from circuit_toolkit.views.figures.neighbours import neighbours_figure

A, B, C = (Site("mlp_in", layer) for layer in range(3))
ROWS = [  # source site, source, target site, target, kind, weight
    (0, 4, 1, 7, 0, 1.0),
    (0, 5, 1, 7, 0, -3.0),
    (0, 5, 1, 7, 1, 2.0),
    (1, 7, 2, 2, 0, 0.5),
    (0, 5, 2, 2, 0, 9.0),
]


def made() -> VirtualWeights:
    return VirtualWeights(np.array(ROWS, WEIGHT), (A, B, C), ("direct", "a1.h3"))


def test_neighbours_stand_on_their_side_with_sign_and_name():
    labels = {A: [f"<b>{i}" for i in range(9)]}
    figure = neighbours_figure(made(), B, 7, labels)
    feeds_it, it_feeds = figure.data
    assert list(feeds_it.x) == [-3, 2, 1] and list(it_feeds.x) == [0.5]
    assert list(feeds_it.marker.color) == [NEGATIVE, POSITIVE, POSITIVE]
    ticks = figure.layout.yaxis.ticktext
    assert ticks[0] == "mlp_in 0/5 &lt;b&gt;5" and ticks[1].endswith("· a1.h3")
    assert figure.layout.yaxis2.ticktext == ("mlp_in 2/2",)
    assert feeds_it.customdata[1] == (f"{A}/5", "a1.h3") or list(feeds_it.customdata[1]) == [
        f"{A}/5",
        "a1.h3",
    ]


def test_a_feature_with_one_side_has_one():
    assert len(neighbours_figure(made(), A, 5, n=1).data) == 1
    with pytest.raises(InputError, match="No weight is of"):
        neighbours_figure(made(), A, 8)


def test_weights_of_one_kind_say_it_once_below_the_bars():
    rows = np.array([(0, 4, 1, 7, 0, 1.0), (0, 5, 1, 7, 0, 2.0)], WEIGHT)
    for kind, said in {"direct": "virtual weight", "twera": "TWERA"}.items():
        figure = neighbours_figure(VirtualWeights(rows, (A, B), (kind,)), B, 7)
        assert figure.layout.xaxis.title.text == said
        assert figure.layout.yaxis.ticktext == ("mlp_in 0/5", "mlp_in 0/4")

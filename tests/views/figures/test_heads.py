"""Figures of heads: what is drawn is what was given."""

import numpy as np
import pytest

from circuit_toolkit.benchmark.heads.comparison import HeadComparison
from circuit_toolkit.errors import InputError
from circuit_toolkit.views.figures.heads import (
    attention_figure,
    head_comparison_figure,
    head_figure,
)


def test_a_map_holds_the_scores_and_rings_the_truth():
    scores = np.arange(6.0).reshape(2, 3)
    truth = np.array([[False, True, False], [True, False, False]])
    heat, rings = head_figure(scores, truth=truth, layers=[4, 7], title="<b>", unit="share").data
    np.testing.assert_array_equal(heat.z, scores)
    assert list(heat.y) == ["4", "7"] and heat.zmin == 0 and "share" in heat.hovertemplate
    assert list(zip(rings.y, rings.x, strict=True)) == [("4", "1"), ("7", "0")]
    assert "&lt;b&gt;" in head_figure(scores, title="<b>").layout.title.text


def test_effects_of_both_signs_have_white_at_0():
    (heat,) = head_figure(np.array([[-1.0, 2.0]])).data
    assert heat.zmid == 0 and heat.zmin is None


@pytest.mark.parametrize("options", [{"truth": np.zeros((3, 2))}, {"layers": [1]}])
def test_a_map_of_other_shapes_is_refused(options):
    with pytest.raises(InputError):
        head_figure(np.zeros((2, 3)), **options)
    with pytest.raises(InputError):
        head_figure(np.zeros(3))


def test_attention_shows_what_was_seen_and_nothing_later():
    pattern = np.tril(np.full((3, 3), 0.5))
    (heat,) = attention_figure(pattern, ["<bos>", " a", " a"]).data
    assert heat.z[2][1] == 0.5 and heat.z[0][1] is None
    figure = attention_figure(pattern, ["<bos>", " a", " a"])
    assert list(figure.layout.xaxis.ticktext) == ["&lt;bos&gt;", "a", "a"]
    with pytest.raises(InputError, match="2 tokens"):
        attention_figure(pattern, ["a", "b"])


def test_methods_are_bars_by_what_they_use():
    rows = [
        {"method": "slow", "uses": "interventions", "node_auc": 1.0, "node_auc_spread": 0.0},
        {"method": "fast", "uses": "activations", "node_auc": 0.7, "node_auc_spread": 0.1},
    ]
    found = HeadComparison(rows, {}, np.zeros((2, 3), bool), None)  # pyright: ignore
    figure = found.figure()
    assert figure.to_dict() == head_comparison_figure(found).to_dict()
    by_name = {bar.name: bar for bar in figure.data}
    assert set(by_name) == {"reads activations", "uses interventions"}
    assert by_name["reads activations"].x == (0.7,)
    assert by_name["reads activations"].error_x.array == (0.1,)
    assert list(figure.layout.yaxis.categoryarray) == ["fast", "slow"]  # the best on top

import re

import numpy as np
import pytest

from circuit_toolkit.errors import InputError
from circuit_toolkit.views import evidence_figure, highlighted_text_html, path_figure
from tests.circuit.made_up import made_up_circuit

TOKENS = [["<s>", " Mary", " &", "\n"], ["<b>", " went"]]
VALUES = [np.array([0.0, 2.0, 0.5, 0.0]), np.array([1.0, 0.0])]


def traces(figure):
    return {trace.name: trace for trace in figure.data if trace.name}


def test_the_path_is_drawn_in_order_of_strength():
    strengths = np.array([1.0, 0.01, 0.1])
    drawn = traces(path_figure(strengths, 1 - strengths, n_nodes=[0, 9, 3], strength=0.1))
    assert drawn["held-out R²"].x.tolist() == [0.01, 0.1, 1]
    np.testing.assert_allclose(drawn["held-out R²"].y, [0.99, 0.9, 0])
    assert drawn["nodes"].y.tolist() == [9, 3, 0]


def test_many_targets_are_summed_up_by_their_quantiles():
    strengths, fit = np.array([0.1, 1.0]), np.array([np.linspace(0, 1, 11), np.zeros(11)])
    high, low, median = path_figure(strengths, fit).data
    assert [t.y[0] for t in (low, median, high)] == pytest.approx([0.1, 0.5, 0.9])


def test_a_path_that_does_not_fit_together_is_refused():
    with pytest.raises(InputError, match="n.* must have 2 rows, got 3"):
        path_figure(np.array([0.1, 1]), np.zeros(2), n_nodes=np.zeros(3))
    with pytest.raises(InputError, match="above 0"):
        path_figure(np.array([0.0, 1]), np.zeros(2))


def test_evidence_shows_the_circuit_and_all_else_beside_chance():
    circuit = made_up_circuit()
    figure = evidence_figure(circuit)
    ablation = circuit.evidence["ablation"]
    alone, without = ablation["random_faithfulness"], ablation["random_completeness"]
    shares = [trace.x[0] for trace in figure.data if trace.type == "bar"]
    assert shares == pytest.approx([0.81, np.mean(alone), 0.08, np.mean(without)])
    dots = [list(trace.x) for trace in figure.data if trace.type == "scatter"]
    assert dots == [alone, without]
    title = figure.layout.xaxis.title.text
    assert "128 held-out ioi prompts" in title.replace("<br>", " ")


def test_no_line_of_the_title_is_longer_than_the_figure():
    circuit = made_up_circuit()
    on = {"task": "indirect object identification", "n": 128, "split": "held-out", "seen": 12}
    ablation = circuit.evidence["ablation"] | {"evaluated_on": on}
    title = evidence_figure(circuit.with_evidence({"ablation": ablation})).layout.xaxis.title.text
    assert max(map(len, title.split("<br>"))) <= 64
    assert "12 of which it was learnt on)" in title.replace("<br>", " ")


@pytest.mark.parametrize("evidence", [{}, {"fit": {"held_out_r2": 0.2}}, {"ablation": None}])
def test_a_circuit_that_was_not_ablated_says_so(evidence):
    figure = evidence_figure(made_up_circuit().with_evidence(evidence))
    assert not figure.data
    said = figure.layout.annotations[0].text
    assert said == ("no ablation yet" if evidence else "unvalidated: no evidence yet")


def test_partial_evidence_is_drawn_as_far_as_it_goes():
    evidence = {"ablation": {"faithfulness": 0.5, "random_faithfulness": [None, 0.1]}}
    figure = evidence_figure(made_up_circuit().with_evidence(evidence))
    assert [trace.x[0] for trace in figure.data] == [0.5, 0.1, 0.1]


def test_highlighted_text_is_escaped_and_stronger_where_activation_is():
    shown = highlighted_text_html(["<script>", " Mary", " &\n", ""], [0.0, 2.0, -1.0, np.nan])
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown and " &amp;↵\n" in shown
    opacity = [float(x) for x in re.findall(r"rgba\(\d+,\d+,\d+,([\d.]+)\)", shown)]
    assert opacity == [0.75, pytest.approx(0.375, abs=0.01)]
    half = highlighted_text_html(["a"], [1.0], peak=2.0)
    assert float(re.findall(r",([\d.]+)\)", half)[0]) == pytest.approx(0.375, abs=0.01)


@pytest.mark.parametrize("values", [[0.0], [[0.0, 1.0]], [0.0, 1.0, 2.0]])
def test_values_must_match_their_tokens(values):
    with pytest.raises(InputError, match="2 tokens"):
        highlighted_text_html(["a", "b"], values)

"""Figures in JupyterLab's dark theme, as plotly draws them in a browser."""

import numpy as np
import pytest
from plotly.subplots import make_subplots

from circuit_toolkit.views import evidence_figure, head_figure, path_figure
from circuit_toolkit.views.figures import style
from tests.circuit.made_up import made_up_circuit
from tests.panels.screen import faint

PAGE = """<body data-jp-theme-light="LIGHT" style="margin: 0; background: BACK">
<div class="jp-OutputArea"><div class="jp-OutputArea-child"><div class="jp-OutputArea-output">THEME
</div></div>FIGURES</div></body>"""
BACKGROUND = """() => [...document.querySelectorAll(".main-svg, rect.bg")].map((each) => {
    const style = getComputedStyle(each);
    return each.tagName === "rect" ? style.fill : style.backgroundColor;
})"""


def figures():
    circuit = made_up_circuit()
    strengths = np.array([0.01, 0.1, 1.0])
    return [
        path_figure(strengths, 1 - strengths, n_nodes=[9, 3, 0], strength=0.1),
        head_figure(np.arange(6.0).reshape(2, 3), title="heads", unit="share"),
        evidence_figure(circuit),
    ]


def theme_of(figure, monkeypatch):
    """What is displayed before the figure itself."""
    sent = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: sent.append(data))
    monkeypatch.setattr("plotly.basedatatypes.BaseFigure._ipython_display_", lambda self: None)
    figure._ipython_display_()
    (bundle,) = sent
    return bundle["text/html"]


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_figures_can_be_read_in_both_themes(page, monkeypatch, dark):
    drawn = [
        figure.to_html(full_html=False, include_plotlyjs=i == 0)
        for i, figure in enumerate(figures())
    ]
    text = PAGE.replace("LIGHT", "false" if dark else "true")
    text = text.replace("BACK", "#111" if dark else "#fff")
    text = text.replace("THEME", theme_of(figures()[0], monkeypatch))
    page.set_content(text.replace("FIGURES", "".join(drawn)))
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 6")
    assert not faint(page, ".js-plotly-plot")
    found = page.evaluate(BACKGROUND)
    assert found and ("rgb(255, 255, 255)" not in found) == dark
    assert not page.locator(".ct-figure-theme").is_visible()


def test_a_figure_keeps_its_rows_and_columns():
    figure = make_subplots(2, 1)
    figure.add_scatter(x=[1], y=[2], row=2, col=1)
    done = style.finished(figure, 200)
    done.add_scatter(x=[1], y=[2], row=1, col=1)
    assert [trace.yaxis for trace in done.data] == ["y2", "y"] and done.layout.height == 200

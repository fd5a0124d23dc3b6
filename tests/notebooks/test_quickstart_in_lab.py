"""The quickstart in JupyterLab in a real browser: what a user drags and clicks reaches Python."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest

from tests.lab import command, open_notebook, report, run_all, served

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "notebooks" / "00_quickstart.ipynb"
# A last cell, for the test alone: what Python knows of the explorer, between two marks.
REPORT = """
import json
print("<<" + json.dumps({
    "method": explorer.method, "strength": explorer.strength, "selected": explorer.selected,
    "card": explorer.card.name if explorer.card else "", "verdict": explorer._foot["words"],
    "dial": explorer.dial.how, "features": explorer.circuit.ids(),
}) + ">>")
"""
VIEW = 'document.querySelector(".ct-stage").circuitView'


@pytest.fixture
def lab(tmp_path):
    """Serve a copy of the notebook by JupyterLab on this machine alone; give its address."""
    notebook = nbformat.read(QUICKSTART, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(REPORT))
    nbformat.write(notebook, tmp_path / "quickstart.ipynb")
    with served(tmp_path) as address:
        yield address("quickstart.ipynb")
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.browser
def test_what_is_clicked_reaches_python_and_the_notebook_stays_readable(lab, page):
    open_notebook(page, lab)
    run_all(page)
    before = report(page)
    assert before["selected"] == [] and before["method"] == "graph"
    panel = page.locator(".ct-explorer")
    panel.scroll_into_view_if_needed()
    assert panel.bounding_box()["height"] <= 760

    panel.get_by_role("button", name="Learn it with CircuitLasso").click()
    page.locator(".ct-verdict", has_text="confirmed").wait_for(timeout=120_000)
    panel.locator(".ct-progress").wait_for(state="hidden")
    slider = panel.get_by_label("Strength")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")  # stronger
    wanted = float(panel.locator(".ct-of-strength output").inner_text())
    for _ in range(10):
        page.wait_for_timeout(500)
        learnt = report(page)
        if learnt["strength"] == pytest.approx(wanted, rel=0.01):
            break
    assert learnt["method"] == "randomised" and learnt["strength"] > 0.15
    assert float(panel.locator(".ct-of-strength output").inner_text()) == pytest.approx(
        learnt["strength"], rel=0.01
    )

    panel.scroll_into_view_if_needed()
    node = next(name for name in learnt["features"] if name.startswith("blocks"))
    x, y = page.evaluate(
        f"""(id) => {{
            const {{ network }} = {VIEW}, canvas = network.canvas.frame.canvas;
            const box = canvas.getBoundingClientRect();
            const at = network.canvasToDOM(network.getPosition(id));
            return [box.x + at.x, box.y + at.y];
        }}""",
        node,
    )
    page.mouse.click(x, y)
    panel.locator(".ct-dials").get_by_text("ablate").click()
    panel.locator(".ct-dial tbody tr").first.wait_for()
    panel.locator(".ct-html").get_by_text("Where it activates").wait_for()
    if folder := os.environ.get("CIRCUIT_TOOLKIT_SCREENSHOTS"):
        panel.screenshot(path=Path(folder) / "explorer.png")
        for index, each in enumerate(page.locator(".jp-Notebook .jp-CodeCell").all()):
            each.screenshot(path=Path(folder) / f"cell-{index}.png")
    clicked = report(page)
    assert clicked["selected"] == [node] and clicked["dial"] == "ablate"
    assert clicked["card"] == node.partition("@")[0], "the feature was not shown"

    # Saved, and opened again with a new kernel: the pictures are there, no error in their place.
    page.wait_for_timeout(1500)  # the still picture is drawn when nothing has changed for a second
    command(page, "docmanager:save")
    page.wait_for_timeout(1500)
    command(page, "kernelmenu:shutdown")
    page.wait_for_timeout(1500)
    open_notebook(page, lab)
    stills = page.locator("[data-ct-still] svg")
    stills.last.wait_for(state="attached")
    assert stills.count() == 4
    stills.last.scroll_into_view_if_needed()
    assert stills.last.is_visible()
    page.wait_for_timeout(1500)
    for said in page.get_by_text("Error displaying widget").all():
        assert not said.is_visible()

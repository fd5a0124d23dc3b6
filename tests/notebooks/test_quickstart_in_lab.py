"""The quickstart in JupyterLab in a real browser: what a user drags and clicks reaches Python."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest

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
    # No pop-up that asks to fetch news.
    settings = tmp_path / "JUPYTER_CONFIG_DIR" / "labconfig" / "default_setting_overrides.json"
    settings.parent.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    settings.write_text(json.dumps({"@jupyterlab/apputils-extension:notification": quiet}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    homes = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = os.environ | {name: str(tmp_path / name) for name in homes}
    log = (tmp_path / "lab.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
        + [f"--port={port}", f"--IdentityProvider.token={token}", f"--notebook-dir={tmp_path}"]
        + ["--LabApp.expose_app_in_browser=True", "--ServerApp.port_retries=0"]
        + ["--LabApp.news_url=", "--LabApp.check_for_updates_class="
           "jupyterlab.handlers.announcements.NeverCheckForUpdate"],
        env=environment,
        stdout=log,
        stderr=log,
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={token}", timeout=2)
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert time.monotonic() < until, (tmp_path / "lab.log").read_text()[-2000:]
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/lab/tree/quickstart.ipynb?token={token}"
    finally:
        server.terminate()
        server.wait(timeout=20)
        log.close()
        shutil.rmtree(tmp_path, ignore_errors=True)


def command(page, name):
    page.evaluate("(name) => window.jupyterapp.commands.execute(name)", name)


def report(page):
    """Run the last cell again and read what it prints."""
    last = page.locator(".jp-Notebook .jp-Cell").last
    page.evaluate(
        """() => {
            const notebook = window.jupyterapp.shell.currentWidget.content;
            notebook.activeCellIndex = notebook.widgets.length - 1;
            notebook.activeCell.model.sharedModel.outputs = [];
        }"""
    )
    command(page, "notebook:run-cell")
    output = last.locator(".jp-OutputArea-output").filter(has_text=">>")
    output.wait_for(timeout=60_000)
    text = output.inner_text()
    return json.loads(text[text.index("<<") + 2 : text.rindex(">>")])


def open_notebook(page, lab):
    page.set_viewport_size({"width": 1400, "height": 1000})
    page.set_default_timeout(120_000)
    page.goto(lab, wait_until="commit")
    kernel = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel"
    page.wait_for_function(f"{kernel}?.status == 'idle'", timeout=90_000)


@pytest.mark.browser
def test_what_is_clicked_reaches_python_and_the_notebook_stays_readable(lab, page):
    open_notebook(page, lab)
    command(page, "notebook:run-all-cells")
    page.locator(".jp-Notebook .jp-Cell").last.locator(".jp-OutputArea-output").first.wait_for(
        state="attached", timeout=240_000
    )
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

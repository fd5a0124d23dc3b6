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
drawn = explorer.graph._scene
print("<<" + json.dumps({
    "strength": explorer.strength, "selected": explorer.selected,
    "features": len(explorer.circuit.nodes) - 1,
    "card": explorer.card.name if explorer.card else "",
    "size": [drawn["width"], drawn["height"]],
    "nodes": {n["id"]: [n["x"], n["y"]] for n in drawn["nodes"]},
}) + ">>")
"""


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


@pytest.mark.browser
def test_slider_and_click_reach_python(lab, page):
    page.set_viewport_size({"width": 1400, "height": 1500})
    page.set_default_timeout(120_000)
    page.goto(lab, wait_until="commit")
    kernel = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel"
    page.wait_for_function(f"{kernel}?.status == 'idle'", timeout=90_000)
    command(page, "notebook:run-all-cells")
    canvases = page.locator(".ct-canvas canvas")
    page.locator(".jp-Notebook .jp-Cell").last.locator(".jp-OutputArea-output").first.wait_for(
        state="attached", timeout=240_000
    )
    before = report(page)
    assert before["selected"] == ""

    explorer = canvases.last
    explorer.scroll_into_view_if_needed()
    slider = page.locator(".widget-hslider .noUi-handle").first
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")  # the strengths decrease to the right
    page.wait_for_timeout(500)
    moved = report(page)
    assert moved["strength"] > before["strength"]
    assert moved["nodes"] != before["nodes"], "the graph was not drawn anew"

    # The scene is centred in the canvas and scaled to its width: see `fit` in graph.js.
    explorer.scroll_into_view_if_needed()
    box = explorer.bounding_box()
    width, height = moved["size"]
    scale = min((box["width"] - 16) / width, 1.15)
    node, (x, y) = next((n, at) for n, at in moved["nodes"].items() if not n.startswith("target"))
    page.mouse.click(
        box["x"] + box["width"] / 2 + (x - width / 2) * scale,
        box["y"] + box["height"] / 2 + (y - height / 2) * scale,
    )
    page.wait_for_timeout(500)
    page.mouse.move(box["x"] + 5, box["y"] + 5)  # off the nodes, so that none is lit
    page.wait_for_timeout(300)
    if folder := os.environ.get("CIRCUIT_TOOLKIT_SCREENSHOTS"):
        cell = page.locator(".jp-Notebook .jp-Cell:has(.ct-canvas)").last
        cell.locator(".jp-Cell-outputArea").screenshot(path=Path(folder) / "explorer.png")
        for index, each in enumerate(page.locator(".jp-Notebook .jp-CodeCell").all()):
            each.screenshot(path=Path(folder) / f"cell-{index}.png")
    clicked = report(page)
    assert clicked["selected"] == node
    assert clicked["card"] == node.partition("@")[0], "the feature was not shown"

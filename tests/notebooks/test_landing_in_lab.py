"""The notebook that Binder opens: one click, and the panel is there."""

import shutil
from pathlib import Path

import pytest

from tests.lab import KERNEL, command, open_notebook, served

LANDING = Path(__file__).resolve().parents[2] / "binder" / "explore.ipynb"


@pytest.mark.browser
def test_one_click_opens_the_panel(tmp_path, page):
    shutil.copy(LANDING, tmp_path)
    with served(tmp_path) as address:
        open_notebook(page, address(LANDING.name))
        page.locator('[data-command="notebook:run-cell-and-select-next"]').first.click()
        panel = page.locator(".ct-explorer")
        panel.locator(".ct-stage canvas").first.wait_for(timeout=120_000)
        panel.get_by_role("button", name="Learn it with CircuitLasso").wait_for()
        box = panel.bounding_box()
        assert box["y"] < 300 and box["height"] > 300  # in sight, without scrolling
        for _ in range(2):  # the text, then what Python knows of the panel
            command(page, "notebook:run-cell-and-select-next")
        page.wait_for_function(f"{KERNEL}?.status == 'idle'")
        output = page.locator(".jp-CodeCell").last.locator(".jp-OutputArea-output")
        output.wait_for(timeout=60_000)
        assert "to" in output.inner_text() and "Error" not in output.inner_text()
    shutil.rmtree(tmp_path, ignore_errors=True)

"""JupyterLab on this machine, with a notebook in it, driven by a browser."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import nbformat

WAIT = 240_000  # ms, for cells that run
KERNEL = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel"


@contextmanager
def served(folder):
    """Serve a folder; gives what makes the address of a notebook in it."""
    # No pop-up that asks to fetch news.
    settings = folder / "JUPYTER_CONFIG_DIR" / "labconfig" / "default_setting_overrides.json"
    settings.parent.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    settings.write_text(json.dumps({"@jupyterlab/apputils-extension:notification": quiet}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    homes = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = os.environ | {name: str(folder / name) for name in homes}
    log = (folder / "lab.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
        + [f"--port={port}", f"--IdentityProvider.token={token}", f"--notebook-dir={folder}"]
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
                assert time.monotonic() < until, (folder / "lab.log").read_text()[-2000:]
                time.sleep(0.3)
        yield lambda name: f"http://127.0.0.1:{port}/lab/tree/{name}?token={token}"
    finally:
        server.terminate()
        server.wait(timeout=20)
        log.close()


def written(path, cells):
    """Write a notebook of code cells."""
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(made, path)


def open_notebook(page, address, width=1400, height=1000):
    page.set_viewport_size({"width": width, "height": height})
    page.set_default_timeout(120_000)
    page.goto(address, wait_until="commit")
    page.wait_for_function(f"{KERNEL}?.status == 'idle'", timeout=90_000)


def command(page, name, **options):
    page.evaluate(
        "([name, options]) => window.jupyterapp.commands.execute(name, options)", [name, options]
    )


def run_all(page):
    """Run every cell, and wait for what the last one gives."""
    command(page, "notebook:run-all-cells")
    last = page.locator(".jp-Notebook .jp-Cell").last.locator(".jp-OutputArea-output")
    last.first.wait_for(state="attached", timeout=WAIT)


def in_theme(page, dark):
    command(page, "apputils:change-theme", theme=f"JupyterLab {'Dark' if dark else 'Light'}")
    light = "false" if dark else "true"
    page.wait_for_function(f"document.body.dataset.jpThemeLight === '{light}'")
    page.wait_for_timeout(300)


def report(page):
    """Run the last cell again and read what it prints, JSON between `<<` and `>>`."""
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

"""How fast the panels are in JupyterLab, from a user's act to the painted frame, and back.

All of the way is in it: browser, server, kernel, server, browser. The baseline is a request to the
kernel that does nothing. Fails above the budget. A fade of .16 s in which nodes come is not in it.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from tests.lab import KERNEL, command, open_notebook, run_all, served, written

STEPS = 15
BUDGETS = {"open": 3000.0, "40 nodes": 100.0, "150 nodes": 200.0, "click": 100.0}  # ms
CELLS = [
    'import circuit_toolkit as ct\nmodel = ct.load_model("demo")\n'
    "saes = ct.load_dictionaries(model)\nct.explore(model, saes).close()\n"
    "ct.explore_heads(model).close()\n1",
    "ct.explore_heads(model)",
    "explorer = ct.explore(model, saes)\nexplorer",
]
VIEW = 'document.querySelector(".ct-explorer:not(.ct-heads) .ct-stage").circuitView'
# From an act, `began`, to the frame after that in which `done` holds.
WATCH = """([event, done]) => {
    const test = new Function(`return ${done}`);
    window.before = window.watched?.();
    window.took = new Promise((tell) => {
        let began = 0;
        const look = () => {
            if (!test()) requestAnimationFrame(look);
            else requestAnimationFrame(() => tell(performance.now() - began));
        };
        const begin = () => {
            began = performance.now();
            document.removeEventListener(event, begin, true);
            requestAnimationFrame(look);
        };
        document.addEventListener(event, begin, true);
    });
}"""


def timed(page: Page, event: str, done: str, act: Callable[[], Any]) -> float:
    """Return the milliseconds from an event to the frame that shows what it brings."""
    page.evaluate(WATCH, [event, done])
    act()
    took = float(page.evaluate("window.took"))
    page.wait_for_timeout(250)  # what fades in has come
    return took


def clicks(page: Page) -> list[float]:
    """Click nodes one after another, until the card that Python makes is there."""
    names = page.evaluate(
        f"{VIEW}.drawn().nodes.filter((n) => n.kind === 'feature').map((n) => n.id)"
    )
    found = []
    for name in names[-STEPS:]:
        x, y = page.evaluate(
            f"""(id) => {{
                const {{ network }} = {VIEW}, frame = network.canvas.frame.canvas;
                const box = frame.getBoundingClientRect();
                const at = network.canvasToDOM(network.getPosition(id));
                return [box.x + at.x, box.y + at.y];
            }}""",
            name,
        )
        done = f'document.querySelector(".ct-html")?.dataset.of === "{name}"'
        found.append(timed(page, "pointerup", done, lambda x=x, y=y: page.mouse.click(x, y)))
    return found


def steps(page: Page, label: str) -> list[float]:
    """Move a slider step by step, until the graph is another."""
    slider = page.get_by_label(label, exact=True)
    slider.focus()
    page.evaluate(f"window.watched = () => {VIEW}.drawn()")
    keys = ["ArrowLeft"] * 4 + ["ArrowRight"] * 4
    done = "window.watched() !== window.before"
    return [
        timed(page, "input", done, lambda i=i: slider.press(keys[i % len(keys)]))
        for i in range(STEPS)
    ]


def opening(page: Page, cell: int, shown: str) -> float:
    """Run a cell, until what it opens is painted."""
    page.evaluate(
        f"""() => {{
            const notebook = window.jupyterapp.shell.currentWidget.content;
            notebook.activeCellIndex = {cell};
            notebook.activeCell.model.sharedModel.outputs = [];
        }}"""
    )
    page.wait_for_function(f"!({shown})")
    act = "() => document.dispatchEvent(new Event('ct-run'))"

    def run() -> None:
        page.evaluate(act)
        command(page, "notebook:run-cell")

    return timed(page, "ct-run", shown, run)


def main() -> int:
    """Measure and print lines for RESULTS.md."""
    rows: list[tuple[str, str, list[float]]] = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        written(Path(folder) / "speed.ipynb", CELLS)
        with served(Path(folder)) as address:
            chromium = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox"]
            )
            page = chromium.new_page()
            open_notebook(page, address("speed.ipynb"), 1400, 1000)
            run_all(page)
            page.locator(".ct-explorer .ct-stage canvas").nth(1).wait_for()
            page.evaluate("window.jupyterapp.shell.collapseLeft()")
            echo = """async () => { const began = performance.now();
                await KERNEL.requestKernelInfo(); return performance.now() - began; }"""
            empty = [page.evaluate(echo.replace("KERNEL", KERNEL)) for _ in range(STEPS)]
            rows.append(("click", "a request that does nothing", empty))
            heads, graph = ".ct-heads .ct-stage canvas", ".ct-explorer:not(.ct-heads) canvas"
            for cell, name, where in ((1, "the panel of heads", heads), (2, "the explorer", graph)):
                shown = f"Boolean(document.querySelector('{where}'))"
                took = [opening(page, cell, shown) for _ in range(3)]
                rows.append(
                    ("open", f"opening the panel of {name}".replace("panel of the ", ""), took)
                )
            page.locator(".ct-explorer:not(.ct-heads)").scroll_into_view_if_needed()
            rows.append(("click", "click to card", clicks(page)))
            size = page.get_by_label("Size", exact=True)
            size.fill("150")
            page.wait_for_timeout(2000)
            nodes, edges = page.evaluate(
                f"(({{nodes, edges}}) => [nodes.length, edges.length])({VIEW}.drawn())"
            )
            name = f"step of size, {nodes} nodes and {edges} edges"
            rows.append(("150 nodes", name, steps(page, "Size")))
            page.get_by_role("button", name="Learn it with CircuitLasso").click()
            page.get_by_label("Strength", exact=True).wait_for(timeout=240_000)
            page.locator(".ct-progress:visible").wait_for(state="hidden", timeout=240_000)
            size.fill("40")
            page.wait_for_timeout(2000)
            rows.append(("40 nodes", "step of strength, up to 40 nodes", steps(page, "Strength")))
            chromium.close()
    print("| what | median | slowest | budget |\n|---|---|---|---|")
    for budget, what, took in rows:
        median, limit = statistics.median(took), BUDGETS[budget]
        print(f"| {what} | {median:.0f} ms | {max(took):.0f} ms | {limit:.0f} ms |")
    return int(any(statistics.median(took) > BUDGETS[name] for name, _, took in rows))


if __name__ == "__main__":
    sys.exit(main())

"""How fast the explorer is: opening, a step of strength or size, a click, in kernel and browser.

What the browser takes is measured in headless Chromium, from the new state to the painted frame;
the way between kernel and browser is not in it. Fails above the budget.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

import circuit_toolkit as ct
from tests.panels.screen import Screen

STEPS = 12
BUDGETS = {"open": 3.0, "40 nodes": 0.1, "150 nodes": 0.2, "click": 0.1}  # s
PAINT = """async ([name, value]) => {
    const began = performance.now();
    model.set(name, value);
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    return (performance.now() - began) / 1000;
}"""


def measured(screen: Screen, act: Callable[[int], None], *regions: str) -> tuple[float, float]:
    """Return median seconds in the kernel, and in the browser, over some steps."""
    kernel, browser = [], []
    for step in range(STEPS):
        began = time.perf_counter()
        act(step)
        kernel.append(time.perf_counter() - began)
        states: list[tuple[str, Any]] = [(each, getattr(screen.widget, each)) for each in regions]
        browser.append(sum(screen.page.evaluate(PAINT, [*state]) for state in states))
    return statistics.median(kernel), statistics.median(browser)


def main() -> int:
    """Measure and print lines for RESULTS.md."""
    model, rows = ct.load_model("demo"), []
    saes = ct.load_dictionaries(model)
    ct.explore(model, saes)  # what is loaded once
    began = time.perf_counter()
    explorer = ct.explore(model, saes)
    rows.append(("open", "opening on a prompt", time.perf_counter() - began, 0.0))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        screen = Screen(chromium.new_page(), explorer)

        nodes = explorer.circuit.nodes["kind"] == "feature"
        features = np.array(explorer.circuit.ids())[nodes].tolist()

        def select(step: int) -> None:
            explorer.selected = features[step % len(features)]

        rows.append(("click", "click to card", *measured(screen, select, "_picked", "_node")))
        sizes = [150, 149]
        explorer.size = 150
        nodes, edges = len(explorer.circuit.nodes), len(explorer.circuit.edges)
        rows.append(
            (
                "150 nodes",
                f"step of size, {nodes} nodes and {edges} edges",
                *measured(
                    screen, lambda step: setattr(explorer, "size", sizes[step % 2]), "_scene"
                ),
            )
        )
        explorer.selected = ()
        explorer.learn()
        explorer.size = 40
        strengths = explorer.fit.strengths[3:].tolist()

        def step_strength(step: int) -> None:
            explorer.strength = strengths[step % len(strengths)]

        name = "step of strength, up to 40 nodes"
        rows.append(("40 nodes", name, *measured(screen, step_strength, "_scene", "_controls")))
        chromium.close()
    print("| what | kernel | browser | budget |\n|---|---|---|---|")
    for budget, what, kernel, browser in rows:
        limit = BUDGETS[budget]
        print(
            f"| {what} | {1000 * kernel:.0f} ms | {1000 * browser:.0f} ms | {1000 * limit:.0f} ms |"
        )
    return int(any(kernel + browser > BUDGETS[name] for name, _, kernel, browser in rows))


if __name__ == "__main__":
    sys.exit(main())

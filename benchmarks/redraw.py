"""Time from a new strength on a fitted path to a drawn circuit, in the kernel.

Every repeat takes another strength of the path, reads the circuit off, lays it out and hands it
to the live graph, as moving the explorer's slider does. Fails above the budget.
"""

import statistics
import sys
import time

import circuit_toolkit as ct
from circuit_toolkit.panels.graph_widget import GraphWidget

BUDGET = 0.100  # s
REPEATS = 20


def main() -> int:
    """Measure and print a line for RESULTS.md."""
    model = ct.load_model("demo")
    saes = ct.load_dictionaries(model)
    task = ct.tasks.ioi(model, n=512, seed=0)
    fit = ct.CircuitLasso().fit(ct.capture(model, saes, task, progress=False), target=task)
    graph = GraphWidget(fit.circuit(0.5))
    strengths = fit.strengths[fit.strengths < 0.8]
    seconds, features = [], []
    for i in range(REPEATS):
        strength = float(strengths[i % len(strengths)])
        began = time.perf_counter()
        graph.circuit = fit.circuit(strength)
        seconds.append(time.perf_counter() - began)
        features.append(len(graph.circuit.nodes) - 1)
    median = statistics.median(seconds)
    print(
        f"redraw at a new strength: median {1000 * median:.1f} ms, slowest "
        f"{1000 * max(seconds):.1f} ms of {REPEATS}, {min(features)}-{max(features)} features "
        f"(budget {1000 * BUDGET:.0f} ms)"
    )
    return int(median > BUDGET)


if __name__ == "__main__":
    sys.exit(main())

"""The causal circuits of the bundled tasks, computed: every edge patched by itself.

`python -m benchmarks.demo.reference_circuits` computes them and writes them where
`reference_circuit` reads them; `--card` writes their table into the model card.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.demo.reference_command import Reference, run_reference
from circuit_toolkit.benchmark.metrics import average_precision
from circuit_toolkit.benchmark.reference_circuits import FOLDER, reference_circuit
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import component_circuit
from circuit_toolkit.models import load_model
from circuit_toolkit.models.components import run_components
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.patching.effects import patching_effects
from circuit_toolkit.tasks import BUNDLED
from circuit_toolkit.tasks.prompt_pairs import tokenized_pairs

TASKS = ("ioi", "greater_than", "agreement", "docstring", "bios")
PROMPTS, SEED = 64, 0
BUDGETS = (10, 20, 40)  # how many of the strongest edges count as true
# Runs at once: small enough for the caches of a processor, which halves the time.
BATCH = 32


def compute(
    task_name: str, n_prompts: int = PROMPTS, *, seed: int = SEED, progress: bool = False
) -> Circuit:
    """Patch every edge of the bundled model on a task.

    Parameters
    ----------
    task_name : str
        Of `tasks.BUNDLED`.
    n_prompts : int
        Pairs of the task, as the grammar gives them with `seed`.
    seed : int
        Of the prompts.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Circuit
        As `reference_circuit` gives it. In `settings`, `halves` says how well scores from every
        other prompt find the strongest edges of the others: the most that a method could reach.
    """
    model = load_model("demo")
    task, graph = BUNDLED[task_name](model, n=n_prompts, seed=seed), graph_of(model)
    began, used = time.perf_counter(), time.process_time()
    effects = patching_effects(
        model, task, [[edge] for edge in graph.edges], batch_size=BATCH, progress=progress
    )  # (n, edges)
    scores, weights = np.zeros((2, *graph.allowed.shape))
    scores[graph.allowed] = _digits(effects.abs().mean(0).numpy())
    weights[graph.allowed] = _digits(effects.mean(0).numpy())
    settings = {
        "method": "edge patching",
        "model": "demo",
        "task": task_name,
        "n_prompts": n_prompts,
        "task_seed": seed,
        "swap": "corrupted",
        "response": "metric",
        "average": "mean of absolutes",
        "metric": task.metric,
        **_metric(model, task),
        "halves": _halves(effects.abs().numpy()),
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "threads": torch.get_num_threads(),
    }
    found = component_circuit(graph, scores, settings, weights=weights)
    nodes = found.nodes.copy()
    nodes["label"][-1] = str(task.metric).replace("_", " ")
    return replace(found, nodes=nodes)


def table(circuits: list[Circuit]) -> str:
    """Return what reference circuits hold, as Markdown.

    Parameters
    ----------
    circuits : list of Circuit
        From `reference_circuit`.

    Returns
    -------
    str
        A row for each: prompts, metric, the share of all effects that the strongest edges make
        up, how well one half of the prompts finds those of the other, the three strongest, CPU
        minutes.
    """
    numbers = ", ".join(map(str, BUDGETS))
    lines = [
        f"| task | prompts | metric, corrupted "
        f"| share of {numbers} edges | halves, AP of {numbers} "
        "| strongest edges (change of the metric) | CPU min |",
        "|---|---|---|---|---|---|---|",
    ]
    for circuit in circuits:
        have = circuit.settings
        edges = circuit.edges[np.argsort(-circuit.edges["score"], kind="stable")]
        share = edges["score"].cumsum() / edges["score"].sum()
        names = [*circuit.nodes["label"][:-1].tolist(), "logits"]
        shares = [f"{share[budget - 1]:.0%}" for budget in BUDGETS]
        halves = [f"{have['halves'][str(budget)]:.2f}" for budget in BUDGETS]
        strongest = ", ".join(
            f"{names[edge['source']]} → {names[edge['target']]} ({edge['weight']:+.2f})"
            for edge in edges[:3]
        )
        lines.append(
            f"| {have['task']} | {have['n_prompts']} | {have['clean']:.2f}, {have['corrupted']:.2f}"
            f" | {', '.join(shares)} | {', '.join(halves)} | {strongest}"
            f" | {have['cpu_seconds'] / 60:.1f} |"
        )
    return "\n".join(lines)


def _digits(values: np.ndarray) -> np.ndarray:
    """Keep three digits."""
    return np.array([float(f"{value:.3g}") for value in values.tolist()])


def _metric(model: Any, task: Any) -> dict[str, float]:
    """Mean metric on the clean prompts and on their corrupted prompts."""
    pairs, rows = tokenized_pairs(model, task), range(len(task))
    with torch.no_grad():
        means = {
            name: float(task.metric_of(run_components(model, batch).logits, rows).mean())
            for name, batch in (("clean", pairs.clean), ("corrupted", pairs.corrupted))
        }
    return {name: round(value, 4) for name, value in means.items()}


def _halves(sizes: np.ndarray) -> dict[str, float]:
    """Average precision of every other prompt's scores (n, edges) on the others' strongest."""
    halves = [sizes[start::2].mean(0) for start in (0, 1) if len(sizes) > 1] or [sizes.mean(0)] * 2
    found = {}
    for budget in BUDGETS:
        both = [
            average_precision(np.argsort(np.argsort(-truth, kind="stable")) < budget, scores)
            for truth, scores in (halves, halves[::-1])
        ]
        found[str(budget)] = round(float(np.mean(both)), 3)
    return found


def main(argv: list[str] | None = None) -> None:
    """Compute them, or write the table of the stored ones into a card.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; by default those of the process.
    """
    kind = Reference(
        "reference circuits", FOLDER, TASKS, PROMPTS, compute, reference_circuit, table
    )
    run_reference(kind, __doc__, argv)


if __name__ == "__main__":
    main()

"""The main job on the five bundled tasks: size, whether the circuit holds, and how its edges fare.

`OMP_NUM_THREADS=1 python -m benchmarks.tested_circuits` prints both tables. Circuits are found on
training prompts and tested on held-out ones; the trivial baseline ranks features by the size of
their change from clean to corrupted prompts times the norm of their decoder.
"""

from __future__ import annotations

import time

import numpy as np

import circuit_toolkit as ct
from circuit_toolkit.benchmark.metrics import average_precision
from circuit_toolkit.cli.demo import SITES
from circuit_toolkit.dictionaries.directions import decoder_rows
from circuit_toolkit.evidence.tested_circuit import by_place, ranked
from circuit_toolkit.patching.placed_features import PlacedFeatures
from circuit_toolkit.tasks import BUNDLED

TASKS = ("ioi", "greater_than", "docstring", "agreement", "bios")
BUDGETS = (10, 20, 40)


def changes(runs: PlacedFeatures) -> dict:
    """Score features by how much they change, in the units of what they add to the model."""
    return {
        place: (
            (runs.acts[place] - runs.reference[place]).abs().mean(0)
            * decoder_rows(runs.model, runs.dictionaries[place[0]]).norm(dim=1)
        ).numpy()
        for place in runs.places
    }


def main() -> None:
    """Print the tables."""
    model = ct.load_model("demo")
    saes = ct.load_dictionaries(model, sites=SITES)
    circuits, edges = [], []
    for name in TASKS:
        task = BUNDLED[name](model, n=256, seed=0)
        held_out = BUNDLED[name](model, n=256, seed=1, test=True)
        began = time.process_time()
        found = ct.find_circuit(model, saes, task, progress=False)
        learnt = found.edges["weight"].copy()
        found = ct.confirm_edges(found, model, saes, held_out, progress=False)
        found = ct.evaluate(found, model, saes, held_out, draws=10, progress=False)
        used = time.process_time() - began
        shares = found.evidence["ablation"]
        train = PlacedFeatures.of(model, saes, task, found.settings["positions"])
        runs = PlacedFeatures.of(model, saes, held_out, found.settings["positions"])
        full, empty = runs.metric().mean(), runs.metric_with({}).mean()
        n = len(found.nodes) - 1
        trivial = by_place(ranked(changes(train), train.places)[:n])
        baseline = [
            (runs.metric_with(trivial, kept=kept).mean() - empty) / (full - empty)
            for kept in (True, False)
        ]
        low, high = shares["faithfulness_interval"]
        circuits.append(
            f"| {name} ({', '.join(found.settings['positions'])}) | {n} | "
            f"{shares['faithfulness']:.2f} [{low:.2f}, {high:.2f}] / "
            f"{shares['completeness']:.2f} | "
            f"{np.mean(shares['random_faithfulness']):.2f} / "
            f"{np.mean(shares['random_completeness']):.2f} | "
            f"{baseline[0]:.2f} / {baseline[1]:.2f} | "
            f"{shares['faithfulness_errors_ablated']:.2f} of {shares['dictionaries_keep']:.2f} | "
            f"{found.verdict} | {used:.1f} |"
        )
        known = found.edges["status"] != "untested"
        true, drawn = np.abs(found.edges["weight"][known]), np.abs(learnt[known])
        order = np.argsort(-true, kind="stable")
        precision = [
            average_precision(np.isin(np.arange(len(true)), order[:k]), drawn) for k in BUDGETS
        ]
        counts = found.evidence["edges"]
        edges.append(
            f"| {name} | {len(found.edges)} | {counts['confirmed']} / {counts['refuted']} / "
            f"{counts['untested']} | {' / '.join(f'{each:.2f}' for each in precision)} |"
        )
    print(
        "| task (positions) | nodes | circuit: F / C | 10 random sets | trivial ranking | errors "
        "ablated | verdict | CPU s |\n|---|---|---|---|---|---|---|---|"
    )
    print(*circuits, sep="\n")
    print(
        "\n| task | edges | confirmed / refuted / untested | AP 10 / 20 / 40 |\n|---|---|---|---|"
    )
    print(*edges, sep="\n")


if __name__ == "__main__":
    main()

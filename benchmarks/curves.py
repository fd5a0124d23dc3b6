"""Faithfulness of feature circuits over their size: CPR and CMD of every method, and its time.

For IOI, greater-than and agreement on the bundled model: circuits are learnt on 256 prompts of the
training language (seed 0) at the last token, and tested on 128 prompts of held-out material (seed
2) by mean ablation of all other features at the last token at all sites, errors of the
dictionaries kept. CPR is the area under F over the share of features (MIB's ten shares, of all
features that fire), with a bootstrap interval over prompts; random circuits of equal size: mean of
3. All methods rank by the size of the effect. Seconds are of one processor, the capture included.
The trivial ranking: mean absolute change from clean to corrupted prompts times the norm of the
feature's decoder (`--only-trivial`: that alone). Prints rows for RESULTS.md; names of tasks as
arguments choose among them. Some 3 minutes of
processor a task.
"""

import sys
import time
import warnings

import numpy as np
import torch

import circuit_toolkit as ct
from circuit_toolkit.attribution.features import attributed_nodes
from circuit_toolkit.evidence.curves import faithfulness
from circuit_toolkit.evidence.intervals import bootstrap
from circuit_toolkit.patching.feature_runs import FeatureRuns

TASKS = ("ioi", "greater_than", "agreement")
N, N_TEST, STEPS = 256, 128, 10
TRIVIAL = "activation change x decoder norm"
METHODS = (TRIVIAL, "CircuitLasso", "attribution patching", "integrated gradients")


def scores(model, saes, task, method):
    """Scores of all features by site, and the seconds of processor that they took."""
    began = time.process_time()
    if method == "CircuitLasso":
        acts = ct.capture(model, saes, task, progress=False)
        fit = ct.CircuitLasso(strengths=(1, 0.5, 0.2, 0.1, 0.05, 0.03)).fit(
            acts, target=task, labels={}
        )
        found = fit.circuit(0.03, max_features=None, max_edges=None)
        return found, time.process_time() - began
    if method == TRIVIAL:
        acts, n = ct.capture(model, saes, task, "last", progress=False), len(task)
        table = {
            site: np.asarray(abs(X[:n] - X[n:]).mean(0)).ravel()
            * saes[site].directions.norm(dim=1).numpy()
            for site, X in acts.features.items()
        }
        return table, time.process_time() - began
    runs = FeatureRuns.of(model, saes, task, value="mean", positions="last", min_active=1)
    nodes, _ = attributed_nodes(runs, STEPS if method == "integrated gradients" else 0)
    table = {
        site: np.bincount(chosen, np.abs(nodes[site]), saes[site].n_features)
        for site, chosen in runs.features.items()
    }
    return table, time.process_time() - began


def area_interval(curve):
    """Return CPR with its bootstrap interval over prompts."""

    def area(rows):
        mean = rows.mean(0)
        return np.trapezoid((mean[:-2] - mean[-2]) / (mean[-1] - mean[-2]), curve.fractions)

    rows = np.column_stack([curve.inside.T, curve.empty, curve.full])
    return bootstrap(rows, area, draws=1000)


def main() -> None:
    """Print a table for each task."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model = ct.load_model("demo")
    saes = ct.load_dictionaries(model)
    chosen = [TRIVIAL] if "--only-trivial" in sys.argv else METHODS
    for name in [each for each in sys.argv[1:] if not each.startswith("--")] or TASKS:
        task = ct.tasks.BUNDLED[name](model, n=N, seed=0)
        held_out = ct.tasks.BUNDLED[name](model, n=N_TEST, seed=2, test=True)
        rows = ct.capture(model, saes, task, "last", progress=False)
        print(f"\n{name}: mean ablation at the last token, {held_out.metric}, {N_TEST} prompts\n")
        print("| method | CPR (95 %) | CMD | F at 1 / 2 / 5 / 10 / 20 / 50 % | s |")
        print("|---|---|---|---|---|")
        for method in chosen:
            table, seconds = scores(model, saes, task, method)
            curve = faithfulness(
                table,
                model,
                saes,
                held_out,
                rows,
                progress=False,
                draws=3 if method == "CircuitLasso" else 0,
                n_prompts=N_TEST,
            )
            area = area_interval(curve)
            shape = " / ".join(f"{f:.2f}" for f in curve.faithfulness[3:9])
            print(
                f"| {method} | {curve.cpr:.3f} ({area.low:.3f}, {area.high:.3f}) | {curve.cmd:.3f} "
                f"| {shape} | {seconds:.1f} |",
                flush=True,
            )
            if method == "CircuitLasso":
                chance = curve.random_faithfulness.mean(0)
                area = np.trapezoid(chance, curve.fractions)
                shape = " / ".join(f"{f:.2f}" for f in chance[3:9])
                gap = np.trapezoid(np.abs(1 - chance), curve.fractions)
                print(f"| random | {area:.3f} | {gap:.3f} | {shape} | 0 |", flush=True)


if __name__ == "__main__":
    main()

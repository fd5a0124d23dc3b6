"""Edges between features of adjacent sites, against exact ablation of single features.

For IOI, greater-than and agreement on the bundled model: features that fire on at least 10 of 512
prompts; of each site 20 earlier and 20 later ones, drawn at random: 2,400 pairs. The truth is the
mean effect of setting the earlier feature to zero at all tokens on the later one, over all tokens
and prompts; true edges are the strongest 20, 50 and 100 pairs. Gradient methods see the first 128
prompts, since a backward pass for each later feature on each prompt costs them more than the
truth. Seconds are of one processor, in this very run; those in brackets are worked out for all
features from the number of runs, and times are compared for all features. Prints rows for
RESULTS.md; names of tasks as arguments choose among them. Some 2 (agreement) to 5 (IOI) minutes of
processor a task.
"""

import sys
import time
import warnings

import numpy as np
import torch
from scipy.stats import spearmanr

import circuit_toolkit as ct
from benchmarks.exact_effects import exact_feature_effects, exact_runs
from circuit_toolkit.attribution.features import attributed_edges
from circuit_toolkit.benchmark.metrics import average_precision
from circuit_toolkit.patching.feature_runs import FeatureRuns

TASKS = ("ioi", "greater_than", "agreement")
BUDGETS = (20, 50, 100)
N, N_GRADIENT, EACH = 512, 128, 20


def timed(call):
    """Return a result, and the seconds of processor that it took."""
    began = time.process_time()
    return call(), time.process_time() - began


def observational(model, saes, task, runs):
    """Effects as CircuitLasso has them: raw coefficient times the mean activation, by site."""
    acts = ct.capture(model, saes, task, progress=False)
    clean = acts.part(0, len(task))
    fit = ct.CircuitLasso(positions="mean").fit(clean, target=np.arange(len(task)), labels={})
    tables = {}
    for earlier, later in zip(runs.sites, runs.sites[1:], strict=False):
        path = fit.chain[later]
        raw = path.coefficients[path.at(0.1)].toarray()
        whole = np.zeros((saes[earlier].n_features, saes[later].n_features))
        whole[np.ix_(fit.screening[earlier].kept, fit.screening[later].kept)] = raw
        mean = clean.pooled("mean").means()[earlier][:, None]
        tables[earlier] = (whole * mean)[np.ix_(runs.features[earlier], runs.features[later])]
    return tables


def main() -> None:
    """Print a table for each task."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model = ct.load_model("demo")
    saes = ct.load_dictionaries(model)
    for name in sys.argv[1:] or TASKS:
        task = ct.tasks.BUNDLED[name](model, n=N, seed=0)
        runs = FeatureRuns.of(model, saes, task, value="zero")
        few = FeatureRuns.of(model, saes, task, value="zero", n_prompts=N_GRADIENT, min_active=1)
        rng = np.random.default_rng(0)
        usable = {site: np.intersect1d(runs.features[site], few.features[site]) for site in saes}
        early, late = (
            {site: np.sort(rng.choice(usable[site], EACH, replace=False)) for site in runs.sites}
            for _ in range(2)
        )

        def pairs(tables, of=runs, early=early, late=late):
            """Sizes of the effects of all pairs of the sample."""
            return np.concatenate(
                [
                    np.abs(
                        tables[site][
                            np.ix_(
                                np.searchsorted(of.features[site], early[site]),
                                np.searchsorted(of.features[later], late[later]),
                            )
                        ]
                    ).ravel()
                    for site, later in zip(of.sites, of.sites[1:], strict=False)
                ]
            )

        exact, seconds = timed(lambda runs=runs, early=early: exact_feature_effects(runs, early))
        whole = seconds * exact_runs(runs) / exact.settings["runs"]
        truth = pairs(exact.edges)
        print(f"\n{name}: {len(truth)} pairs of {sum(t.size for t in exact.edges.values())}\n")
        heads = " / ".join(map(str, BUDGETS))
        print(f"| method | AP of the {heads} strongest | rank correlation | s | times less |")
        print("|---|---|---|---|---|")
        print(f"| exact | 1 | 1 | {seconds:.1f} ({whole:.0f}) | 1 |", flush=True)

        def row(label, found, seconds, note="", truth=truth, whole=whole):
            strongest = (truth >= np.sort(truth)[-k] for k in BUDGETS)
            ap = " / ".join(f"{average_precision(each, found):.3f}" for each in strongest)
            rank = spearmanr(truth, found)[0]
            less = f"{whole / seconds:.1f}" if not note else f"{whole / float(note):.2f}"
            shown = f"{seconds:.1f}" + (f" ({float(note):.0f})" if note else "")
            print(f"| {label} | {ap} | {rank:.3f} | {shown} | {less} |", flush=True)

        tables, seconds = timed(lambda task=task, runs=runs: observational(model, saes, task, runs))
        row("CircuitLasso (observational)", pairs(tables), seconds)
        for steps in (0, 4):
            (tables, count), seconds = timed(
                lambda few=few, late=late, steps=steps: attributed_edges(few, late, steps)
            )
            fires = [(few.pooled(few.acts[s]) != 0).sum(1) for s in few.sites[1:]]
            every = int(torch.stack(fires).amax(0).sum()) * max(steps, 1) * N / N_GRADIENT
            label = f"integrated gradients, {steps} steps" if steps else "attribution patching"
            note = str(seconds * every / count)
            row(label, pairs(tables, few), seconds, note)


if __name__ == "__main__":
    main()

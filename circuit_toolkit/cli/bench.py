"""`circuit-toolkit bench`: methods side by side where the circuit is known, as tables or JSON."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from circuit_toolkit.cli.model import asked_model
from circuit_toolkit.cli.output import bundled_task, markdown, warn, write, write_json

# Column -> (head, digits)
COLUMNS = {
    "edge_auroc": ("edge AUROC", 3),
    "edge_ap": ("edge AP", 3),
    "ap_10": ("AP 10", 2),
    "ap_20": ("AP 20", 2),
    "ap_40": ("AP 40", 2),
    "node_auroc": ("node AUROC", 3),
    "shd": ("SHD", 2),
    "shd_best": ("SHD best", 2),
    "shd_empty": ("SHD empty", 2),
    "seconds": ("s", 2),
    "cpu_seconds": ("CPU s", 2),
}
SAMPLED = {  # of a model with too many edges to patch each
    "ap": "AP",
    "found": "found",
    "rank_correlation": "rank r",
    "kept": "kept",
    "cpr": "CPR",
    "cmd": "CMD",
    "seconds": "s",
    "cpu_seconds": "CPU s",
}
PROMPTS, SAMPLED_PROMPTS = 64, 12
INTERVALS = ("edge_auroc", "edge_ap", "node_auroc", "shd")


def run_bench(args: argparse.Namespace) -> None:
    """Run `bench known-circuits` or `bench task` and print what came out."""
    from circuit_toolkit.benchmark.methods import chosen_methods
    from circuit_toolkit.benchmark.run import Bench, Trial, bench

    if args.kind == "task" and args.model != "demo":
        _sampled(args)
        return
    names = args.methods.split(",") if args.methods else None
    methods = chosen_methods(names, exact=args.kind == "known-circuits")
    trials: list[Trial] = list(_cases(args) if args.kind == "known-circuits" else _tasks(args))
    shown = [key for key in COLUMNS if args.kind == "task" or not key.startswith("ap_")]

    def say(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show that something happens; thresholds over all cases come later."""
        warn(f"{name}: {sum(row['seconds'] for row in rows):.1f} s")

    found: Bench = bench(
        trials,
        methods,
        n_prompts=args.n_prompts,
        seed=args.seed,
        repeats=args.repeats,
        say=say if sys.stderr.isatty() else None,
    )
    result = asdict(found)
    result["settings"] |= {key: str(value) for key, value in _asked(args).items()}
    if args.json:
        write_json(result)
        return
    write(*_table(found.cases, ["case", "method"], shown), "")
    if len(trials) > 1:
        write(f"Means over {len(trials)} cases, with 95 % bootstrap intervals over cases", "")
        write(*_table(found.means, ["method"], shown), "")
    write(*_notes(found.settings))
    if len(trials) > 1 and found.pairs:
        write("", *_pairs(found.pairs))


def _cases(args: argparse.Namespace):
    from circuit_toolkit.benchmark.interpbench.cases import read_cases
    from circuit_toolkit.benchmark.run import trials_of

    return trials_of(read_cases(args.folder), args.metric)


def _tasks(args: argparse.Namespace):
    from circuit_toolkit.benchmark.reference_circuits import reference_circuit
    from circuit_toolkit.benchmark.run import Trial
    from circuit_toolkit.benchmark.truth import truth_of
    from circuit_toolkit.models import load_model
    from circuit_toolkit.models.graph import graph_of

    model = load_model("demo")
    for name in args.name.split(","):
        reference, n = reference_circuit(name), args.n_prompts or PROMPTS
        task = bundled_task(name)(model, n=n, seed=reference.settings["task_seed"])
        yield Trial(name, model, task, truth_of(graph_of(model), reference))


def _sampled(args: argparse.Namespace) -> None:
    """Hold methods against exact patching of some edges, where no circuit is known."""
    import torch

    from circuit_toolkit.benchmark.methods import chosen_methods, run_methods, warm_up
    from circuit_toolkit.benchmark.sampled_edges import BEST, sampled_rows

    began, model = time.perf_counter(), asked_model(args)
    methods = chosen_methods(args.methods.split(",") if args.methods else list(BEST))
    methods |= {name: method for name, method in BEST.items() if name in methods}
    cases, found, n = [], {}, args.n_prompts or SAMPLED_PROMPTS
    for name in args.name.split(","):
        task = bundled_task(name)(model, n=2 * n, seed=args.seed)
        seen, held_out = task.subset(n), task.select(range(n, 2 * n))
        if not cases:
            warm_up(model, task.subset(2))
        runs = run_methods(
            model, seen, methods, seed=args.seed, repeats=args.repeats, progress=False
        )
        rows, truth = sampled_rows(model, seen, held_out, runs, seed=args.seed)
        cases += [{"case": name, **row} for row in rows]
        found[name] = truth
        warn(f"{name}: {time.perf_counter() - began:.0f} s with loading")
    settings: dict[str, Any] = {
        "model": args.model, "n_prompts": n, "seed": args.seed, "repeats": args.repeats,
        "threads": torch.get_num_threads(), "truth": found,
        "seconds": time.perf_counter() - began,
    }  # fmt: skip
    if args.json:
        write_json({"cases": cases, "settings": settings})
        return
    heads = ["case", "method", *SAMPLED.values()]
    lines = ([row["case"], row["method"]] + [_digits(row[key]) for key in SAMPLED] for row in cases)
    write(*markdown(heads, lines), "", *_sampled_notes(settings))


def _digits(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else ""


def _sampled_notes(settings: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{name}: {truth['patched']} of {truth['edges']} edges patched alone ({truth['at_random']} "
        f"of them at random); the {truth['true']} strongest on held-out prompts are true. "
        f"edge_patching ranks them by the prompts that methods saw: the best to be asked for."
        for name, truth in settings["truth"].items()
    ]
    return [
        *lines,
        f"{settings['threads']} threads, {settings['n_prompts']} prompts seen and as many held "
        f"out, seed {settings['seed']}, {settings['seconds']:.0f} s in all.",
    ]


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    keys = ("folder", "metric", "name", "model")
    return {key: getattr(args, key) for key in keys if hasattr(args, key)}


def _table(rows: Sequence[Mapping[str, Any]], first: list[str], shown: list[str]) -> list[str]:
    """Write rows as Markdown."""
    shown = [key for key in shown if any(row.get(key) is not None for row in rows)]
    heads = [*first, *(COLUMNS[key][0] for key in shown)]
    cells = ([row[key] for key in first] + [_cell(row, key) for key in shown] for row in rows)
    return markdown(heads, cells)


def _cell(row: Mapping[str, Any], key: str) -> str:
    value, digits = row.get(key), COLUMNS[key][1]
    if value is None or not math.isfinite(value):
        return ""
    text = str(value) if isinstance(value, int) else f"{value:.{digits}f}"
    if key == "shd" and row.get("shd_rule") == "oracle":
        text += "*"
    ends = row.get(f"{key}_interval")
    if key in INTERVALS and ends is not None:
        text += f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"
    return text


def _notes(settings: Mapping[str, Any]) -> list[str]:
    return [
        "SHD: at the method's own operating point; * at the oracle threshold: the one share of the",
        "largest score of a case that is best over all cases.",
        "SHD best: at the oracle threshold of each case. SHD empty: of no edge.",
        "Methods run one after the other in one process after a warm-up; each prepares its prompts",
        f"inside the clock. {settings['threads']} threads, {settings['n_prompts']} prompts a case, "
        f"seed {settings['seed']}.",
    ]


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write paired differences as Markdown."""
    rows = []
    for row in pairs:
        low, high = row["interval"]
        difference = f"{row['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
        score = COLUMNS[row["score"]][0]
        rows.append([row["method"], score, difference, f"{row['p_value']:.3f}"])
    return markdown([f"minus {pairs[0]['versus']}", "score", "difference", "p"], rows)

"""`circuit-toolkit heads`: the heads of a task, tested, with their paths; ways to rank them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from circuit_toolkit.cli.model import asked_model
from circuit_toolkit.cli.output import bundled_task, markdown, warn, write, write_json
from circuit_toolkit.errors import InputError

OURS, UNTRAINED = "head codes", "untrained autoencoder"
# Column of a row of heads -> the way that it is scored by.
WAYS = {
    "score": "change towards the answer",
    "attribution": "attribution patching",
    "head_codes": OURS,
    "untrained": UNTRAINED,
}


def run_heads(args: argparse.Namespace) -> None:
    """Find and test the heads of a task, score all heads, and print what came out."""
    from circuit_toolkit.benchmark.heads.reference import known_heads
    from circuit_toolkit.head_codes import HeadCodes

    make = bundled_task(args.task)
    model = asked_model(args)
    task = make(model, n=args.n, seed=args.seed)
    codes = HeadCodes(n_seeds=args.seeds, seed=args.seed)
    known = known_heads(model, args.task)
    if known is None:
        warn(
            f"No circuit of {args.task!r} is known in {args.model!r}, so scores stand without "
            "a comparison: null."
        )
    fit, scores, result = (_alone if known is None else _compared)(model, task, codes, known)
    found = {"heads": _heads(fit, scores, known), "settings": fit.settings}
    found |= _tested(model, task, make(model, n=64, seed=args.seed + 1, test=True))
    result = {"task": args.task, "model": args.model, "n": len(task), **result, **found}
    if args.json:
        write_json(result)
    else:
        write(*_lines(result))


def _compared(model: Any, task: Any, codes: Any, known: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Scores of all ways, and how well they agree with the truth; figures at the top are codes'."""
    from circuit_toolkit.benchmark.heads.comparison import compare_heads

    progress = sys.stderr.isatty()
    found = compare_heads(model, task, known.mask, codes, edges=known.edges, progress=progress)
    rows = {row["method"]: row for row in found.rows}
    ours, patching = rows[OURS], rows["activation patching"]
    shown = ("uses", "node_auc", "node_auc_spread", "node_ap", "f1", "cpu_seconds")
    return (
        found.fit,
        found.scores,
        {
            "truth": {"source": known.source, "n_heads": int(known.mask.sum())},
            "chance": 0.5,
            "methods": {name: {key: row[key] for key in shown} for name, row in rows.items()},
            **{
                name: {"mean": ours[name], "spread": ours[f"{name}_spread"]}
                for name in ("node_auc", "node_ap")
            },
            **{name: ours[name] for name in ("precision", "recall", "f1", "edge_auc")},
            "baselines": {name: row["node_auc"] for name, row in rows.items() if name != OURS},
            "uses": {name: row["uses"] for name, row in rows.items()},
            "seconds": ours["seconds"],
            "cpu_seconds": ours["cpu_seconds"],
            "patching_seconds": patching["seconds"],
            "patching_cpu_seconds": patching["cpu_seconds"],
        },
    )


def _alone(model: Any, task: Any, codes: Any, _: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Scores where no truth is known."""
    from circuit_toolkit.activations.capturing import capture
    from circuit_toolkit.attribution.heads import HEAD_SCORES, head_scores

    where = codes.positions_of(task)
    acts = capture(model, "head_out", task, where, progress=False)
    scores = {}
    for by in HEAD_SCORES:
        try:
            scores[by] = head_scores(model, task, by, acts=acts, progress=False)[None]
        except InputError as error:
            warn(f"No {by}: {error}")
    began, cpu = time.perf_counter(), time.process_time()
    fit = codes.fit(acts, task)
    used = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    scores |= {OURS: fit.per_seed, UNTRAINED: replace(codes, steps=0).fit(acts, task).per_seed}
    nothing = ("truth", "node_auc", "node_ap", "precision", "recall", "f1", "edge_auc", "methods")
    nothing += ("baselines", "uses", "patching_seconds", "patching_cpu_seconds", "chance")
    return fit, scores, dict.fromkeys(nothing) | used


def _heads(fit: Any, scores: dict[str, np.ndarray], known: Any) -> list[dict[str, Any]]:
    """All heads, those that change most towards the answer first; None where it is not known."""
    rows = []
    for row, head in np.ndindex(fit.scores.shape):
        of_head = {
            key: float(scores[way][:, row, head].mean()) if way in scores else None
            for key, way in WAYS.items()
        }
        true = None if known is None else bool(known.mask[row, head])
        about = {"spread": float(fit.spread[row, head]), "in_circuit": true}
        rows.append({"layer": fit.layers[row], "head": head, **of_head, **about})
    first = "score" if WAYS["score"] in scores else "head_codes"
    return sorted(rows, key=lambda row: -row[first])


def _tested(model: Any, task: Any, held_out: Any) -> dict[str, Any]:
    """Find the fewest heads that hold, and test them and their paths on held-out prompts."""
    from circuit_toolkit.evidence import find_heads

    try:
        circuit = find_heads(model, task, held_out, progress=sys.stderr.isatty())
    except InputError as error:
        warn(f"The circuit was not tested: {error}")
        return {"circuit": [], "evidence": {}, "summary": [], "edges": [], "verdict": "untested"}
    table = circuit.edge_table()[["source", "target", "weight", "low", "high", "status"]]
    return {
        "circuit": circuit.nodes["label"][:-1].tolist(),
        "evidence": circuit.evidence,
        "summary": circuit.summary(),
        "edges": table.to_dict("records"),
        "verdict": circuit.verdict,
    }


def _lines(result: dict[str, Any], shown: int = 10) -> Sequence[str]:
    """Describe the result in words and tables."""
    lines = [
        f"{result['task']} on {result['model']}, {result['n']} prompts with corrupted prompts",
        "",
    ]
    if result["circuit"]:
        lines += [f"The fewest heads that hold: {', '.join(result['circuit'])}", *result["summary"]]
        rows = [
            (
                row["source"],
                row["target"],
                f"{row['weight']:+.3f}",
                f"{row['low']:+.3f} to {row['high']:+.3f}",
                row["status"],
            )
            for row in result["edges"][:shown]
        ]
        head = ["path from", "to", "share of the metric's change", "95 %", "status"]
        lines += ["", *markdown(head, rows), ""]
    if result["truth"]:
        truth = result["truth"]
        lines += [f"Ways to rank heads, against {truth['n_heads']} heads: {truth['source']}"]
        rows = [
            (
                name,
                row["uses"],
                f"{row['node_auc']:.3f}"
                + (f" ± {row['node_auc_spread']:.3f}" if row["node_auc_spread"] else ""),
                f"{row['node_ap']:.3f}",
                f"{row['cpu_seconds']:.2f}",
            )
            for name, row in result["methods"].items()
        ]
        rows.append(
            ("chance", "nothing", "0.500", f"{truth['n_heads'] / len(result['heads']):.3f}", "")
        )
        head = ["method", "uses", "node AUC", "average precision", "CPU s after the capture"]
        lines += [*markdown(head, rows), ""]
    known = {None: "", True: "yes", False: "no"}
    rows = [
        (
            f"a{row['layer']}.h{row['head']}",
            *("" if row[key] is None else f"{row[key]:.3f}" for key in WAYS),
            known[row["in_circuit"]],
        )
        for row in result["heads"][:shown]
    ]
    return [*lines, *markdown(["head", *WAYS.values(), "in the reference"], rows)]

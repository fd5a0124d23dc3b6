"""`circuit-toolkit heads`: score the heads of a task by their codes, against the truth if known."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from circuit_toolkit.cli.output import bundled_task, markdown, warn, write, write_json
from circuit_toolkit.errors import InputError

OURS = "head codes"


def run_heads(args: argparse.Namespace) -> None:
    """Score heads and print what came out."""
    from circuit_toolkit.benchmark.heads.reference import known_heads
    from circuit_toolkit.head_codes import HeadCodes
    from circuit_toolkit.models import load_model

    make = bundled_task(args.task)
    model = load_model(args.model)
    task = make(model, n=args.n, seed=args.seed)
    codes = HeadCodes(n_seeds=args.seeds, seed=args.seed)
    known = known_heads(model, args.task)
    if known is None:
        warn(
            f"No circuit of {args.task!r} is known in {args.model!r}, so scores stand without "
            "a comparison: null."
        )
    fit, result = (_alone if known is None else _compared)(model, task, codes, known)
    found = {"heads": _heads(fit, known), "settings": fit.settings}
    found |= _tested(fit, model, make(model, n=64, seed=args.seed + 1, test=True))
    result = {"task": args.task, "model": args.model, "n": len(task), **result, **found}
    if args.json:
        write_json(result)
    else:
        write(*_lines(result))


def _compared(model: Any, task: Any, codes: Any, known: Any) -> tuple[Any, dict[str, Any]]:
    """Scores beside those of other ways, and how well all agree with the truth."""
    from circuit_toolkit.benchmark.heads.comparison import compare_heads

    progress = sys.stderr.isatty()
    found = compare_heads(model, task, known.mask, codes, edges=known.edges, progress=progress)
    rows = {row["method"]: row for row in found.rows}
    ours, patching = rows[OURS], rows["activation patching"]
    return found.fit, {
        "truth": {"source": known.source, "n_heads": int(known.mask.sum())},
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
    }


def _alone(model: Any, task: Any, codes: Any, _: Any) -> tuple[Any, dict[str, Any]]:
    """Scores where no truth is known."""
    from circuit_toolkit.activations.capturing import capture

    acts = capture(model, "head_out", task, codes.positions, progress=False)
    began, cpu = time.perf_counter(), time.process_time()
    fit = codes.fit(acts, task)
    used = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    nothing = ("truth", "node_auc", "node_ap", "precision", "recall", "f1", "edge_auc")
    nothing += ("baselines", "uses", "patching_seconds", "patching_cpu_seconds")
    return fit, dict.fromkeys(nothing) | used


def _heads(fit: Any, known: Any) -> list[dict[str, Any]]:
    """All heads, the highest score first."""
    rows = fit.table().to_dict("records")
    for row in rows:
        where = fit.layers.index(row["layer"]), row["head"]
        row["in_circuit"] = None if known is None else bool(known.mask[where])
    return rows


def _tested(fit: Any, model: Any, held_out: Any) -> dict[str, Any]:
    """Ablate the heads with at least half the highest score, on held-out prompts."""
    from circuit_toolkit.evidence import evaluate

    circuit = fit.predict(threshold=0.5)
    try:
        circuit = evaluate(circuit, model, None, held_out, progress=False)
    except InputError as error:
        warn(f"The circuit was not tested: {error}")
    names = circuit.nodes["label"][:-1].tolist()
    return {"circuit": names, "evidence": circuit.evidence, "summary": circuit.summary()}


def _lines(result: dict[str, Any], shown: int = 10) -> Sequence[str]:
    """Describe the result in words and tables."""
    lines = [
        f"{result['task']} on {result['model']}, {result['n']} prompts with corrupted prompts",
        "",
    ]
    if result["truth"]:
        truth, auc, ap = result["truth"], result["node_auc"], result["node_ap"]
        lines += [
            f"Truth: {truth['n_heads']} heads, {truth['source']}",
            f"Head codes: ROC AUC {auc['mean']:.3f} ± {auc['spread']:.3f}, average precision "
            f"{ap['mean']:.3f} ± {ap['spread']:.3f} over seeds; of as many heads as are true, "
            f"precision {result['precision']:.2f}, recall {result['recall']:.2f}; pairs of heads: "
            f"ROC AUC {result['edge_auc']:.3f}",
            f"{result['cpu_seconds']:.1f} CPU s after the capture; activation patching "
            f"{result['patching_cpu_seconds']:.1f} CPU s",
            "",
        ]
        every = {OURS: auc["mean"], **result["baselines"]}
        rows = [
            (name, result["uses"][name], f"{every[name]:.3f}")
            for name in sorted(every, key=lambda name: -every[name])
        ]
        lines += [*markdown(["method", "uses", "node AUC"], rows), ""]
    known = {None: "", True: "yes", False: "no"}
    rows = [
        (
            f"a{row['layer']}.h{row['head']}",
            *(f"{row[name]:.3f}" for name in ("score", "spread")),
            known[row["in_circuit"]],
        )
        for row in result["heads"][:shown]
    ]
    lines += [*markdown(["head", "score", "spread", "in the true circuit"], rows), ""]
    what, *evidence = result["summary"]
    return [*lines, f"Heads with at least half the highest score: {what}", *evidence]

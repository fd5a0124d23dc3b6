"""`circuit-toolkit demo`: from prompts to a tested circuit, in files."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.circuit.evidence import tone_of
from circuit_toolkit.cli.model import asked_model
from circuit_toolkit.cli.output import bundled_task, warn, write, write_json
from circuit_toolkit.errors import InputError

if TYPE_CHECKING:
    from circuit_toolkit.tasks.task import Task

# Two sites: what passes through a site is coded anew there, so each adds features and error.
SITES = ("resid_post 2", "resid_post 4")  # of the bundled model


def run_find(args: argparse.Namespace) -> int:
    """Find a circuit, test it on held-out prompts, draw it, and report."""
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - began, 2)
        if not args.json:
            warn(f"{seconds[name]:6.1f} s  {name}")

    with stage("load the libraries"):
        from circuit_toolkit.activations.capturing import capture
        from circuit_toolkit.dictionaries import load_dictionaries
        from circuit_toolkit.evidence import find_circuit
        from circuit_toolkit.features import named_features
        from circuit_toolkit.files.checks import check_folder, existing_file

        make = bundled_task(args.task)
        if args.prompts is not None:
            existing_file(args.prompts, "Pass a table of prompts: .csv, .tsv or JSON lines.")
        check_folder(args.out)
    with stage("load the model and its dictionaries"):
        model, bundled = asked_model(args), args.model == "demo"
        sites = SITES if bundled and not args.sites and not args.dictionaries else args.sites
        saes = load_dictionaries(model, args.dictionaries, sites=sites)
        task, held_out = _prompts(args, model, make, 256 if bundled else 64)
    with stage(f"name the features at {len(saes)} sites by {len(task.texts)} prompts"):
        acts = capture(model, saes, task, progress=not args.json)
        labels = named_features(model, saes, acts)
    with stage("find the smallest circuit that holds, and test it on held-out prompts"):
        circuit = find_circuit(model, saes, task, held_out, labels=labels, progress=not args.json)
    with stage("draw"):
        args.out.mkdir(parents=True, exist_ok=True)
        files = {
            "circuit.html": str(circuit.to_html(args.out / "circuit.html")),
            "circuit.json": str(circuit.save(args.out / "circuit.json")),
        }
    found, edges = circuit.evidence["ablation"], circuit.evidence["edges"]
    shares = ("faithfulness", "completeness")
    nodes = circuit.node_table().iloc[:-1].nlargest(8, "score").round(4)
    strongest = circuit.edge_table().query("status == 'confirmed'").head(8).round(4)
    result = {
        "model": args.model,
        "task": task.name,
        "n_nodes": len(circuit.nodes) - 1,
        "n_edges": len(circuit.edges),
        **{name: found[name] for name in shares},
        "ceiling": 1 - found["metric_empty"] / found["metric_model"],
        **{f"random_{name}": float(np.mean(found[f"random_{name}"])) for name in shares},
        "edges": {name: edges[name] for name in ("confirmed", "refuted", "untested")},
        "verdict": circuit.verdict,
        "seconds": round(sum(seconds.values()), 2),
        "stages": seconds,
        "evidence": circuit.evidence,
        "top_nodes": nodes.to_dict("records"),
        "top_edges": strongest.drop(columns="score").to_dict("records"),
        "files": files,
    }
    if args.json:
        write_json(result)
    else:
        write(*_report(circuit, _example(model, task), result))
    return int(tone_of(circuit.evidence) == "error")


def _prompts(args: argparse.Namespace, model: Any, make: Any, usual: int) -> tuple[Task, Task]:
    """Return prompts to learn from and prompts to test on: of a bundled task, or of a table."""
    from circuit_toolkit.tasks.task import Task

    n = args.n or usual
    if args.prompts is None:
        return make(model, n=n, seed=0), make(model, n=n, seed=1, test=True)
    given: Any = Task.from_table(model, args.prompts)
    task: Task = given.solved_by(model)
    if not args.json and len(task) < len(given):
        warn(f"{args.prompts.name}: the model solves {len(task)} of {len(given)} prompts")
    if len(task) < 4:
        raise InputError(
            f"{args.prompts.name} has {len(task)} prompts that the model solves. A circuit is "
            "learnt from half of them and tested on the others: pass 4 or more."
        )
    return task.select(range(len(task))[::2][:n]), task.select(range(len(task))[1::2][:n])


def _example(model: Any, task: Any) -> str:
    """Describe the first prompt with its answers and the wrong ones, of many the first and last."""
    right, wrong = (
        " to ".join(dict.fromkeys(model.word(ids[i]) for i in (0, -1)))
        for ids in (task.answers[0], task.wrong[0])
    )
    return f"{task.clean[0]} … {right}, not {wrong}"


def _report(circuit: Any, example: str, result: dict[str, Any]) -> list[str]:
    """Return what was found, in words."""
    return [
        "",
        f"An example: {example} (metric: {circuit.settings['target']})",
        "",
        "Features whose ablation alone costs most (share of the metric)",
        *(
            f"  {row['score']:.3f}  {row['site']:>13} #{row['index']:<4} at {row['position']:<9} "
            f"{row['label']}"
            for row in result["top_nodes"]
        ),
        "",
        "Strongest confirmed edges (share of the target that goes without the source)",
        *(
            f"  {row['weight']:+.2f}  {row['source']} ({row['source_label']})  →  "
            f"{row['target']} ({row['target_label']})"
            for row in result["top_edges"]
        ),
        "",
        *(f"  {line}" for line in circuit.summary()),
        f"  All features of these sites together hold {result['ceiling']:.2f} of the metric.",
        "",
        f"Open {result['files']['circuit.html']} in a browser; circuit.json holds the tables.",
    ]

"""`circuit-toolkit demo`: from prompts to a tested circuit of the bundled model, in files."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from circuit_toolkit.cli.output import bundled_task, write, write_json


def run_demo(args: argparse.Namespace) -> None:
    """Learn a circuit, test it on held-out prompts, draw it, and report."""
    seconds: dict[str, float] = {}
    say: Callable[..., None] = (lambda *lines: None) if args.json else write

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - began, 2)
        say(f"{seconds[name]:6.1f} s  {name}")

    with stage("load the libraries"):
        from circuit_toolkit.activations.capturing import capture
        from circuit_toolkit.circuit_lasso.estimator import CircuitLasso
        from circuit_toolkit.dictionaries import load_dictionaries
        from circuit_toolkit.evidence import evaluate
        from circuit_toolkit.features import named_features
        from circuit_toolkit.files.checks import check_folder
        from circuit_toolkit.models import load_model

        make = bundled_task(args.task)
        check_folder(args.out)
    with stage("load the model and its dictionaries"):
        model = load_model("demo")
        saes = load_dictionaries(model)
        task, held_out = make(model, n=512, seed=0), make(model, n=128, seed=1, test=True)
    with stage(f"capture {len(task.texts)} prompts at {len(saes)} sites"):
        acts = capture(model, saes, task, progress=not args.json)
    with stage("fit the path of strengths"):
        labels = named_features(model, saes, acts)
        fit = CircuitLasso().fit(acts, target=task, labels=labels)
        circuit = fit.circuit(strength=0.1)
    with stage("test by ablation on held-out prompts, against 20 random sets"):
        circuit = evaluate(circuit, model, saes, held_out, fit.rows, progress=not args.json)
    with stage("draw"):
        args.out.mkdir(parents=True, exist_ok=True)
        files = {
            "circuit.html": str(circuit.to_html(args.out / "circuit.html")),
            "circuit.json": str(circuit.save(args.out / "circuit.json")),
        }
    nodes = circuit.node_table().iloc[:-1].nlargest(8, "score").round(4)
    edges = circuit.edge_table().head(8).drop(columns="score").round(4)
    result = {
        "task": args.task,
        "seconds": seconds,
        "features": len(circuit.nodes) - 1,
        "edges": len(circuit.edges),
        "evidence": circuit.evidence,
        "top_features": nodes[["site", "index", "label", "score"]].to_dict("records"),
        "top_edges": edges.to_dict("records"),
        "files": files,
    }
    if args.json:
        write_json(result)
    else:
        write(*_report(circuit, _example(model, task), result))


def _example(model: Any, task: Any) -> str:
    """Describe the first prompt with its answers and the wrong ones, of many the first and last."""
    right, wrong = (
        " to ".join(dict.fromkeys(model.tokenizer.decode([ids[i]]) for i in (0, -1)))
        for ids in (task.answers[0], task.wrong[0])
    )
    return f"{task.clean[0]} … {right}, not {wrong}"


def _report(circuit: Any, example: str, result: dict[str, Any]) -> list[str]:
    """Return what was found, in words."""
    files = result["files"]
    return [
        "",
        f"An example: {example} (metric: {circuit.settings['target']})",
        "",
        "Strongest features (share of the relevance that reaches the target)",
        *(
            f"  {row['score']:.3f}  {row['site']:>13} #{row['index']:<4} {row['label']}"
            for row in result["top_features"]
        ),
        "",
        "Strongest edges (weight in standardised units)",
        *(
            f"  {row['weight']:+.2f}  {row['source']} ({row['source_label']})  →  "
            f"{row['target']} ({row['target_label']})"
            for row in result["top_edges"]
        ),
        "",
        "Evidence",
        *(f"  {line}" for line in circuit.summary()),
        "",
        f"Open {files['circuit.html']} in a browser; the tables are in {files['circuit.json']}.",
    ]

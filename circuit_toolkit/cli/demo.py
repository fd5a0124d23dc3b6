"""`circuit-toolkit demo`: from prompts to a tested circuit of the bundled model, in files."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from circuit_toolkit.errors import InputError


class _Stages:
    """Stages with their seconds, said as they end unless the output is to be JSON."""

    def __init__(self, quiet: bool) -> None:
        self.seconds: dict[str, float] = {}
        self.quiet = quiet

    def say(self, line: str = "") -> None:
        if not self.quiet:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 2)
        self.say(f"{self.seconds[name]:6.1f} s  {name}")


def demo(task_name: str, out: Path, as_json: bool) -> None:
    """Learn a circuit, test it, draw it, and say so."""
    stages = _Stages(as_json)
    with stages.stage("load the libraries"):
        from circuit_toolkit.activations.capturing import capture
        from circuit_toolkit.circuit_lasso.estimator import CircuitLasso
        from circuit_toolkit.dictionaries import load_dictionaries
        from circuit_toolkit.evidence import evaluate
        from circuit_toolkit.features import named_features
        from circuit_toolkit.files.checks import check_folder
        from circuit_toolkit.models import load_model
        from circuit_toolkit.tasks import BUNDLED

        if task_name not in BUNDLED:
            known = ", ".join(BUNDLED)
            raise InputError(f"Unknown task {task_name!r}. Use one of {known}.")
        check_folder(out)
        make = BUNDLED[task_name]
    with stages.stage("load the model and its dictionaries"):
        model = load_model("demo")
        saes = load_dictionaries(model)
        task, held_out = make(model, n=512, seed=0), make(model, n=128, seed=1, test=True)
    with stages.stage(f"capture {len(task.texts)} prompts at {len(saes)} sites"):
        acts = capture(model, saes, task, progress=not as_json)
    with stages.stage("fit the path of strengths"):
        labels = named_features(model, saes, acts)
        fit = CircuitLasso().fit(acts, target=task, labels=labels)
        circuit = fit.circuit(strength=0.1)
    with stages.stage("test by ablation, against 20 random sets"):
        circuit = evaluate(circuit, model, saes, held_out, fit.rows, progress=not as_json)
    with stages.stage("draw"):
        out.mkdir(parents=True, exist_ok=True)
        files = {
            "circuit.html": circuit.to_html(out / "circuit.html"),
            "circuit.json": circuit.save(out / "circuit.json"),
        }
    result = {
        "task": task_name,
        "seconds": stages.seconds,
        "features": len(circuit.nodes) - 1,
        "edges": len(circuit.edges),
        "evidence": circuit.evidence,
        "top_features": _top_features(circuit),
        "top_edges": _top_edges(circuit),
        "files": {name: str(path) for name, path in files.items()},
    }
    if as_json:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
    else:
        _report(stages, circuit, _example(model, task), result)


def _top_features(circuit: Any, n: int = 8) -> list[dict[str, Any]]:
    table = circuit.node_table().iloc[:-1].nlargest(n, "score")
    return table[["site", "feature", "label", "score"]].round(4).to_dict("records")


def _top_edges(circuit: Any, n: int = 8) -> list[dict[str, Any]]:
    table = circuit.edge_table().head(n).drop(columns="score")
    return table.round(4).to_dict("records")


def _example(model: Any, task: Any) -> str:
    """Describe the first prompt with its answers and the wrong ones, of many the first and last."""
    right, wrong = (
        " to ".join(dict.fromkeys(model.tokenizer.decode([ids[i]]) for i in (0, -1)))
        for ids in (task.answers[0], task.wrong[0])
    )
    return f"{task.clean[0]} … {right}, not {wrong}"


def _report(stages: _Stages, circuit: Any, example: str, result: dict[str, Any]) -> None:
    """Return what was found, in words."""
    stages.say()
    stages.say(f"An example: {example} (metric: {circuit.settings['target']})")
    stages.say()
    stages.say("Strongest features (share of the relevance that reaches the target)")
    for row in result["top_features"]:
        stages.say(f"  {row['score']:.3f}  {row['site']:>13} #{row['feature']:<4} {row['label']}")
    stages.say()
    stages.say("Strongest edges (weight in standardised units)")
    for row in result["top_edges"]:
        left = f"{row['source']} ({row['source_label']})"
        right = f"{row['target']} ({row['target_label']})"
        stages.say(f"  {row['weight']:+.2f}  {left}  →  {right}")
    stages.say()
    stages.say("Evidence")
    for line in circuit.summary():
        stages.say(f"  {line}")
    stages.say()
    stages.say(
        f"Open {result['files']['circuit.html']} in a browser; the tables are in "
        f"{result['files']['circuit.json']}."
    )

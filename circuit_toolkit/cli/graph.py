"""`circuit-toolkit graph`: the attribution graph of a prompt, as a page and as files."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from circuit_toolkit.cli.model import asked_model
from circuit_toolkit.cli.output import write, write_json

PROMPTS = 60  # of each bundled task, from which the features of the bundled model have their names


def run_graph(args: argparse.Namespace) -> None:
    """Draw the graph of a prompt, write it, and report."""
    from circuit_toolkit.attribution.graph import attribution_graph
    from circuit_toolkit.dictionaries import load_dictionaries
    from circuit_toolkit.files.checks import check_folder
    from circuit_toolkit.views.graph.scene import READABLE

    check_folder(args.out)
    model = asked_model(args)
    transcoders = load_dictionaries(model, args.transcoders, kind="transcoder")
    labels = _labels(model, transcoders) if args.model == "demo" else None
    began = time.perf_counter()
    circuit = attribution_graph(
        model,
        transcoders,
        args.prompt,
        targets=args.target,
        position=args.position,
        max_features=args.max_features,
        labels=labels,
        progress=not args.json and sys.stderr.isatty(),
    )
    seconds = time.perf_counter() - began
    args.out.mkdir(parents=True, exist_ok=True)
    files = {
        "graph.html": str(circuit.prune(**READABLE).to_html(args.out / "graph.html")),
        "graph.json": str(circuit.save(args.out / "graph.json")),
        "neuronpedia.json": str(circuit.to_neuronpedia(args.out / "neuronpedia.json")),
    }
    found = circuit.evidence["attribution"]
    result = {
        "prompt": args.prompt,
        "model": model.name,
        "target": circuit.settings["target"],
        "n_nodes": len(circuit.nodes),
        "n_edges": len(circuit.edges),
        "n_active": circuit.settings["n_active"],
        **{name: found[name] for name in ("replacement", "completeness", "largest_error")},
        "seconds": round(seconds, 3),
        "peak_mb": round(_peak_mb(), 1),
        "files": files,
    }
    write_json(result) if args.json else write(*_report(circuit, result))


def _labels(model: Any, transcoders: Any) -> Any:
    """Name the features of the bundled model by the words on which they fire in bundled tasks."""
    from circuit_toolkit.activations.capturing import capture
    from circuit_toolkit.features.labels import feature_labels
    from circuit_toolkit.tasks import BUNDLED

    texts = [text for make in BUNDLED.values() for text in make(model, n=PROMPTS).clean]
    return feature_labels(capture(model, transcoders, texts, progress=False))


def _peak_mb() -> float:
    """Peak resident memory of the process, in MB; macOS counts bytes, Linux kB."""
    import resource  # not on Windows, where the other commands work

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _report(circuit: Any, result: dict[str, Any]) -> list[str]:
    """Return what was found, in words."""
    nodes = circuit.node_table()
    features = nodes[nodes["kind"] == "feature"].nlargest(8, "score")
    words = circuit.settings["tokens"]
    return [
        f"“{result['prompt']}” → {', '.join(result['target'])}",
        "",
        "Features of the largest influence (share of all)",
        *(
            f"  {row.score:.3f}  {row.id}  on “{words[int(row.position)].strip()}”  {row.label}"
            for row in features.itertuples()
        ),
        "",
        *(f"  {line}" for line in circuit.summary()),
        f"  {result['seconds']:.2f} s, {result['n_active']} active features",
        "",
        f"Open {result['files']['graph.html']} in a browser (its strongest nodes); graph.json has "
        "all, neuronpedia.json is for the field's viewers.",
    ]

"""The attribution graph of a prompt by circuit_toolkit, measured as its peer is.

    python -m benchmarks.peers.our_graph JOB.json OUT.npz

The job is `circuit_tracer_graph`'s, and says `positions`, how many the bundled model has, and
`max_inputs` (null: the default).
"""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

import circuit_toolkit as ct
from benchmarks.peers.exported import with_positions
from benchmarks.peers.graphs import ERROR, FEATURE, TARGET, TOKEN, Graph
from benchmarks.peers.process import timed
from circuit_toolkit.attribution.graph.engine import PromptGraph, attribute
from circuit_toolkit.attribution.graph.pruning import graph_scores, pruned
from circuit_toolkit.sites import Site

KINDS = {"feature": FEATURE, "error": ERROR, "token": TOKEN, "target": TARGET}


def keys(graph: PromptGraph, n_layers: int, n_tokens: int) -> np.ndarray:
    """Kind, layer, position and index of each node, shape (n, 4)."""
    found = []
    for kind, site, position, index in graph.nodes[["kind", "site", "position", "index"]].tolist():
        if kind == "target":
            layer, position = n_layers, n_tokens - 1
        else:
            layer = 0 if kind == "token" else Site.parse(site).layer
        found.append((KINDS[kind], layer, int(position), index))
    return np.array(found)


def main(job_file: str, out: str) -> None:
    """Run one job, and write the graph with what it cost."""
    job = json.loads(Path(job_file).read_text())
    torch.set_num_threads(job["threads"])
    demo = ct.load_model("demo")
    transcoders = ct.load_dictionaries(demo, kind="transcoder")
    model = with_positions(demo, job["positions"])
    ids = torch.tensor(job["ids"])
    limits = {name: job[name] for name in ("max_features", "max_inputs") if job[name] is not None}
    graph, costs = timed(lambda: attribute(model, transcoders, ids, **limits), job["repeats"])
    is_kind = {kind: graph.nodes["kind"] == kind for kind in KINDS}
    always = is_kind["token"] | is_kind["target"]
    kept, prune = [], {}
    for i, pair in enumerate(job["thresholds"]):
        prune_graph = partial(pruned, graph.adjacency, graph.weights, always, is_kind["feature"])
        each, prune[str(i)] = timed(partial(prune_graph, *pair), 1)
        kept.append(each)
    scores, scoring = timed(
        lambda: graph_scores(graph.adjacency, graph.weights, is_kind["token"], is_kind["error"]),
        1,
    )
    named = keys(graph, model.n_layers, len(ids))
    Graph(
        keys=named,
        adjacency=graph.adjacency,
        activations=graph.nodes["activation"][is_kind["feature"]],
        n_active=len(graph.active),
        probabilities=graph.weights[is_kind["target"]],
        nodes=[each.nodes for each in kept],
        edges=[np.column_stack(each.edges.nonzero()) for each in kept],
        scores=np.array(scores),
        costs={"attribute": costs, "prune": prune, "score": scoring}
        | {"largest_error": graph.largest_error, "left_out": graph.left_out},
    ).write(Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""How many edges `randomised_lasso` has to patch on a large model, and what is to name them.

`python -m benchmarks.screened_edges [MODEL] [TASK] [PROMPTS]`, by default SmolLM2, docstring and 6:
so many prompts are seen, as many held out. A pool of edges that lead by gradients, relevance and
baselines is patched alone on both; then any choice of candidates is a choice among what is known.
Prints AP for the 100 strongest held-out edges. Needs the package of the model (`make real`).
"""

import contextlib
import sys

import numpy as np
import torch

import circuit_toolkit as ct
from circuit_toolkit.benchmark.methods import METHODS
from circuit_toolkit.benchmark.metrics import average_precision
from circuit_toolkit.benchmark.sampled_edges import TRUE, SampledEdges
from circuit_toolkit.circuit.components import edge_scores
from circuit_toolkit.circuit_lasso import randomised_edges
from circuit_toolkit.models.graph import graph_of

POOL = {"gradients": 800, "relevance": 300, "eap_ig_absolute": 400, "eap": 200, "gim_absolute": 200}
AT_RANDOM = 300
SIZES, SHARES = (0, 100, 200, 400, 800), (1.0, 0.75, 0.5)  # candidates; of them by gradients


class Screened(Exception):
    """Raised where candidates would be patched: what ranks them is known by then."""


def rankings(model, task) -> dict[str, np.ndarray]:
    """Score all edges by gradients, by relevance and by the baselines of the pool."""
    graph, found = graph_of(model), {}

    def note(model, task, gradients, relevance, *_):
        found["gradients"] = gradients[graph.allowed].numpy()
        found["relevance"] = relevance[graph.allowed].numpy()
        raise Screened

    randomised_edges.screened_circuit = note
    with contextlib.suppress(Screened):
        ct.randomised_lasso(model, task, swap="corrupted", screened=1, progress=False)
    for name in POOL.keys() - found.keys():
        circuit = METHODS[name](model, task, progress=False)
        found[name] = edge_scores(circuit, graph)[graph.allowed.numpy()]
    return found


def main() -> None:
    """Print AP by what is patched."""
    torch.set_num_threads(1)
    name, task_name, n = [*sys.argv[1:], *("smollm2", "docstring", "6")[len(sys.argv) - 1 :]]
    model, n = ct.load_model(name), int(n)
    task = ct.tasks.BUNDLED[task_name](model, n=2 * n, seed=0)
    seen, held_out = task.subset(n), task.select(range(n, 2 * n))
    by, rng = rankings(model, seen), np.random.default_rng(0)
    pool = np.unique(rng.permutation(len(by["gradients"]))[:AT_RANDOM])
    for way, size in POOL.items():
        pool = np.union1d(pool, np.argsort(-by[way])[:size])
    edges = SampledEdges(graph_of(model), pool, np.zeros(len(pool), dtype=bool))
    exact, truth = edges.patched(model, seen), edges.patched(model, held_out)
    true = np.isin(np.arange(len(pool)), np.argsort(-truth, kind="stable")[:TRUE])
    print(f"{task_name}: {n} prompts seen, {n} held out, {len(pool)} edges patched on both")
    print(f"exact patching: {average_precision(true, exact):.3f}")
    for way, scores in by.items():
        print(f"{way}: {average_precision(true, scores[pool]):.3f}")
    print("\n| patched | " + " | ".join(f"{share:.0%} by gradients" for share in SHARES) + " |")
    print("|---|" + "---|" * len(SHARES))
    for size in SIZES:
        cells = []
        for share in SHARES:
            first = np.argsort(-by["gradients"])[: round(share * size)]
            then = np.argsort(-by["relevance"])
            chosen = np.r_[first, then[~np.isin(then, first)][: size - len(first)]]
            scores = by["gradients"][pool].copy()
            known = np.isin(pool, chosen)  # one that is in no ranking of the pool stays unpatched
            scores[known] = exact[known]
            cells.append(f"{average_precision(true, scores):.3f}")
        print(f"| {size} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

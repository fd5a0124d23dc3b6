"""How far what an attribution graph says is from what the model does.

On prompts of the bundled tasks the 20 features of the largest influence are set to 0, one by one,
beside another active feature at the same site and token that the graph leaves out. What the metric
loses: `direct`, the edge to it; `graph`, along all drawn edges; `held`, measured with attention
patterns held; `free`, measured. Means of sizes over all features and prompts, Spearman's rank
correlation with `free`, and the share of features whose sign is that of `free`.
Prints rows for RESULTS.md.
"""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

import circuit_toolkit as ct

PROMPTS = 16
TASKS = ("ioi", "greater_than", "docstring", "agreement")


def table_of(model, transcoders, task):
    """Return the rows of all prompts."""
    rows = []
    for i in range(len(task)):
        graph = ct.attribution_graph(model, transcoders, task.select([i]), progress=False)
        found = ct.confirm_nodes(graph, model, transcoders, progress=False)
        rows += found.evidence["interventions"]["table"]
    return pd.DataFrame(rows)


def main():
    """Print a row for each task."""
    model = ct.load_model("demo")
    transcoders = ct.load_dictionaries(model, kind="transcoder")
    print("| task | features | direct | graph | held | free | others, free | ", end="")
    print("rank: direct | graph | held | sign: direct | graph | held |")
    print("|" + "---|" * 13)
    for name in TASKS:
        task = getattr(ct.tasks, name)(model, n=PROMPTS, seed=1, test=True)
        table = table_of(model, transcoders, task)
        drawn, others = table[table["drawn"]], table[~table["drawn"]]
        cells = [name, len(drawn)]
        ways = ("direct", "graph", "held")
        free = drawn["free"]
        cells += [f"{drawn[way].abs().mean():.3f}" for way in (*ways, "free")]
        cells += [f"{others['free'].abs().mean():.3f}"]
        cells += [f"{spearmanr(drawn[way].astype(float), free)[0]:.2f}" for way in ways]
        same = [np.sign(drawn[way].astype(float)) == np.sign(free) for way in ways]
        cells += [f"{each.mean():.2f}" for each in same]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()

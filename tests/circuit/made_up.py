"""A made-up circuit that looks like one a method finds, for tests and for looking at views."""

import numpy as np

from circuit_toolkit.circuit import TARGET, Circuit, new_edges, new_nodes
from circuit_toolkit.sites import Site

WORDS = [
    *("Mary, John, Tom", "gave, handed, passed", "to, for, from", "the store, the park"),
    *("and, with, then", "Alice, Bob", "drink, ring, bag", "When, While, After", "she, he, they"),
    *("went, walked, drove", "second name in the sentence", "last token before the answer"),
    *("names that were seen twice", "kitchen, garden, school, office", "comma after a clause"),
    *(
        ". , ! ?",
        "had, has",
        "Sarah, Emily, Kate",
        "a, an",
        "present, gift, letter, parcel, basket",
    ),
]
SITES = [Site("resid_pre", 0), *(Site("resid_post", layer) for layer in range(6))]


def made_up_circuit(n=40, e=110, sites=SITES, seed=0, evidence=True, label=None):
    """`n` features over `sites` and about `e` edges; every feature reaches the target."""
    rng = np.random.default_rng(seed)
    nodes = new_nodes(n + 1)
    column = np.sort(np.concatenate([np.arange(len(sites)), rng.integers(0, len(sites), n)])[:n])
    nodes["site"][:n] = [str(sites[c]) for c in column]
    nodes["index"][:n] = rng.permutation(4096)[:n]
    nodes["activation"][:n] = rng.gamma(2, 1.5, n)
    nodes["score"][:n] = rng.gamma(1, 1, n)
    nodes["label"][:n] = [label or WORDS[i % len(WORDS)] for i in rng.permutation(n)]
    nodes[n] = (TARGET, TARGET, "", 0, 3.2, nodes["score"].max(), "logit difference")
    column = np.append(column, len(sites))
    steps = column[None, :] - column[:, None]  # (n + 1, n + 1), source x target
    weight = np.where(steps > 0, rng.random(steps.shape) ** (0.6 * np.maximum(steps, 1)), 0)
    edges = {(i, int(np.argmax(weight[i]))) for i in range(n)}  # each feature drives something
    for pair in np.argsort(-weight, axis=None):
        if len(edges) >= e or weight.flat[pair] == 0:
            break
        edges.add((int(pair // (n + 1)), int(pair % (n + 1))))
    table = new_edges(len(edges))
    for row, (source, target) in enumerate(sorted(edges)):
        size = rng.gamma(1.2, 0.25)
        sign = rng.choice([1, -1], p=[0.75, 0.25])
        table[["source", "target", "weight", "score"]][row] = (source, target, sign * size, size)
    found = {
        "fit": {"held_out_r2": 0.83, "train_r2": 0.86},
        "ablation": {
            "evaluated_on": {
                **{"task": "ioi", "metric": "logit_difference", "split": "held-out", "seed": 1},
                **{"n": 128, "seen": 0, "model": "demo"},
            },
            **{"ablation": "mean", "ablated_positions": "last", "errors": "kept"},
            **{"unit": "feature", "size": n},
            **{"metric_model": 5.1, "metric_empty": 0.1, "metric_circuit": 4.15},
            **{"metric_others": 0.5, "faithfulness": 0.81, "completeness": 0.08},
            "random_faithfulness": np.clip(rng.normal(0.11, 0.04, 20), 0, 1).tolist(),
            "random_completeness": np.clip(rng.normal(0.89, 0.04, 20), 0, 1).tolist(),
            "random_seed": 0,
        },
    }
    settings = {"method": "circuit_lasso", "strength": 0.1, "model": "demo", "task": "ioi"}
    settings |= {
        "n": 512,
        "level": "features",
        "scope": "dataset",
        "sites": [str(site) for site in sites],
    }
    return Circuit(nodes, table, settings, found if evidence else {})

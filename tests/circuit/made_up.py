"""A made-up circuit that looks like one a method finds, for tests and for looking at views."""

import numpy as np

from circuit_toolkit.circuit import TARGET, Circuit, new_edges, new_nodes
from circuit_toolkit.circuit.tables import depths
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


PROMPT = [
    *("<s>", "When", "Mary", "and", "John", "went", "to", "the", "store", ",", "John", "gave"),
    *("a", "drink", "to"),
]


def made_up_attribution(n=40, e=120, tokens=PROMPT, layers=6, seed=0, targets=("Mary",)):
    """An attribution graph of one prompt: `n` features, a few errors, the words below them."""
    rng = np.random.default_rng(seed)
    last, width = len(tokens) - 1, rng.gamma(0.6, 1, len(tokens)) + 0.05
    width[-1] = width[1:].sum() / 2  # much happens at the last token
    width[0] = 0
    place = rng.choice(len(tokens), n, p=width / width.sum())
    layer = rng.integers(0, layers, n)
    features = new_nodes(
        n,
        site=[str(Site("mlp_in", at)) for at in layer.tolist()],
        position=place.astype(str),
        index=rng.permutation(4096)[:n],
        activation=rng.gamma(2, 1.5, n),
        score=rng.gamma(1, 0.05, n),
        label=[WORDS[i % len(WORDS)] if i % 3 else "" for i in range(n)],
    )
    spots = sorted({(int(layer[i]), int(place[i])) for i in rng.permutation(n)[: n // 5]})
    errors = new_nodes(
        len(spots),
        "error",
        site=[str(Site("mlp_out", at)) for at, _ in spots],
        position=[str(at) for _, at in spots],
        activation=1,
        score=rng.gamma(1, 0.02, len(spots)),
        label="error",
    )
    inner = np.concatenate([features, errors])
    inner = inner[np.argsort(depths(inner["site"]), kind="stable")]
    used = sorted({int(at) for at in inner["position"]})
    words = new_nodes(
        len(used),
        "token",
        position=[str(at) for at in used],
        index=[7 + at for at in used],
        activation=1,
        score=0.1,
        label=[tokens[at] for at in used],
    )
    ends = new_nodes(
        len(targets), TARGET, index=5, activation=12.5, score=1 / len(targets), label=list(targets)
    )
    nodes = np.concatenate([words, inner, ends])
    column = np.array([int(p) if p else last for p in nodes["position"]])
    depth = depths(nodes["site"])
    reads = ~np.isin(nodes["kind"], ("token", "error"))  # these have no inputs
    allowed = (depth[:, None] < depth) & (column[:, None] <= column) & reads
    strength = np.where(allowed, rng.random(allowed.shape) ** 2, 0)
    strength *= 1 + (column[:, None] == column)
    strength[:, nodes["kind"] == TARGET] *= 1.6
    pairs = {(i, int(np.argmax(strength[i]))) for i in range(len(nodes) - len(targets))}
    for pair in np.argsort(-strength, axis=None):
        if len(pairs) >= e or not strength.flat[pair]:
            break
        pairs.add(divmod(int(pair), len(nodes)))
    source, target = np.array(sorted(pairs)).T
    size = rng.gamma(0.7, 0.4, len(source))
    sign = rng.choice([1, -1], p=[0.75, 0.25], size=len(source))
    edges = new_edges(len(source), source=source, target=target, weight=sign * size, score=size)
    drawn = inner[inner["kind"] == "feature"]
    active = {
        f"{site}/{index}": {at: round(float(value), 3), "1": 0.25}
        for site, index, at, value in drawn[["site", "index", "position", "activation"]].tolist()
    }
    made = {
        **{"method": "attribution_graph", "level": "features", "scope": "prompt", "model": "demo"},
        **{"prompt": " ".join(tokens[1:]), "tokens": list(tokens), "target": list(targets)},
        **{"token_ids": [7 + at for at in range(len(tokens))], "node_share": 0.8},
        "probabilities": [0.62 / 2**i for i in range(len(targets))],
        "transcoders": {str(Site("mlp_in", at)): "demo" for at in range(layers)},
        **{"edge_share": 0.98, "max_features": None, "n_active": 812, "n_attributed": 812},
        "activations": active,
    }
    scores = {"replacement": 0.31, "completeness": 0.62, "largest_error": 2e-7, "n": 1}
    return Circuit(nodes, edges, made, {"attribution": scores})

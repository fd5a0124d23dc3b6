"""An attribution graph made by hand: tokens, features and errors at token positions, two logits."""

import numpy as np

from circuit_toolkit.circuit import TARGET, Circuit, new_edges, new_nodes

TOKENS = ["<bos>", "When", " Mary", " and", " John"]
EARLY, LATE = "blocks.0.ln2.hook_normalized", "blocks.2.ln2.hook_normalized"
SAYS_JOHN, SAYS_NAME, AT_MARY = f"{LATE}/17@4", f"{LATE}/3@4", f"{EARLY}/5@2"


def prompt_graph(**settings) -> Circuit:
    """Return it; one edge is tested, two features and an error are in supernodes."""
    words = new_nodes(5, "token", position=list("01234"), index=[0, 8, 21, 9, 34], activation=1.0)
    words["label"] = [token.strip() for token in TOKENS]
    inner = new_nodes(
        6,
        ["feature", "feature", "error", "feature", "feature", "error"],
        site=[EARLY, EARLY, "blocks.0.hook_mlp_out", LATE, LATE, "blocks.2.hook_mlp_out"],
        position=["2", "4", "3", "4", "4", "4"],
        index=[5, 5, 0, 17, 3, 0],
        activation=[1.25, 0.1, 0, 3.7, -0.5, 0],  # a difference of prompts has negative ones
        label=["Mary", "", "error", 'says "John"', "a name", "error"],
    )
    ends = new_nodes(2, TARGET, label=["John", "Mary"], index=[34, 21], activation=[9.5, 8.25])
    nodes = np.concatenate([words, inner, ends])
    nodes["score"][5:11] = [0.31, 0.02, 0.1, 0.25, 0.125, 0.05]
    nodes["score"][:5] = [0.01, 0, 0.1, 0.005, 0.03]
    nodes["score"][11:] = 1
    pairs = [(2, 5), (4, 6), (1, 5), (5, 8), (6, 8), (7, 9), (5, 9), (8, 11), (9, 11), (9, 12)]
    pairs += [(10, 11), (2, 12), (4, 11)]
    source, target = np.array(pairs).T
    weight = np.random.default_rng(0).normal(size=len(pairs)).astype("f4")
    edges = new_edges(
        len(pairs), source=source, target=target, weight=weight, score=np.abs(weight) / 10
    )
    edges[["status", "low", "high"]][3] = ("confirmed", -0.5, 1.5)
    given = {
        **{"method": "attribution_graph", "level": "features", "scope": "prompt", "model": "demo"},
        **{"prompt": "When Mary and John", "tokens": TOKENS, "token_ids": [0, 8, 21, 9, 34]},
        "transcoders": {EARLY: "demo: transcoder-0", LATE: "demo: transcoder-2"},
        **{"target": ["John", "Mary"], "probabilities": [0.6, 0.3]},
        **{"node_share": 0.8, "edge_share": 0.98, "max_features": None, "n_active": 40},
        "activations": {f"{LATE}/17": {"4": 3.7, "2": 0.5}},
    }
    found = {"attribution": {"replacement": 0.7, "completeness": 0.9, "n": 1}}
    circuit = Circuit(nodes, edges, given | settings, found)
    return circuit.group("names", [SAYS_JOHN, AT_MARY]).group(
        "rest", ["blocks.0.hook_mlp_out/error@3"]
    )

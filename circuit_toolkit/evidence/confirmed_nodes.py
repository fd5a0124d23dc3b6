"""Does what a graph calls important matter? Features of one prompt are ablated one by one.

An attribution graph holds attention patterns, norm factors and which features are active. The model
holds none of them: how far what it does is from what the graph says is measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.stats import spearmanr
from torch import Tensor

from circuit_toolkit.arguments import expect, whole
from circuit_toolkit.attribution.graph.pruning import along_paths
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions.changes import Change
from circuit_toolkit.interventions.runs import intervene, intervene_each
from circuit_toolkit.interventions.steering import circuit_prompt, dictionaries_of, target_values
from circuit_toolkit.models import Batch, Model, run
from circuit_toolkit.sites import Site

_Unit = tuple[Site, int, int]  # site, token, feature


def confirm_nodes(
    circuit: Circuit,
    model: Model,
    dictionaries: Mapping[Site, Dictionary] | None = None,
    *,
    n: int = 20,
    random: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> Circuit:
    """Set the features of the largest influence to 0, one by one, in the model itself.

    Parameters
    ----------
    circuit : Circuit
        Of one prompt, from `attribution_graph`.
    model : Model
        The circuit's.
    dictionaries : dict of Site to Dictionary, optional
        Those of the circuit. By default they are loaded from where `settings["transcoders"]` says.
    n : int
        How many features, at most.
    random : int
        How many others to compare with, at most: for each feature another one that is active at the
        same site and token, and is not in the graph, drawn at random.
    seed : int
        Of the draw.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Circuit
        The same with `evidence["interventions"]`: `rank_correlation` (Spearman) and `same_sign`
        (share of features) of what the graph says with what the model does, the mean size of the
        change with these features, `mean_change`, and with random ones, `random_change`; and
        `table`, a row a feature. Each row has what the first target loses: `direct` (the edge to
        it), `graph` (along all drawn edges), `held` (measured, attention patterns held) and `free`
        (measured). Errors are kept. Random features have no prediction, and `drawn` is false.

    Raises
    ------
    InputError
        If the circuit is not of one prompt, is a difference of two, or has no features.
    MismatchError
        If it is of another model.
    """
    expect(circuit, "circuit", "Circuit")
    expect(model, "model", "Model")
    n, random, seed = whole(n, "n", 1), whole(random, "random", 0), whole(seed, "seed", 0)
    batch, last = circuit_prompt(model, circuit)
    if "corrupted" in circuit.settings:
        raise InputError("This graph is a difference of two prompts: confirm the graph of one.")
    is_feature = circuit.nodes["kind"] == "feature"
    if not is_feature.any():
        raise InputError("The circuit has no features: draw it with a larger node_share.")
    known = dictionaries_of(model, circuit, dictionaries, circuit.settings["transcoders"])
    batch = Batch(batch.ids[:, : last + 1], batch.mask[:, : last + 1])
    order = np.argsort(-circuit.nodes["score"] * is_feature, kind="stable")
    rows = order[: min(n, int(is_feature.sum()))]
    units = [_unit(node) for node in circuit.nodes[rows]]
    of_graph = {_unit(node) for node in circuit.nodes[is_feature]}
    drawn = _others(model, batch, known, units[:random], of_graph, seed)
    every = [*units, *drawn]
    lost = _lost(model, circuit, known, batch.ids, every, progress)  # held and free
    direct, along = _predicted(circuit)
    names = circuit.ids()
    table = [
        {
            "id": names[rows[i]] if i < len(rows) else f"{site}/{index}@{token}",
            "label": str(circuit.nodes["label"][rows[i]]) if i < len(rows) else "",
            "drawn": i < len(rows),
            "direct": float(direct[rows[i]]) if i < len(rows) else None,
            "graph": float(along[rows[i]]) if i < len(rows) else None,
            "held": lost[0][i],
            "free": lost[1][i],
        }
        for i, (site, token, index) in enumerate(every)
    ]
    said, free = along[rows], np.array(lost[1][: len(rows)])
    ranked: Any = spearmanr(said, free) if len(rows) > 2 else [None]
    found = {
        "n": len(rows),
        "rank_correlation": ranked[0],
        "same_sign": float((np.sign(said) == np.sign(free)).mean()),
        "mean_change": float(np.abs(free).mean()),
        "random_change": float(np.abs(lost[1][len(rows) :]).mean()) if len(drawn) else None,
        "random": len(drawn),
        "seed": seed,
        "table": table,
    }
    return circuit.with_evidence(circuit.evidence | {"interventions": found})


def _unit(node: Any) -> _Unit:
    return Site.parse(node["site"]), int(node["position"]), int(node["index"])


def _others(
    model: Model,
    batch: Batch,
    known: Mapping[Site, Dictionary],
    units: list[_Unit],
    of_graph: set[_Unit],
    seed: int,
) -> list[_Unit]:
    """Draw for each feature another one, active at the same site and token, not of the graph."""
    rng, values = np.random.default_rng(seed), run(model, batch, list(known))
    found: list[_Unit] = []
    for site, token, _ in units:
        active = known[site].encode(values[site][0, token]).nonzero()[:, 0].tolist()
        taken = of_graph | {*found}
        free = [index for index in active if (site, token, index) not in taken]
        if free:
            found.append((site, token, int(rng.choice(free))))
    return found


def _lost(
    model: Model,
    circuit: Circuit,
    known: Mapping[Site, Dictionary],
    ids: Tensor,
    units: list[_Unit],
    progress: bool,
) -> tuple[list[float], list[float]]:
    """Return what the first target loses without each feature: attention held, and free."""
    prompt = ids.tolist()
    changes = [
        Change(site, "scale", 0.0, np.array([index]), positions=token)
        for site, token, index in units
    ]
    free = intervene_each(
        model, prompt, [[], *([each] for each in changes)], dictionaries=known, progress=progress
    )
    held = [
        intervene(
            model, prompt, each, dictionaries=known, freeze_attention=True, progress=False
        ).logits[0]
        for each in changes
    ]
    plain = _first(model, circuit, free[0].logits[0])
    return (
        [plain - _first(model, circuit, logits) for logits in held],
        [plain - _first(model, circuit, each.logits[0]) for each in free[1:]],
    )


def _first(model: Model, circuit: Circuit, logits: Tensor) -> float:
    return float(target_values(model, circuit, logits[None].float().cpu(), check=False)[0, 0])


def _predicted(circuit: Circuit) -> tuple[np.ndarray, np.ndarray]:
    """Return what the first target loses without each node: directly, and along all edges.

    A node that loses a share of its activation passes on that share of what it adds.
    """
    n, edges = len(circuit.nodes), circuit.edges
    target = int(np.flatnonzero(circuit.nodes["kind"] == TARGET)[0])
    weights = sp.csr_array(
        (edges["weight"].astype(float), (edges["target"], edges["source"])), shape=(n, n)
    )
    direct = weights[[target]].toarray()[0]
    activation = circuit.nodes["activation"].astype(float)
    inner = (circuit.nodes["kind"] == "feature") & (activation != 0)
    scale = np.divide(1, activation, out=np.zeros(n), where=inner)
    shares = sp.csr_array((sp.diags_array(scale) @ weights).T)
    return direct, direct + along_paths(direct, lambda step: shares @ step)

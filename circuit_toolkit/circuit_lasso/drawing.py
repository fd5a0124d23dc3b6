"""Put what a fit says at one strength into the tables of a circuit.

Observational weights are shared out from the target backwards, as relevance. Randomised weights are
effects already: a node is what its ablation takes from the metric, an edge what it takes from a
later feature.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET, new_edges, new_nodes
from circuit_toolkit.sites import Site

LEAST = 0.05  # share of a later feature that an edge to it carries; of fewer most are chance

if TYPE_CHECKING:
    from circuit_toolkit.circuit_lasso.fit import LassoFit


def by_relevance(fit: LassoFit, k: int, prompt: int | None) -> Circuit:
    """Share out relevance 1 of the target over features, site by site."""
    weights = [fit.chain[later].standardised(k) for later in fit.sites[1:]]
    present = _present(fit, prompt)
    into = shares_of_target(fit, k, prompt)
    direct = [fit.weights_of_target(site, k) if into is None else into[site] for site in fit.sites]
    carried = propagate_relevance(
        [
            sp.diags_array(here) @ abs(matrix)
            for here, matrix in zip(present, weights, strict=False)
        ],
        [
            abs(column) * (here if into is None else 1)
            for here, column in zip(present, direct, strict=True)
        ],
    )
    nodes, offset = [], 0
    rows: list[np.ndarray] = []  # position of a fitted feature in the node table, or -1
    for site, relevance in zip(fit.sites, carried.nodes, strict=True):
        live = np.flatnonzero(relevance > 0)
        row = np.full(len(relevance), -1)
        row[live] = offset + np.arange(len(live))
        rows.append(row)
        offset += len(live)
        nodes.append(_nodes(fit, site, live, relevance[live], prompt))
    flows: list[Any] = [*zip(carried.edges, weights, rows, rows[1:], strict=False)]
    for flow, weight, row in zip(carried.direct, direct, rows, strict=True):
        flows.append((flow[:, None], weight[:, None], row, np.array([offset])))
    edges = []
    for flow, weight, source, target in flows:
        part = sp.coo_array(flow)
        there = np.asarray(sp.csr_array(weight)[part.row, part.col]).ravel()
        ends = {"source": source[part.row], "target": target[part.col]}
        edges.append(new_edges(part.nnz, **ends, weight=there, score=part.data))
    table = np.concatenate([*nodes, _target(fit, prompt)])
    return Circuit(table, np.concatenate(edges), _settings(fit, k, prompt))


def by_effect(
    fit: LassoFit,
    k: int,
    prompt: int | None,
    max_features: int | None,
    max_per_site: int | None,
    max_edges: int | None,
) -> Circuit:
    """Draw the features with the largest effects on the metric, and what each does to the next."""
    direct = shares_of_target(fit, k, prompt)
    assert direct is not None
    sizes = {site: abs(each) for site, each in direct.items()}
    chosen = _best_in_turn(sizes, max_features, max_per_site)
    nodes = [_nodes(fit, site, at, sizes[site][at], prompt) for site, at in chosen.items()]
    first = dict(zip(fit.sites, np.cumsum([0, *map(len, nodes)]).tolist(), strict=False))
    found = []  # source, target, weight
    for site, later in zip(fit.sites, fit.sites[1:], strict=False):
        sources, targets = chosen[site], chosen[later]
        slopes = fit.chain[later].coefficients[k][sources][:, targets].tocoo()
        moved = _moved(fit, site, prompt)[sources]
        there = _activations(fit, later, prompt)[targets]
        share = np.divide(
            moved[slopes.row] * slopes.data,
            there[slopes.col],
            out=np.zeros(slopes.nnz),
            where=there[slopes.col] > 0,
        )
        ends = first[site] + slopes.row, first[later] + slopes.col
        found += [each for each in zip(*ends, share, strict=True) if abs(each[2]) >= LEAST]
    found = sorted(found, key=lambda edge: -abs(edge[2]))[:max_edges]
    drives = {source for source, *_ in found}
    n = sum(map(len, nodes))
    for site, at in chosen.items():  # what no later feature carries on is drawn to the target
        ends = [(first[site] + i, direct[site][column]) for i, column in enumerate(at)]
        last = site == fit.sites[-1]
        found += [(row, n, weight) for row, weight in ends if last or row not in drives]
    source, target, weight = zip(*found, strict=True) if found else ((), (), ())
    edges = new_edges(len(found), source=source, target=target, weight=weight, score=np.abs(weight))
    table = np.concatenate([*nodes, _target(fit, prompt)])
    return Circuit(table, edges, _settings(fit, k, prompt))


def _best_in_turn(
    sizes: Mapping[Site, np.ndarray], n: int | None, per_site: int | None
) -> dict[Site, np.ndarray]:
    """Choose the largest of each site in turn, n in all: every site has to pass on the answer."""
    order = {site: np.argsort(-each, kind="stable") for site, each in sizes.items()}
    best = {site: at[sizes[site][at] > 0][:per_site] for site, at in order.items()}
    turns = [(rank, site) for site, at in best.items() for rank in range(len(at))]
    counts = Counter(site for _, site in sorted(turns)[:n])
    return {site: np.sort(at[: counts[site]]) for site, at in best.items()}


def _present(fit: LassoFit, prompt: int | None) -> list[np.ndarray]:
    """How much of each feature is there: 1, or on a prompt its activation in its own scale."""
    if prompt is None:
        return [np.ones(len(screening.kept)) for screening in fit.screening.values()]
    return [_activations(fit, site, prompt) / fit.scales[site] for site in fit.sites]


def _activations(fit: LassoFit, site: Site, prompt: int | None) -> np.ndarray:
    """Activation of every fitted feature: its mean over the rows, or that on a prompt."""
    kept = fit.screening[site].kept
    if prompt is None:
        return fit.means[site][kept]
    return fit.rows.features[site][[prompt]].toarray().ravel()[kept]


def _moved(fit: LassoFit, site: Site, prompt: int | None) -> np.ndarray:
    """How far every fitted feature is from what an ablation sets it to, on average."""
    rows = fit.clean if prompt is None else [prompt]
    return np.asarray(fit.moved[site][rows].mean(0)).ravel()


def shares_of_target(fit: LassoFit, k: int, prompt: int | None) -> dict[Site, np.ndarray] | None:
    """Share of the metric that ablating each fitted feature takes; None if no logits were fitted.

    What it takes from a prompt is how far the feature moves, times what each answer's logit loses
    by it, times what that logit counts in the metric of this prompt.
    """
    if fit.gradient is None:
        return None
    whole = abs(_metric(fit, prompt)) or 1.0
    found = {}
    for site in fit.sites:
        slopes = fit.slopes_of_target(site, k)  # (p, q)
        if prompt is None:
            taken = sp.csr_array(slopes).multiply(fit.moved_by_logit[site]).sum(axis=1)
        else:
            taken = _moved(fit, site, prompt) * (slopes @ fit.gradient[prompt])
        found[site] = np.asarray(taken).ravel() / whole
    return found


def _metric(fit: LassoFit, prompt: int | None) -> float:
    values = fit.rows.metric
    if values is None or fit.settings["objective"] != "squared error":
        return 0.0
    if prompt is not None:
        return float(values[prompt])
    return float(values[fit.clean].mean() if fit.gradient is not None else values.mean())


def _nodes(
    fit: LassoFit, site: Site, live: np.ndarray, score: np.ndarray, prompt: int | None
) -> np.ndarray:
    """Rows of the node table for some of the fitted features of a site."""
    given = fit.settings["positions"]
    positions = [given] if isinstance(given, str) else given
    width = len(fit.screening[site].representative) // len(positions)
    place, feature = np.divmod(fit.screening[site].kept[live], width)
    known = fit.labels.get(site)
    return new_nodes(
        len(live),
        site=str(site),
        position=[positions[at] for at in place],
        index=feature,
        score=score,
        activation=_activations(fit, site, prompt)[live],
        label="" if known is None else [known[each] for each in feature],
    )


def _target(fit: LassoFit, prompt: int | None) -> np.ndarray:
    return new_nodes(
        1, TARGET, label=fit.settings["target"], score=1.0, activation=_metric(fit, prompt)
    )


def _settings(fit: LassoFit, k: int, prompt: int | None) -> dict[str, Any]:
    settings = {**fit.settings, "strength": float(fit.strengths[k])}
    settings |= {"level": "features", "scope": "dataset" if prompt is None else "prompt"}
    if prompt is not None:
        settings["prompt"] = fit.rows.text(prompt)
    return settings


class Relevance(NamedTuple):
    """What each feature and each edge passes on to the target."""

    nodes: tuple[np.ndarray, ...]
    edges: tuple[sp.csr_array, ...]
    direct: tuple[np.ndarray, ...]


def propagate_relevance(strengths: Sequence[sp.sparray], direct: Sequence[np.ndarray]) -> Relevance:
    """Share out relevance 1 of the target over its sources, theirs over theirs, and so on."""
    total = sum(float(part.sum()) for part in direct)
    into_target = [np.asarray(part, float) / total if total else 0.0 * part for part in direct]
    nodes = [part.copy() for part in into_target]
    edges: list[sp.csr_array] = []
    for i in range(len(strengths) - 1, -1, -1):
        S = sp.csc_array(strengths[i])
        sums = np.asarray(S.sum(axis=0)).ravel()  # (p_i+1,)
        share = np.divide(nodes[i + 1], sums, out=np.zeros(len(sums)), where=sums > 0)
        flow = sp.csr_array(S @ sp.diags_array(share))
        flow.eliminate_zeros()
        edges.append(flow)
        nodes[i] += np.asarray(flow.sum(axis=1)).ravel()
    return Relevance(tuple(nodes), tuple(reversed(edges)), tuple(into_target))

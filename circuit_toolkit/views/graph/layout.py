"""Where the nodes of a circuit stand: a column per site, in order of computation, few crossings.

Inside a column positions follow each other from top to bottom; words stand as in the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circuit_toolkit.circuit.circuit import short
from circuit_toolkit.circuit.tables import TOKEN
from circuit_toolkit.views.graph.drawing import Drawing

ROWS = 11  # nodes that one column carries before it splits in two
ROW = 50.0  # px between nodes of a column
WIDEST, NARROWEST = 230.0, 96.0  # px between columns
WIDTH = 1120.0  # px: what a notebook cell shows without scaling
HEAD, FOOT = 30.0, 18.0  # px above the nodes, for the name of the site, and below the last label
SWEEPS = 6
CLEAR, LABEL = 16.0, 32.0  # px from a node to a line that is not its own: and below, for the label


@dataclass(frozen=True, eq=False)
class Layout:
    """Positions in px, for a canvas of `width` x `height` whose origin is the top left."""

    x: np.ndarray  # (n,)
    y: np.ndarray  # (n,)
    left: np.ndarray  # (c,) left border of each site's band, the target's last
    right: np.ndarray  # (c,)
    names: list[str]  # c short names of sites
    pitch: float  # px of width for one label
    width: float
    height: float


def laid_out(drawing: Drawing) -> Layout:
    """Place the nodes from left to right in order of computation."""
    depth = drawing.depth  # (n,)
    edges = drawing.edges[depth[drawing.edges["source"]] < depth[drawing.edges["target"]]]
    count = np.bincount(depth)  # (c,) nodes at each site
    lanes = np.maximum(1, -(-count // ROWS))  # (c,) columns in each band
    pitch = float(np.clip(WIDTH / lanes.sum(), NARROWEST, WIDEST))
    right = np.cumsum(lanes) * pitch  # (c,)
    left = right - lanes * pitch
    rows = float(np.minimum(count, ROWS).max()) + 0.5
    height = max(ROW * rows, 4 * ROW, 0.34 * float(right[-1]))

    rank = _best_ranks(depth, count, edges, _groups(drawing))  # (n,) from the top, in the site
    lane = rank % lanes[depth]  # (n,) staggered: neighbours in rank stand in different columns
    x = left[depth] + pitch * (lane + 0.5)
    step = np.minimum(height / count, 1.6 * ROW / lanes)[depth]  # (n,) px from one rank to the next
    shift = (0.618 * depth % 1 - 0.5) * 0.5 * (count > 1)[depth]  # so that long edges miss nodes
    y = HEAD + height / 2 + step * (rank - (count[depth] - 1) / 2 + shift)
    _step_aside(x, y, depth, edges, HEAD + ROW / 2, HEAD + height - ROW / 2)
    sites = dict.fromkeys(drawing.nodes["site"].tolist())
    names = [short(name) for name in sites]
    return Layout(x, y, left, right, names, pitch, float(right[-1]), HEAD + height + FOOT)


def crossings(x: np.ndarray, y: np.ndarray, edges: np.ndarray) -> int:
    """Count the pairs of edges that cross when drawn as straight lines."""
    s, t = edges["source"], edges["target"]
    start = np.maximum(x[s][:, None], x[s][None, :])  # (e, e) where both lines have begun
    stop = np.minimum(x[t][:, None], x[t][None, :])  # (e, e) where the first of them ends
    slope = (y[t] - y[s]) / (x[t] - x[s])  # (e,) edges never stand upright
    offset = y[s] - slope * x[s]
    slope, offset = slope[:, None] - slope, offset[:, None] - offset  # of one line above another
    swapped = (slope * start + offset) * (slope * stop + offset) < -1e-9
    return int((swapped & (start < stop)).sum() // 2)


def _step_aside(
    x: np.ndarray, y: np.ndarray, depth: np.ndarray, edges: np.ndarray, top: float, bottom: float
) -> None:
    """Move whole sites up or down, in place, to where the fewest lines run through their nodes."""
    s, t = edges["source"], edges["target"]
    for d in 2 * [*range(1, depth.max(initial=0))]:  # twice: what moves takes its lines along
        nodes = np.flatnonzero(depth == d)
        over = (depth[s] < d) & (depth[t] > d)
        place = y[nodes]
        share = (x[nodes] - x[s[over], None]) / (x[t[over]] - x[s[over]])[:, None]  # (e, n)
        lines = y[s[over], None] + (y[t[over]] - y[s[over]])[:, None] * share**2 * (3 - 2 * share)
        best, fewest = 0.0, np.inf
        for shift in ROW / 2 * np.array([0, 1, -1, 2, -2, 3, -3, 4, -4]):
            if shift and (place.min() + shift < top or place.max() + shift > bottom):
                continue
            below = lines - place - shift  # (e, n)
            hits = (np.abs(below) < CLEAR).sum() + ((below > -CLEAR) & (below < LABEL)).sum()
            if hits < fewest:
                best, fewest = shift, hits
        y[nodes] += best


def _groups(drawing: Drawing) -> np.ndarray:
    """Rank of the position of each node (n,), by which its site is sorted first."""
    positions = drawing.nodes["position"].tolist()
    given = drawing.circuit.settings.get("positions")
    order = list(dict.fromkeys([*(given if isinstance(given, list) else ()), *positions]))
    words = drawing.nodes["kind"] == TOKEN
    return np.where(words, drawing.nodes["index"], [order.index(name) for name in positions])


def _best_ranks(
    depth: np.ndarray, count: np.ndarray, edges: np.ndarray, group: np.ndarray
) -> np.ndarray:
    """Places (n,) of the nodes within their sites; the fewest crossings over all sweeps."""
    first = np.cumsum(count) - count  # (c,) nodes are grouped by site
    rank = np.empty(len(depth), int)
    rank[np.lexsort((group, depth))] = np.arange(len(depth))
    rank -= first[depth]  # (n,)
    source, target, weight = edges["source"], edges["target"], edges["score"] + 1e-6
    into = [np.flatnonzero(depth[target] == d) for d in range(len(count))]  # edges, by site
    out = [np.flatnonzero(depth[source] == d) for d in range(len(count))]
    best, fewest = rank, _count(rank, depth, count, edges)
    for sweep in range(SWEEPS if fewest else 0):
        rank = rank.copy()
        forward = sweep % 2 == 0
        for d in range(len(count)) if forward else reversed(range(len(count))):
            at, here, there = (into[d], target, source) if forward else (out[d], source, target)
            node = slice(first[d], first[d] + count[d])
            place = (rank - (count[depth] - 1) / 2) / count[depth]  # (n,) in -0.5 to 0.5
            row = here[at] - first[d]
            total = np.bincount(row, weight[at], count[d])
            mean = np.bincount(row, weight[at] * place[there[at]], count[d]) / np.fmax(total, 1e-30)
            key = np.where(total > 0, mean, place[node])  # nodes without neighbours stay
            rank[node][np.lexsort((key, group[node]))] = np.arange(count[d])
        if (found := _count(rank, depth, count, edges)) < fewest:
            best, fewest = rank, found
    return best


def _count(rank: np.ndarray, depth: np.ndarray, count: np.ndarray, edges: np.ndarray) -> int:
    strongest = edges[np.argsort(-edges["score"])[:250]]  # pairs grow with the square
    return crossings(depth.astype(float), rank - (count[depth] - 1) / 2, strongest)

"""Where nodes stand in an upward picture: tokens or positions side by side, layers upwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from circuit_toolkit.circuit.tables import TARGET, TOKEN
from circuit_toolkit.sites import Site
from circuit_toolkit.views.graph.drawing import GROUP, Drawing
from circuit_toolkit.views.graph.prompt_columns import (
    LETTER,
    LONGEST,
    SIDE,
    Cell,
    Column,
    Places,
    chip_width,
    columns_of,
    lines_of,
    word_of,
    words_below,
)

# px of width: the first is what a notebook cell shows without scaling, the others are for graphs
# that would be taller than wide
WIDTHS = (1120.0, 1280.0, 1440.0, 1600.0)
LINE, GAP = 46.0, 16.0  # px of height for a line of nodes with their labels, and between rows
WORDS = 18.0  # px from the lowest row to the middle of words, and from there to the border
WANTED = {"error": 22.0, TOKEN: 0.0}  # px of width for a node; others want that of `#12345`
DOT = 8.0  # px of width for the dot of a word that stands upright
SWEEPS = 4


@dataclass(frozen=True, eq=False)
class PromptLayout:
    """Positions in px, for a canvas of `width` x `height` whose origin is the top left."""

    x: np.ndarray  # (n,)
    y: np.ndarray  # (n,)
    room: np.ndarray  # (n,) px of width for the label
    row: np.ndarray  # (n,) 0: words, then layers, the targets last
    rows: list[tuple[str, float, float]]  # name, top, bottom
    columns: list[Column]
    width: float
    height: float


def without_idle_words(drawing: Drawing) -> Drawing:
    """Leave out words that nothing reads: they are written below, but are no nodes."""
    keep = drawing.nodes["kind"] != TOKEN  # (n,)
    keep[drawing.edges["source"]] = True
    row = keep.cumsum() - 1  # old row -> new
    edges = drawing.edges.copy()
    edges["source"], edges["target"] = row[edges["source"]], row[edges["target"]]
    kept = np.flatnonzero(keep).tolist()
    ids, rows = [drawing.ids[i] for i in kept], [drawing.rows[i] for i in kept]
    tables = {"nodes": drawing.nodes[keep], "edges": edges, "depth": drawing.depth[keep]}
    return replace(drawing, ids=ids, rows=rows, **tables)


def laid_out_by_token(
    drawing: Drawing, places: Places, widths: Sequence[float] = WIDTHS
) -> PromptLayout:
    """Place the nodes above their tokens, by layer from the bottom up."""
    kinds, labels = drawing.nodes["kind"].tolist(), drawing.nodes["label"].tolist()
    token = column_of_nodes(drawing, places)  # (n,)
    row, names = _rows(drawing)  # (n,) and the name of each row
    need = np.array([*map(_wanted, kinds, labels)])  # (n,) px
    ends = [i for i, kind in enumerate(kinds) if kind == TARGET]
    cells = _together(token, row, [i for i, k in enumerate(kinds) if k not in (TOKEN, TARGET)])
    needs = {cell: need[nodes] for cell, nodes in cells.items()}
    words = words_below(drawing, places)
    shown = set(token.tolist()) | ({places.end} if places.one_prompt else {*range(len(words))})
    for most in widths:
        columns = columns_of(words, shown, needs, most)
        width = columns[-1].left + columns[-1].width
        at = {column.first: column for column in columns}
        lines = {cell: lines_of(each, at[cell[0]].width) for cell, each in needs.items()}
        tall = np.ones(len(names), int)  # (rows,) lines in each
        tall[-1] = lines_of(need[ends], width - SIDE)
        for (_, r), count in lines.items():
            tall[r] = max(tall[r], count)
        upright = [LETTER * len(words[c.first]) for c in columns if c.turned and c.count == 1]
        heights = np.r_[2 * WORDS + max(upright, default=0), tall[1:] * LINE + GAP]  # (rows,)
        if heights.sum() <= width:
            break
    bottom = heights[::-1].cumsum()[::-1]
    top = bottom - heights

    x = np.array([at[t].left + at[t].width / 2 for t in token.tolist()])  # (n,)
    y = (top + WORDS)[row]
    for _ in range(SWEEPS):
        towards = _mean_of_neighbours(drawing, x)
        for (t, r), nodes in cells.items():
            order, count = sorted(nodes, key=towards.__getitem__), lines[t, r]
            for k in range(count):  # dealt in turn, so that neighbours stand staggered
                line = order[k::count]
                x[line] = _spread(need[line], at[t], 2 * r + k)
                above = (tall[r] - count) // 2 + k  # lines of a row form one grid
                y[line] = top[r] + GAP / 2 + LINE * (above + 0.35)
    for (t, _), nodes in _together(token, row, np.flatnonzero(row == 0).tolist()).items():
        chips = [DOT if at[t].turned else chip_width(word_of(labels[i])) for i in nodes]
        x[nodes] += _side_by_side(np.array(chips))  # two words: of a clean and a corrupted prompt
    middle = at[places.end].left + at[places.end].width / 2
    for k in range(tall[-1]):
        line = ends[k :: tall[-1]]
        half = need[line].sum() / 2
        x[line] = max(min(middle, width - half), SIDE + half) + _side_by_side(need[line])
        y[line] = GAP / 2 + LINE * (k + 0.5)
    room = _room(x, y, kinds, need, width)
    room[row == 0] = LONGEST * LETTER
    rows = list(zip(names, top.tolist(), bottom.tolist(), strict=True))
    return PromptLayout(x, y, room, row, rows, columns, width, float(heights.sum()))


def _together(token: np.ndarray, row: np.ndarray, nodes: list[int]) -> dict[Cell, list[int]]:
    """Group nodes by their cell."""
    found: dict[Cell, list[int]] = {}
    for i in nodes:
        found.setdefault((int(token[i]), int(row[i])), []).append(i)
    return found


def _side_by_side(wide: np.ndarray) -> np.ndarray:
    """Return where things stand from the middle of all, if each is so wide."""
    return wide.cumsum() - wide / 2 - wide.sum() / 2


def _wanted(kind: str, label: str) -> float:
    """Return the width that a node wants, in px."""
    if kind in (GROUP, TARGET):  # a box round its name
        return min(len(label) + 7, 40) * LETTER + 20
    return WANTED.get(kind, 44.0)


def column_of_nodes(drawing: Drawing, places: Places) -> np.ndarray:
    """Return the token above which each node stands (n,)."""
    place = np.array([places.of(at) for at in drawing.circuit.nodes["position"].tolist()])
    return np.array([int(place[rows].mean() + 0.5) for rows in drawing.rows])


def _rows(drawing: Drawing) -> tuple[np.ndarray, list[str]]:
    """Return the row of each node (n,), from the words up, and the names of the rows."""
    sites, edges = drawing.circuit.nodes["site"].tolist(), drawing.circuit.edges
    layer = np.array([_layer(site) for site in sites])
    ends = layer[edges["source"]], layer[edges["target"]]
    mixed = set(ends[0][ends[0] == ends[1]].tolist())  # a row for each of their sites
    place = [
        (at, Site.parse(site) if at in mixed else None)
        for at, site in zip(layer.tolist(), sites, strict=True)
    ]
    order = sorted(
        {*place, (-1, None), (np.inf, None)}, key=lambda p: (p[0], p[1] or Site("embed"))
    )
    level = np.array([order.index(each) for each in place])  # of the circuit's nodes
    mean = np.array([level[rows].mean() for rows in drawing.rows])  # (n,)
    grouped = drawing.nodes["kind"] == GROUP
    mean[grouped] = np.clip(np.rint(mean[grouped]), 0.5, len(order) - 1.5)  # off words and targets
    levels = np.unique([*mean, 0, len(order) - 1])
    names = [
        f"L{order[int(at)][0]:.0f}" + (f" {site.kind}" if (site := order[int(at)][1]) else "")
        if at % 1 == 0 and 0 < at < len(order) - 1
        else ""
        for at in levels.tolist()
    ]
    return np.searchsorted(levels, mean), names


def _layer(site: str) -> float:
    return {TOKEN: -1.0, TARGET: np.inf}.get(site) or float(Site.parse(site).layer)


def _mean_of_neighbours(drawing: Drawing, x: np.ndarray) -> np.ndarray:
    """Return where the neighbours of each node stand (n,), strong edges counting more."""
    s, t, weight = (drawing.edges[name] for name in ("source", "target", "score"))
    n, weight = len(x), weight + 1e-6
    total = np.bincount(s, weight, n) + np.bincount(t, weight, n)
    pull = np.bincount(s, weight * x[t], n) + np.bincount(t, weight * x[s], n)
    return np.where(total > 0, pull / np.fmax(total, 1e-30), x)


def _spread(need: np.ndarray, column: Column, turn: int) -> np.ndarray:
    """Return where nodes of a line stand; lines are shifted, so that edges pass between nodes."""
    scale = min(1.4, (column.width - 8) / need.sum())
    slack = column.width - scale * need.sum()
    start = column.left + slack / 2 + (0.618 * turn % 1 - 0.5) * slack * 0.8
    return start + scale * (need.cumsum() - need / 2)


def _room(
    x: np.ndarray, y: np.ndarray, kinds: list[str], need: np.ndarray, width: float
) -> np.ndarray:
    """Return the width that labels may take (n,), so that none reaches into its neighbour's."""
    room = np.array(need)
    for level in np.unique(y):
        line = np.flatnonzero(y == level)
        line = line[np.argsort(x[line])]
        for k, i in enumerate(line.tolist()):
            if kinds[i] in (GROUP, TARGET):
                continue
            free = [2 * (x[i] - SIDE), 2 * (width - x[i]), 150.0]
            for j in (*line[max(k - 1, 0) : k], *line[k + 1 : k + 2]):
                apart = abs(x[i] - x[j])
                named = kinds[j] not in ("error", GROUP)  # both names get half of the way
                free.append(apart - 6 if named else 2 * (apart - need[j] / 2 - 2))
            room[i] = min(free)
    return room

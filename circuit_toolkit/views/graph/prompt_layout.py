"""Where the nodes of a prompt's attribution graph stand: tokens side by side, layers upwards.

A column is as wide as what stands in it; long runs of tokens with nothing above them are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from circuit_toolkit.circuit.tables import TARGET, TOKEN
from circuit_toolkit.sites import Site
from circuit_toolkit.views.graph.drawing import GROUP, Drawing

# px of width: the first is what a notebook cell shows without scaling, the others are for graphs
# that would be taller than wide
WIDTHS = (1120.0, 1280.0, 1440.0, 1600.0)
SIDE = 44.0  # px to the left, for the names of layers
LINE, GAP = 46.0, 16.0  # px of height for a line of nodes with their labels, and between rows
WORDS = 18.0  # px from the lowest row to the middle of words, and from there to the border
LETTER = 6.1  # px, mean width at the size that labels are drawn
WANTED = {"error": 22.0, TOKEN: 0.0}  # px of width for a node; others want that of `#12345`
LONGEST = 12  # letters of a word below the graph
RUN = 3  # tokens with nothing above them that are shown side by side
TURNED = 22.0  # px of width for a word that stands upright
STEP = 8.0  # px by which columns are widened in turn
SWEEPS = 4
Cell = tuple[int, int]  # token, row


@dataclass(frozen=True)
class Column:
    """A token below the graph, or a run of tokens that are left out."""

    first: int  # number of the token
    count: int
    width: float
    turned: bool  # its word stands upright, since it is narrow
    left: float = 0.0


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


def is_one_prompt(drawing: Drawing) -> bool:
    """Tell whether all nodes have their place in a prompt whose tokens are known."""
    settings, nodes = drawing.circuit.settings, drawing.circuit.nodes
    tokens = settings.get("tokens")
    if settings.get("scope") != "prompt" or not isinstance(tokens, list) or not tokens:
        return False
    inner = nodes["position"][nodes["kind"] != TARGET].tolist()
    return all(at.isdecimal() and int(at) < len(tokens) for at in inner)


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


def laid_out_by_token(drawing: Drawing) -> PromptLayout:
    """Place the nodes above their tokens, by layer from the bottom up."""
    kinds, labels = drawing.nodes["kind"].tolist(), drawing.nodes["label"].tolist()
    end = _end(drawing.circuit.settings)
    token = _tokens(drawing, end)  # (n,)
    row, names = _rows(drawing)  # (n,) and the name of each row
    need = np.array([*map(_wanted, kinds, labels)])  # (n,) px
    cells: dict[Cell, list[int]] = {}
    for i, kind in enumerate(kinds):
        if kind not in (TOKEN, TARGET):
            cells.setdefault((int(token[i]), int(row[i])), []).append(i)
    words = words_below(drawing)
    needs = {cell: need[nodes] for cell, nodes in cells.items()}
    ends = np.flatnonzero(np.array(kinds) == TARGET)
    for most in WIDTHS:
        columns = _columns(words, set(token.tolist()), needs, most)
        width = columns[-1].left + columns[-1].width
        at = {column.first: column for column in columns}
        lines = {cell: _lines(each, at[cell[0]].width) for cell, each in needs.items()}
        lines[-1, len(names) - 1] = _lines(need[ends], width - SIDE)
        tall = np.ones(len(names), int)  # (rows,) lines in each
        for (_, r), count in lines.items():
            tall[r] = max(tall[r], count)
        upright = [LETTER * len(words[c.first]) for c in columns if c.turned and c.count == 1]
        heights = np.r_[2 * WORDS + max(upright, default=0), tall[1:] * LINE + GAP]  # (rows,)
        if heights.sum() <= width:
            break
    bottom = heights[::-1].cumsum()[::-1]
    rows = list(zip(names, (bottom - heights).tolist(), bottom.tolist(), strict=True))

    x = np.array([at[t].left + at[t].width / 2 for t in token.tolist()])  # (n,)
    y = (bottom - heights + WORDS)[row]
    for _ in range(SWEEPS):
        towards = _mean_of_neighbours(drawing, x)
        for cell, nodes in cells.items():
            order = sorted(nodes, key=towards.__getitem__)
            for k in range(lines[cell]):  # dealt in turn, so that neighbours stand staggered
                line = order[k :: lines[cell]]
                x[line] = _spread(need[line], at[cell[0]], 2 * cell[1] + k)
                above = (tall[cell[1]] - lines[cell]) // 2 + k  # lines of a row form one grid
                y[line] = rows[cell[1]][1] + GAP / 2 + LINE * (above + 0.35)
    two: dict[int, list[int]] = {}  # words at one token: of the clean and the corrupted prompt
    for i in np.flatnonzero(row == 0).tolist():
        two.setdefault(int(token[i]), []).append(i)
    for t, nodes in two.items():
        wide = np.array([_chip(word_of(labels[i])) for i in nodes])
        if at[t].turned:
            wide = np.full(len(nodes), 8.0)
        x[nodes] += wide.cumsum() - wide / 2 - wide.sum() / 2
    for k in range(count := lines[-1, len(names) - 1]):
        line = ends[k::count]
        last = at[end]
        start = min(last.left + last.width / 2 - need[line].sum() / 2, width - need[line].sum())
        x[line] = max(start, SIDE) + need[line].cumsum() - need[line] / 2
        y[line] = rows[-1][1] + GAP / 2 + LINE * (k + 0.5)
    room = _room(x, y, kinds, need, width)
    room[row == 0] = LONGEST * LETTER
    return PromptLayout(x, y, room, row, rows, columns, width, float(heights.sum()))


def words_below(drawing: Drawing) -> list[str]:
    """Return what is written below each column: the words of its nodes, else that of the prompt."""
    words = [word_of(str(word)) for word in drawing.circuit.settings["tokens"]]
    found: dict[int, list[str]] = {}
    nodes = drawing.nodes[drawing.nodes["kind"] == TOKEN]
    for position, label in nodes[["position", "label"]].tolist():
        found.setdefault(int(position), []).append(word_of(label))
    return [" / ".join(found.get(i, [word])) for i, word in enumerate(words)]


def word_of(token: str) -> str:
    """Return a token as it is written below the graph."""
    word = token.strip(" ").replace("\n", "↵") or "␣"
    return word if len(word) <= LONGEST else word[: LONGEST - 1] + "…"


def _wanted(kind: str, label: str) -> float:
    """Return the width that a node wants, in px."""
    if kind in (GROUP, TARGET):  # a box round its name
        return min(len(label) + 7, 40) * LETTER + 20
    return WANTED.get(kind, 44.0)


def _end(settings: dict[str, Any]) -> int:
    """Return the token above which the targets stand."""
    n, position = len(settings["tokens"]), settings.get("position")
    at = position if isinstance(position, int) else -1
    return min(max(at + n if at < 0 else at, 0), n - 1)


def _tokens(drawing: Drawing, end: int) -> np.ndarray:
    """Return the token above which each node stands (n,)."""
    given = drawing.circuit.nodes["position"].tolist()
    place = np.array([int(at) if at.isdecimal() else end for at in given])
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


def _columns(
    words: list[str], used: set[int], needs: dict[Cell, np.ndarray], most: float
) -> list[Column]:
    """Return the tokens that are shown, as wide as what stands above them, and runs left out."""
    for turned in (False, True):  # where space is scarce, words with nothing above them turn
        columns = _fitted(_shown(words, used, needs, turned), needs, most)
        width = {column.first: column.width for column in columns}
        if all(_lines(need, width[at]) == 1 for (at, _), need in needs.items()):
            break
    left = SIDE
    for i, column in enumerate(columns):
        columns[i] = replace(column, left=left)
        left += column.width
    return columns


def _shown(
    words: list[str], used: set[int], needs: dict[Cell, np.ndarray], turned: bool
) -> list[Column]:
    """Return columns of the least width; of `used` tokens all are shown."""
    widest: dict[int, float] = {}
    for (at, _), need in needs.items():
        widest[at] = max(widest.get(at, 0.0), float(need.max()) + 10)
    columns, i, end = [], 0, len(words)
    while i < end:
        gap = next((k for k in range(i, end) if k in used), end) - i
        if gap > RUN:
            columns.append(Column(i, gap, TURNED if turned else 40.0, turned))
            i += gap
            continue
        wide = max(sum(map(_chip, words[i].split(" / "))), widest.get(i, 0.0))
        narrow = turned and i not in widest
        columns.append(Column(i, 1, TURNED if narrow else wide, narrow))
        i += 1
    return columns


def _fitted(columns: list[Column], needs: dict[Cell, np.ndarray], most: float) -> list[Column]:
    """Widen columns up to a width of the picture, first where cells take several lines."""
    width = {column.first: column.width for column in columns}
    spare, live = most - SIDE - sum(width.values()), {at for at, _ in needs}
    while spare >= STEP:  # the fullest cell gets more width, which saves a line of its row
        lines = {cell: _lines(need, width[cell[0]]) for cell, need in needs.items()}
        if max(lines.values(), default=1) == 1:
            break
        fullest = max(lines, key=lambda cell: (lines[cell], needs[cell].sum()))
        width[fullest[0]] += STEP
        spare -= STEP
    grown = 1 + min(max(spare, 0) / sum(width[at] for at in live), 0.8) if live else 1.0
    return [
        replace(column, width=width[column.first] * (grown if column.first in live else 1.0))
        for column in columns
    ]


def _chip(word: str) -> float:
    """Return the width of a word in its box."""
    return LETTER * len(word) + 14


def _lines(need: np.ndarray, width: float) -> int:
    """Count the lines that nodes take in a cell, in whatever order they are dealt to them."""
    widest = np.sort(need)[::-1].cumsum()  # of so many nodes
    most = max(int(np.searchsorted(widest, width - 8, "right")), 1)
    return max(1, -(-len(need) // most))


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

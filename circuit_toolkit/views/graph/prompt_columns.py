"""The columns of a prompt's picture: a token each, as wide as what stands above it.

Long runs of tokens with nothing above them are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from circuit_toolkit.circuit.tables import TOKEN
from circuit_toolkit.views.graph.drawing import Drawing

SIDE = 44.0  # px to the left, for the names of layers
LETTER = 6.1  # px, mean width at the size that labels are drawn
LONGEST = 12  # letters of a word
RUN = 3  # tokens with nothing above them that are shown side by side
TURNED = 22.0  # px of width for a word that stands upright
STEP = 8.0  # px by which columns are widened in turn
Cell = tuple[int, int]  # token, row


@dataclass(frozen=True)
class Column:
    """A token below the graph, or a run of tokens that are left out."""

    first: int  # number of the token
    count: int
    width: float
    turned: bool  # its word stands upright, since it is narrow
    left: float = 0.0


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


def columns_of(
    words: list[str], used: set[int], needs: dict[Cell, np.ndarray], most: float
) -> list[Column]:
    """Return the tokens that are shown, as wide as what stands above them, and runs left out."""
    for turned in (False, True):  # where space is scarce, words with nothing above them turn
        columns = _fitted(_shown(words, used, needs, turned), needs, most)
        width = {column.first: column.width for column in columns}
        if all(lines_of(need, width[at]) == 1 for (at, _), need in needs.items()):
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
        wide = max(sum(map(chip_width, words[i].split(" / "))), widest.get(i, 0.0))
        narrow = turned and i not in widest
        columns.append(Column(i, 1, TURNED if narrow else wide, narrow))
        i += 1
    return columns


def _fitted(columns: list[Column], needs: dict[Cell, np.ndarray], most: float) -> list[Column]:
    """Widen columns up to a width of the picture, first where cells take several lines."""
    width = {column.first: column.width for column in columns}
    spare, live = most - SIDE - sum(width.values()), {at for at, _ in needs}
    while spare >= STEP:  # the fullest cell gets more width, which saves a line of its row
        lines = {cell: lines_of(need, width[cell[0]]) for cell, need in needs.items()}
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


def chip_width(word: str) -> float:
    """Return the width of a word in its box."""
    return LETTER * len(word) + 14


def lines_of(need: np.ndarray, width: float) -> int:
    """Count the lines that nodes take in a cell, in whatever order they are dealt to them."""
    widest = np.sort(need)[::-1].cumsum()  # of so many nodes
    most = max(int(np.searchsorted(widest, width - 8, "right")), 1)
    return max(1, -(-len(need) // most))

"""The columns of an upward picture: a token each, or a named position, as wide as what it carries.

Long runs of tokens with nothing above them are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET, TOKEN
from circuit_toolkit.views.graph.drawing import Drawing

SIDE = 44.0  # px to the left, for the names of layers
LETTER = 6.1  # px, mean width at the size that labels are drawn
LONGEST = 12  # letters of a word
RUN = 3  # tokens with nothing above them that are shown side by side
TURNED = 22.0  # px of width for a word that stands upright
STEP = 8.0  # px by which columns are widened in turn
Cell = tuple[int, int]  # column, row
POOLED = {"": "all tokens", "mean": "mean of tokens"}  # what positions that are no place are called


@dataclass(frozen=True, eq=False)
class Places:
    """What stands side by side below an upward picture, and where positions are there."""

    words: list[str]  # tokens of a prompt, or names of positions
    at: dict[str, int]  # position of a node -> number of the word
    end: int  # below the targets
    one_prompt: bool

    def of(self, position: str) -> int:
        """Return the word below a position; what has no place of its own is read at the end."""
        return self.at.get(position, self.end)


def places_in_prompt(tokens: Sequence[str], at: Mapping[str, int], end: int = -1) -> Places:
    """Return the tokens of a prompt, with named positions at the numbers that they have there."""
    n = len(tokens)
    numbers = {str(i): i for i in range(n)}
    named = {name: where % n for name, where in at.items() if -n <= where < n}
    return Places([*tokens], numbers | named, min(max(end + n if end < 0 else end, 0), n - 1), True)


def named_places(circuit: Circuit) -> Places:
    """Return the named positions of a circuit of many prompts, the last token at the end."""
    inner = circuit.nodes["position"][circuit.nodes["kind"] != TARGET].tolist()
    given = circuit.settings.get("positions")
    order: list[str] = [*(given if isinstance(given, list) else ()), *inner]
    names = sorted(dict.fromkeys(order), key=lambda name: name == "last") or ["last"]
    words: list[str] = [POOLED.get(name, name) for name in names]
    return Places(words, {name: i for i, name in enumerate(names)}, len(names) - 1, False)


def places_of(circuit: Circuit) -> Places | None:
    """Return the tokens of a circuit of one prompt; None where some node has no place in it."""
    settings, nodes = circuit.settings, circuit.nodes
    tokens, position = settings.get("tokens"), settings.get("position")
    if settings.get("scope") != "prompt" or not isinstance(tokens, list) or not tokens:
        return None
    inner = nodes["position"][nodes["kind"] != TARGET].tolist()
    if not all(at.isdecimal() and int(at) < len(tokens) for at in inner):
        return None
    return places_in_prompt(tokens, {}, position if isinstance(position, int) else -1)


@dataclass(frozen=True)
class Column:
    """A token below the graph, or a run of tokens that are left out."""

    first: int  # number of the token
    count: int
    width: float
    turned: bool  # its word stands upright, since it is narrow
    left: float = 0.0


def words_below(drawing: Drawing, places: Places) -> list[str]:
    """Return what is written below each column: the words of its nodes, else that of the prompt."""
    words = [word_of(str(word)) if places.one_prompt else word for word in places.words]
    found: dict[int, list[str]] = {}
    nodes = drawing.nodes[drawing.nodes["kind"] == TOKEN]
    for position, label in nodes[["position", "label"]].tolist():
        found.setdefault(places.of(position), []).append(word_of(label))
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

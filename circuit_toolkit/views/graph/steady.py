"""A layout that stays: nodes keep their place while others come and go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from circuit_toolkit.circuit.tables import TARGET, TOKEN
from circuit_toolkit.views.graph.drawing import GROUP, Drawing
from circuit_toolkit.views.graph.prompt_columns import Places
from circuit_toolkit.views.graph.prompt_layout import (
    GAP,
    LINE,
    WIDTHS,
    PromptLayout,
    column_of_nodes,
    laid_out_by_token,
)

Spot = tuple[float, float, float]  # x, y, and the room for the label, in px
STEP, EDGE = 12.0, 16.0  # px between spots that are tried, and from the border of a column
WIDE, TALL = 44.0, 30.0  # px that a node with its label takes


@dataclass(eq=False)
class Steady:
    """Where each node that was drawn stood, and the rows and columns that it stood in."""

    places: Places
    widths: Sequence[float] = WIDTHS
    layout: PromptLayout | None = None
    spots: dict[str, Spot] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)  # of a site

    def lay_out(self, drawing: Drawing) -> PromptLayout:
        """Return where nodes stand: where they stood, and new ones where their cell has room."""
        if self.layout is None or not self._fits(drawing):
            self._start(drawing)
        assert self.layout is not None
        self._add(drawing)
        x, y, room = np.array([self.spots[name] for name in drawing.ids]).T
        return replace(self.layout, x=x, y=y, room=room, row=self._rows_of(drawing))

    def _start(self, drawing: Drawing) -> None:
        """Lay out anew: a site or a token is drawn that had no place."""
        found = laid_out_by_token(drawing, self.places, self.widths)
        self.layout = found
        spots = zip(found.x.tolist(), found.y.tolist(), found.room.tolist(), strict=True)
        self.spots = dict(zip(drawing.ids, spots, strict=True))
        self.rows = {}
        for site, kind, row in zip(
            drawing.nodes["site"], drawing.nodes["kind"], found.row.tolist(), strict=True
        ):
            if kind != GROUP:
                self.rows[site] = row

    def _fits(self, drawing: Drawing) -> bool:
        """Tell whether all nodes have a row and a column in the layout."""
        assert self.layout is not None
        sites = set(drawing.nodes["site"][drawing.nodes["kind"] != GROUP].tolist())
        shown = {column.first for column in self.layout.columns if column.count == 1}
        return sites <= set(self.rows) and shown.issuperset(
            column_of_nodes(drawing, self.places).tolist()
        )

    def _rows_of(self, drawing: Drawing) -> np.ndarray:
        sites = drawing.nodes["site"].tolist()
        return np.array([self.rows.get(site, 1) for site in sites])

    def _add(self, drawing: Drawing) -> None:
        """Give each new node the spot of its cell that is farthest from all others."""
        layout, kinds = self.layout, drawing.nodes["kind"].tolist()
        assert layout is not None
        columns = {column.first: column for column in layout.columns}
        ids, rows = drawing.circuit.ids(), self._rows_of(drawing)
        for i, token in enumerate(column_of_nodes(drawing, self.places).tolist()):
            name = drawing.ids[i]
            if name in self.spots:
                continue
            behind = [self.spots[ids[row]] for row in drawing.rows[i] if ids[row] in self.spots]
            if kinds[i] == GROUP and behind:  # amid its members
                x, y, _ = np.mean(behind, axis=0).tolist()
                self.spots[name] = (x, y, 3 * WIDE)
                continue
            _, top, bottom = layout.rows[int(rows[i])]
            column = columns[token]
            if kinds[i] in (TOKEN, TARGET):
                self.spots[name] = (column.left + column.width / 2, (top + bottom) / 2, 3 * WIDE)
                continue
            right = max(column.left + column.width - EDGE, column.left + EDGE + 1)
            xs = np.arange(column.left + EDGE, right, STEP)
            lines = max(round((bottom - top - GAP) / LINE), 1)
            ys = top + GAP / 2 + LINE * (np.arange(lines) + 0.35)
            tried = np.stack([*map(np.ravel, np.meshgrid(xs, ys))], 1)  # (tried, 2)
            taken = np.array([spot[:2] for spot in self.spots.values()])
            apart = np.abs(tried[:, None] - taken) / (WIDE, TALL)  # (tried, taken, 2)
            x, y = tried[apart.max(2).min(1).argmax()].tolist()
            self.spots[name] = (x, y, WIDE)

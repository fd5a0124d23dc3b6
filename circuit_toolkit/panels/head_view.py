"""The picture of the panel of heads: a map of all heads to choose from, and where they look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import anywidget
import numpy as np
import traitlets

from circuit_toolkit.features.descriptions.words import visible
from circuit_toolkit.views.rendering import script, stylesheet

MOST = 6  # patterns side by side
LEAST = 0.02  # share of attention that is drawn


class HeadView(anywidget.AnyWidget):
    """A map of heads and the attention patterns of those that are selected.

    Attributes
    ----------
    selected : list of [int, int]
        Layer and number of each selected head, as the browser sets them.
    """

    selected = traitlets.List().tag(sync=True)
    _map = traitlets.Dict().tag(sync=True)
    _patterns = traitlets.Dict().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        self._esm, self._css = _sources()  # anywidget makes synced traits of them
        super().__init__(**traits)

    def __repr__(self) -> str:
        """Name what is selected; the traits hold the whole picture."""
        return f"HeadView(selected={self.selected})"

    def show_scores(
        self, scores: np.ndarray, layers: Sequence[int], known: np.ndarray | None, unit: str
    ) -> None:
        """Draw a number for every head (L, H), with a ring round those that are known (L, H)."""
        rings = [] if known is None else np.argwhere(known).tolist()
        self._map = {
            "scores": np.round(np.asarray(scores, float), 6).tolist(),
            "layers": [int(layer) for layer in layers],
            "rings": [[int(layers[row]), head] for row, head in rings],
            "unit": unit,
        }

    def show_patterns(self, words: Sequence[str], patterns: Mapping[str, np.ndarray]) -> None:
        """Draw where heads look: by name, attention (T, T) of each token (row) to each other."""
        shown = [visible(word.strip(" ") or word) for word in words]
        heads = [
            {"name": name, "cells": _cells(np.asarray(each, float)), "last": _last(each, shown)}
            for name, each in list(patterns.items())[:MOST]
        ]
        self._patterns = {"words": shown, "heads": heads, "more": max(len(patterns) - MOST, 0)}


def _cells(pattern: np.ndarray) -> list[list[float]]:
    """Return row, column and share of what is drawn."""
    rows, columns = np.nonzero(pattern >= LEAST)
    shares = np.round(pattern[rows, columns], 3)
    drawn = zip(rows.tolist(), columns.tolist(), shares.tolist(), strict=True)
    return [list(each) for each in drawn]


def _last(pattern: np.ndarray, words: Sequence[str]) -> str:
    """Say in words where the last token looks."""
    best = np.argsort(-pattern[-1], kind="stable")[:3].tolist()
    looks = [f"{words[i]} {pattern[-1, i]:.0%}" for i in best if pattern[-1, i] >= 0.05]
    return f"{words[-1]} looks at {', '.join(looks)}" if looks else f"{words[-1]} looks everywhere"


@cache
def _sources() -> tuple[str, str]:
    return str(script("panels/static/head_view.js")), str(stylesheet("panels/static/head_view.css"))

"""What the browser is told of heads: their scores as a map, and where they look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from circuit_toolkit.features.descriptions.words import visible
from circuit_toolkit.panels.head_scoring import WAYS, ScoredHeads
from circuit_toolkit.views.rendering import render

MOST = 6  # patterns side by side
LEAST = 0.02  # share of attention that is drawn


def map_of(scores: np.ndarray, known: np.ndarray | None, unit: str) -> dict[str, Any]:
    """Return a number for every head (L, H), with a ring round those that are known (L, H)."""
    return {
        "scores": np.round(np.asarray(scores, float), 6).tolist(),
        "layers": [*range(len(scores))],
        "rings": [] if known is None else np.argwhere(known).tolist(),
        "unit": unit,
    }


def patterns_of(words: Sequence[str], patterns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return where heads look: by name, attention (T, T) of each token (row) to each other."""
    shown = [visible(word.strip(" ") or word) for word in words]
    heads = [
        {"name": name, "cells": _cells(np.asarray(each, float)), "last": _last(each, shown)}
        for name, each in list(patterns.items())[:MOST]
    ]
    return {"words": shown, "heads": heads, "more": max(len(patterns) - MOST, 0)}


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


def offered(scored: ScoredHeads) -> dict[str, Any]:
    """Return the ways to score heads, which of them were used, and the settings of head codes."""
    return {
        "ways": [[way, WAYS[way].title, way in scored.scores] for way in scored.ways],
        "total": scored.model.n_layers * scored.model.n_heads,
        "n_train": scored.codes.n_train,
        "n_features": scored.codes.n_features,
    }


def ranked(
    scored: ScoredHeads, heads: Sequence[tuple[int, int]], known: np.ndarray | None
) -> dict[str, str]:
    """Return, as HTML, how heads rank, the codes of one, and how well all ways find known ones."""
    names = [f"a{layer}.h{head}" for layer, head in heads]
    rows = [(WAYS[way].title, scored.ranks(way, heads)) for way in scored.scores]
    missing = [WAYS[way].title for way in scored.ways if way not in scored.scores]
    total = scored.model.n_layers * scored.model.n_heads
    told = {"codes": "", "ways": ""}
    told["ranks"] = filled("ranks.html", heads=names, rows=rows, missing=missing, total=total)
    if scored.fit is not None and len(heads) == 1:
        table = scored.fit.code_table(*heads[0])
        only = np.count_nonzero((table["positives"] > 0) & (table["negatives"] == 0))
        cells = {"columns": list(table), "rows": table.head(8).to_numpy().tolist()}
        told["codes"] = filled("codes.html", total=len(table), only=only, **cells)
    if known is not None and not missing:
        found = scored.against(known)
        told["ways"] = filled("ways.html", n=int(known.sum()), rows=found)
    return told


def filled(template: str, **values: Any) -> str:
    """Fill in a template of the panels; every text in it is escaped."""
    return str(render(f"panels/templates/{template}", **values))

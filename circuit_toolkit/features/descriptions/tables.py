"""What is kept of one dictionary: all that stands out, down to the floors of the rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOKEN = np.dtype(
    [("feature", "i4"), ("token", "i4"), ("contribution", "f4"), ("z", "f4"), ("solo", "f4")]
)
OUTPUT = np.dtype([("feature", "i4"), ("token", "i4"), ("contribution", "f4"), ("z", "f4")])
LINK = np.dtype(
    [("feature", "i4"), ("source", "i4"), ("index", "i4"), ("contribution", "f4"), ("z", "f4")]
)
INHERITED = np.dtype([("feature", "i4"), ("token", "i4"), ("solo", "f4")])
CHANCE = np.dtype([("feature", "i4"), ("z", "f4"), ("solo", "f4")])
CHANCE_LINK = np.dtype([("feature", "i4"), ("z", "f4")])
TABLES = {
    "tokens": TOKEN,
    "outputs": OUTPUT,
    "links": LINK,
    "inherited": INHERITED,
    "chance": CHANCE,
    "chance_links": CHANCE_LINK,
}


@dataclass(frozen=True, eq=False)
class SiteTables:
    """What stands out for the features of one dictionary; every table is sorted by feature."""

    kind: str
    name: str
    tokens: np.ndarray
    outputs: np.ndarray
    links: np.ndarray
    inherited: np.ndarray
    chance: np.ndarray
    chance_links: np.ndarray
    embedding_total: np.ndarray
    upstream_total: np.ndarray
    sampled: np.ndarray

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.embedding_total)

    @property
    def totals(self) -> np.ndarray:
        """What relative contributions are relative to, shape (F,)."""
        return self.embedding_total + self.upstream_total


def rows_of(table: np.ndarray, feature: int) -> np.ndarray:
    """Return the rows of one feature in a table that is sorted by feature."""
    start, stop = np.searchsorted(table["feature"], [feature, feature + 1])
    return table[start:stop]


def filled(dtype: np.dtype, **columns: np.ndarray | float) -> np.ndarray:
    """Make a table of columns of equal length."""
    table = np.empty(len(np.atleast_1d(columns["feature"])), dtype)
    for name, values in columns.items():
        table[name] = values
    return table

"""What is kept of one dictionary: all that stands out, down to the floors of the thresholds."""

from __future__ import annotations

from collections.abc import Sequence
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
NULL = np.dtype([("feature", "i4"), ("z", "f4"), ("solo", "f4")])  # of permuted encoders
NULL_LINK = np.dtype([("feature", "i4"), ("z", "f4")])
TABLES = {
    "tokens": TOKEN,
    "outputs": OUTPUT,
    "links": LINK,
    "inherited": INHERITED,
    "null": NULL,
    "null_links": NULL_LINK,
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
    null: np.ndarray
    null_links: np.ndarray
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


def check_tables(table: SiteTables, number: int, widths: Sequence[int], n_tokens: int) -> None:
    """Raise ValueError for what no run gives, of the dictionary of that number among some."""
    ends = {"feature": widths[number], "token": n_tokens, "source": number}
    for name, dtype in TABLES.items():
        rows = getattr(table, name)
        if rows.dtype != dtype or rows.ndim != 1:
            raise ValueError(f"{name} is of another version")
        for column in dtype.names or ():
            values = rows[column]
            end = np.array(widths)[rows["source"]] if column == "index" else ends.get(column)
            if not np.isfinite(values).all() if end is None else _outside(values, end):
                raise ValueError(f"{column} of {name} is out of range")
        if (rows["feature"][1:] < rows["feature"][:-1]).any():
            raise ValueError(f"{name} is not sorted by feature")
    for name in ("embedding_total", "upstream_total", "sampled"):
        values = getattr(table, name)
        kind = "b" if name == "sampled" else "f"
        if values.shape != (widths[number],) or values.dtype.kind != kind:
            raise ValueError(f"{name} is of other features")
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds NaN or infinity")


def _outside(values: np.ndarray, end: np.ndarray | int) -> bool:
    return bool(((values < 0) | (values >= end)).any())


def rows_of(table: np.ndarray, feature: int) -> np.ndarray:
    """Return the rows of one feature in a table that is sorted by feature."""
    start, stop = np.searchsorted(table["feature"], [feature, feature + 1])
    return table[start:stop]


def table_of_columns(dtype: np.dtype, **columns: np.ndarray | float) -> np.ndarray:
    """Return a table of columns of equal length."""
    table = np.empty(len(np.atleast_1d(columns["feature"])), dtype)
    for name, values in columns.items():
        table[name] = values
    return table

"""Tables of descriptions from files: what no run gives is refused."""

from dataclasses import replace

import numpy as np
import pytest

from circuit_toolkit.features.descriptions.tables import (
    TABLES,
    SiteTables,
    check_tables,
    table_of_columns,
)

FEATURES, WIDTHS, TOKENS = 4, [3, 4], 10


def tables() -> SiteTables:
    """What a run might give for the second dictionary of two."""
    values = {"feature": np.array([0, 1, 3]), "token": 9, "source": 0, "index": 2}
    values |= {"contribution": 1.0, "z": 5.0, "solo": 0.5}
    made = {
        name: table_of_columns(dtype, **{column: values[column] for column in dtype.names or ()})
        for name, dtype in TABLES.items()
    }
    totals = np.ones(FEATURES, np.float32)
    return SiteTables(
        "sae", "a", **made, embedding_total=totals, upstream_total=totals, sampled=totals > 0
    )


def changed(name, column, value):
    def change(given):
        rows = getattr(given, name).copy()
        rows[column][1] = value
        return replace(given, **{name: rows})

    return change


def test_what_a_run_gives_is_fine():
    check_tables(tables(), 1, WIDTHS, TOKENS)
    nothing = {name: np.empty(0, dtype) for name, dtype in TABLES.items()}
    check_tables(replace(tables(), **nothing), 1, WIDTHS, TOKENS)


@pytest.mark.parametrize(
    "change",
    [
        changed("tokens", "feature", 4),
        changed("tokens", "feature", -1),
        changed("tokens", "token", 10),
        changed("outputs", "token", -1),
        changed("inherited", "token", 2**31 - 1),
        changed("links", "source", 1),
        changed("links", "source", -1),
        changed("links", "index", 3),
        changed("links", "index", -1),
        changed("tokens", "z", np.nan),
        changed("tokens", "solo", np.inf),
        changed("outputs", "contribution", -np.inf),
        changed("null", "z", np.nan),
        lambda given: replace(given, null_links=given.null_links[::-1]),
        lambda given: replace(given, links=given.outputs),
        lambda given: replace(given, inherited=given.inherited[:, None]),
        lambda given: replace(given, embedding_total=given.embedding_total[:-1]),
        lambda given: replace(given, upstream_total=given.upstream_total * np.nan),
        lambda given: replace(given, upstream_total=given.sampled),
        lambda given: replace(given, sampled=given.embedding_total),
    ],
)
def test_what_no_run_gives_is_refused(change):
    with pytest.raises(ValueError, match="out of range|is of|is not sorted|holds NaN"):
        check_tables(change(tables()), 1, WIDTHS, TOKENS)

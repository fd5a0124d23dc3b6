"""What domain generalisation is measured by, and the table of methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuit_toolkit.evidence.intervals import Interval, bootstrap
from circuit_toolkit.generalisation.spurious import Ranking
from circuit_toolkit.sites import Site
from circuit_toolkit.texts import printable


@dataclass(frozen=True, eq=False)
class Score:
    """How one method does on the test texts."""

    method: str
    target: Interval
    spurious: Interval
    worst: Interval
    removed: Mapping[Site, np.ndarray]
    seconds: float | None = None

    @property
    def n_features(self) -> int:
        """Number of features that were set to zero."""
        return sum(len(features) for features in self.removed.values())


@dataclass(frozen=True, eq=False)
class Generalisation:
    """What `generalise` found.

    Parameters
    ----------
    scores : tuple of Score
        A method each.
    rankings : dict of str to Ranking
        Of `label`, `circuit_lasso` and `shift`.
    settings : dict
        What was measured, and how.
    """

    scores: tuple[Score, ...]
    rankings: Mapping[str, Ranking]
    settings: Mapping[str, Any]

    def __repr__(self) -> str:
        """Name the methods with their worst groups; not the intervals."""
        worst = ", ".join(f"{each.method} {each.worst.value:.3f}" for each in self.scores)
        return printable(f"Generalisation(worst group: {worst})")

    def __getitem__(self, method: str) -> Score:
        """Return the score of a method."""
        return next(each for each in self.scores if each.method == method)

    def table(self):
        """Show all numbers.

        Returns
        -------
        pandas.DataFrame
            A row a method; each share with the ends of its interval beside it.
        """
        import pandas as pd

        rows = {}
        for each in self.scores:
            row: dict[str, Any] = {}
            for name, interval in [
                (f"{self.settings['target']} accuracy", each.target),
                (f"{self.settings['spurious']} accuracy", each.spurious),
                ("worst group", each.worst),
            ]:
                row |= {name: interval.value, f"{name} low": interval.low}
                row[f"{name} high"] = interval.high
            rows[each.method] = row | {"features": each.n_features, "seconds": each.seconds}
        return pd.DataFrame.from_dict(rows, orient="index")


def intervals(
    predicted: np.ndarray, y: np.ndarray, other: np.ndarray, seed: int
) -> tuple[Interval, Interval, Interval]:
    """Accuracy, how often the spurious label is told, worst group; of predictions (draws, n)."""
    right = (predicted == y).T.astype(float)  # (n, draws)
    told = (predicted == other).mean(0)

    def worst(rows: np.ndarray) -> float:
        group, hits = rows[:, 0].astype(int), rows[:, 1:]
        means = [hits[group == each].mean(0) for each in np.unique(group)]
        return float(np.min(means, axis=0).mean())

    grouped = np.column_stack([2 * y + other, right])
    return (
        bootstrap(right.mean(1), seed=seed),
        bootstrap(told, seed=seed),
        bootstrap(grouped, worst, seed=seed, draws=1000),
    )

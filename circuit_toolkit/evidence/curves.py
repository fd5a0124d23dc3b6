"""Faithfulness and completeness of a circuit of features, as curves over its size.

Marks et al., 2025, arXiv 2403.19647: `F(C) = (m(C) - m(empty)) / (m(full) - m(empty))`, where m(C)
is the metric with all features outside C ablated, m(full) that of the model as it is, and m(empty)
with every feature ablated; completeness is the same of what lies outside C. Areas as in MIB
(Mueller et al., 2025, arXiv 2504.13151): CPR under F, CMD under |1 - F|.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.intervals import Interval, bootstrap
from circuit_toolkit.interventions.changes import Change, mean_ablation
from circuit_toolkit.interventions.runs import intervene
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

if TYPE_CHECKING:
    import pandas as pd

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of MIB
_LEAST = 1e-6  # a smaller difference between full and empty model is none


@dataclass(frozen=True, eq=False)
class FaithfulnessCurve:
    """How much of a metric circuits of growing size keep, and what is left without them.

    Parameters
    ----------
    sizes : ndarray of int, shape (k,)
        Features in the circuit.
    fractions : ndarray, shape (k,)
        The same as shares of all features that fire.
    inside, outside : ndarray, shapes (k, n)
        Metric of each prompt with everything but the circuit ablated, and with the circuit
        ablated.
    full, empty : ndarray, shapes (n,)
        Metric of the model as it is, and with every feature ablated.
    random : ndarray, shape (draws, k, n)
        As `inside`, for random circuits of equal size.
    settings : dict
        Model, task, metric, ablation, positions, sizes: what the numbers depend on.
    """

    sizes: np.ndarray
    fractions: np.ndarray
    inside: np.ndarray
    outside: np.ndarray
    full: np.ndarray
    empty: np.ndarray
    random: np.ndarray
    settings: Mapping[str, Any]

    @property
    def faithfulness(self) -> np.ndarray:
        """F of the circuit at each size, shape (k,); 1 is ideal."""
        return self._share(self.inside)

    @property
    def completeness(self) -> np.ndarray:
        """F of what lies outside it, shape (k,); 0 is ideal."""
        return self._share(self.outside)

    @property
    def random_faithfulness(self) -> np.ndarray:
        """F of random circuits, shape (draws, k)."""
        return self._share(self.random)

    @property
    def cpr(self) -> float:
        """Area under F over the share of features; larger is better."""
        return float(np.trapezoid(self.faithfulness, self.fractions))

    @property
    def cmd(self) -> float:
        """Area under |1 - F| over the share of features; 0 is ideal."""
        return float(np.trapezoid(np.abs(1 - self.faithfulness), self.fractions))

    def intervals(self, draws: int = 1000, seed: int = 0) -> list[Interval]:
        """Return F at each size with its bootstrap interval over prompts.

        Parameters
        ----------
        draws : int
            How often prompts are drawn anew.
        seed : int
            Decides which.

        Returns
        -------
        list of Interval, k of them
        """
        return [
            bootstrap(np.stack([m, self.empty, self.full], 1), _ratio, draws=draws, seed=seed)
            for m in self.inside
        ]

    def area_interval(self, draws: int = 1000, seed: int = 0) -> Interval:
        """Return CPR with its bootstrap interval over prompts.

        Parameters
        ----------
        draws : int
            How often prompts are drawn anew.
        seed : int
            Decides which.

        Returns
        -------
        Interval
        """

        def area(rows: np.ndarray) -> float:
            mean = rows.mean(0)
            shares = (mean[:-2] - mean[-2]) / (mean[-1] - mean[-2])
            return float(np.trapezoid(shares, self.fractions))

        rows = np.column_stack([self.inside.T, self.empty, self.full])
        return bootstrap(rows, area, draws=draws, seed=seed)

    def table(self) -> pd.DataFrame:
        """Return the curve for reading, a row for each size.

        Returns
        -------
        DataFrame
            size, fraction, faithfulness with its interval, completeness, random.
        """
        import pandas as pd

        found = self.intervals()
        random = self.random_faithfulness.mean(0) if len(self.random) else np.nan
        return pd.DataFrame(
            {
                "size": self.sizes,
                "fraction": self.fractions,
                "faithfulness": self.faithfulness,
                "low": [each.low for each in found],
                "high": [each.high for each in found],
                "completeness": self.completeness,
                "random": random,
            }
        )

    def __repr__(self) -> str:
        """Name the ablation, the metric and the size beside the areas."""
        random = ""
        if len(self.random):
            area = np.trapezoid(self.random_faithfulness.mean(0), self.fractions)
            random = f" (random circuits {area:.3f})"
        s = self.settings
        return (
            f"FaithfulnessCurve(CPR {self.cpr:.3f}{random}, CMD {self.cmd:.3f}; {s['ablation']} "
            f"ablation at {s['positions']} positions, {s['metric']} of {s['task']}, "
            f"{len(self.full)} prompts, {self.sizes[0]} to {self.sizes[-1]} features)"
        )

    def _share(self, m: np.ndarray) -> np.ndarray:
        empty = self.empty.mean()
        return (m.mean(-1) - empty) / (self.full.mean() - empty)


def _ratio(rows: np.ndarray) -> float:
    inside, empty, full = rows.mean(0)
    return float((inside - empty) / (full - empty))


def faithfulness(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: Task,
    circuit: Circuit | Mapping[Site, np.ndarray],
    acts: Activations | None = None,
    *,
    positions: str = "all",
    sizes: Sequence[int] | None = None,
    draws: int = 3,
    n_prompts: int = 128,
    seed: int = 0,
) -> FaithfulnessCurve:
    """Test a circuit by ablating what lies outside it, at every size.

    A circuit of size s holds the s features with the highest scores; features that fire and are
    not in it come after, in random order. Ablated features are set to their mean; what the
    dictionaries leave unexplained is kept.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        All sites whose features are ablated.
    task : Task
        Clean prompts with a metric.
    circuit : Circuit or dict of Site to ndarray
        Features with scores; or the scores of all features, shape (F,), by site.
    acts : Activations, optional
        Where means come from and which features fire, with the positions at which ablations act;
        by default captured from the task.
    positions : str
        Where `acts` is not given: `all` tokens or the `last`.
    sizes : sequence of int, optional
        Sizes to test; by default the fractions of MIB, of all features that fire.
    draws : int
        Random circuits of each size.
    n_prompts : int
        Prompts of the task to test on, the first ones.
    seed : int
        Decides the random circuits.

    Returns
    -------
    FaithfulnessCurve

    Raises
    ------
    InputError
        If the task has no metric, a feature or site is unknown, a size is out of range, or the
        ablation of all features does not change the metric.
    """
    if task.metric is None:
        raise InputError(f"Task {task.name!r} has labels alone: there is no metric to keep.")
    if acts is None:
        acts = capture(model, dictionaries, task, progress=False).pooled(positions)
    task = task.subset(n_prompts)
    rng = np.random.default_rng(seed)
    universe = _universe(acts, list(dictionaries))
    order = universe[_order(circuit, universe, acts.sites, rng)]
    total = len(universe)
    if sizes is None:
        sizes = sorted({max(1, round(fraction * total)) for fraction in FRACTIONS})
    chosen = np.asarray(sizes, dtype=int)
    if not len(chosen) or chosen.min() < 0 or chosen.max() > total:
        raise InputError(f"sizes must be from 0 to {total}, the features that fire: {sizes!r}.")

    def measured(features: np.ndarray) -> np.ndarray:
        # What never fires is always ablated: it may fire once others are.
        kept = {
            site: features["feature"][features["site"] == number].astype(np.int64)
            for number, site in enumerate(acts.sites)
        }
        return _measure(model, dictionaries, task, mean_ablation(acts, kept, complement=True))

    full = _measure(model, dictionaries, task, [])
    empty = measured(universe[:0])
    if abs(full.mean() - empty.mean()) < _LEAST:
        raise InputError(
            f"Ablating every feature leaves the {task.metric} of {task.name!r} as it is, so no "
            "circuit can keep a share of it."
        )
    orders = [universe[rng.permutation(total)] for _ in range(draws)]
    return FaithfulnessCurve(
        sizes=chosen,
        fractions=chosen / total,
        inside=np.stack([measured(order[:size]) for size in chosen]),
        outside=np.stack([measured(order[size:]) for size in chosen]),
        full=full,
        empty=empty,
        random=np.array([[measured(o[:size]) for size in chosen] for o in orders]).reshape(
            draws, len(chosen), len(full)
        ),
        settings={
            "model": model.name,
            "task": task.name,
            "metric": task.metric,
            "ablation": "mean",
            "positions": acts.settings.get("positions", "all"),
            "universe": f"{total} features that fire",
            "n_prompts": len(full),
            "seed": seed,
        },
    )


_FEATURE = np.dtype([("site", "i4"), ("feature", "i4")])  # site by its place among the sites


def _universe(acts: Activations, sites: list[Site]) -> np.ndarray:
    """All features that fire, site by site."""
    parts = []
    for number, site in enumerate(acts.sites):
        if site not in sites:
            raise InputError(f"No dictionary was given for {site}, which was captured.")
        active = np.unique(acts.features[site].indices)
        part = np.zeros(len(active), _FEATURE)
        part["site"], part["feature"] = number, active
        parts.append(part)
    return np.concatenate(parts)


def _order(
    circuit: Circuit | Mapping[Site, np.ndarray],
    universe: np.ndarray,
    sites: list[Site],
    rng: np.random.Generator,
) -> np.ndarray:
    """Rows of the universe, best first; ties in random order."""
    scores = np.zeros(len(universe))
    if isinstance(circuit, Circuit):
        nodes = circuit.nodes[:-1]
        named = [(Site.parse(str(name)), name) for name in np.unique(nodes["site"])]
        given = {
            site: (nodes["feature"][nodes["site"] == name], nodes["score"][nodes["site"] == name])
            for site, name in named
        }
    else:
        given = {site: (np.arange(len(each)), np.abs(each)) for site, each in circuit.items()}
    for site, (features, score) in given.items():
        if site not in sites:
            known = ", ".join(map(str, sites))
            raise InputError(f"The circuit has features of {site}, which is not among {known}.")
        rows = np.flatnonzero(universe["site"] == sites.index(site))
        table = dict(zip(features.tolist(), score.tolist(), strict=True))
        scores[rows] = [table.get(feature, 0.0) for feature in universe["feature"][rows].tolist()]
    shuffled = rng.permutation(len(universe))
    return shuffled[np.argsort(-scores[shuffled], kind="stable")]


def _measure(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: Task,
    changes: Sequence[Change],
) -> np.ndarray:
    outcome = intervene(model, task, changes, dictionaries=dictionaries, progress=False)
    assert outcome.metric is not None
    return outcome.metric.double().numpy()

"""Faithfulness and completeness of a circuit, as curves over its size.

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
from circuit_toolkit.arguments import expect, expect_known, whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.evaluation import (
    LEAST,
    evaluated_on,
    expect_better,
    metric_under,
    share_kept,
    with_metric,
)
from circuit_toolkit.evidence.intervals import Interval, bootstrap
from circuit_toolkit.interventions.changes import mean_ablation
from circuit_toolkit.models import Model
from circuit_toolkit.patching.placed_features import PlacedFeatures
from circuit_toolkit.progress import Bar
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

if TYPE_CHECKING:
    import pandas as pd

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of MIB


@dataclass(frozen=True, eq=False)
class FaithfulnessCurve:
    """Faithfulness and completeness of circuits of growing size.

    Parameters
    ----------
    sizes : ndarray of int, shape (k,)
        Features in the circuit.
    fractions : ndarray, shape (k,)
        The same as shares of all.
    inside, outside : ndarray, shapes (k, n)
        Metric of each prompt with everything but the circuit ablated, and with the circuit
        ablated.
    full, empty : ndarray, shapes (n,)
        Metric of the model as it is, and with every feature ablated.
    random : ndarray, shape (draws, k, n)
        As `inside`, for random circuits of equal size.
    settings : dict
        `evaluated_on`, `ablation`, `ablated_positions` and `random_seed` as in the evidence that
        `evaluate` gives; and the `universe` that sizes are shares of.
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
            bootstrap(np.stack([m, self.full, self.empty], 1), share_kept, draws=draws, seed=seed)
            for m in self.inside
        ]

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
        s, on = self.settings, self.settings["evaluated_on"]
        return (
            f"FaithfulnessCurve(CPR {self.cpr:.3f}{random}, CMD {self.cmd:.3f}; {s['ablation']} "
            f"ablation of features at {s['ablated_positions']} positions, {on['metric']} of "
            f"{on['task']}, {len(self.full)} prompts, {self.sizes[0]} to {self.sizes[-1]} features)"
        )

    def _share(self, m: np.ndarray) -> np.ndarray:
        empty = self.empty.mean()
        return (m.mean(-1) - empty) / (self.full.mean() - empty)


def faithfulness(
    circuit: Circuit | Mapping[Site, np.ndarray],
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: Task,
    acts: Activations | None = None,
    *,
    positions: str | None = None,
    sizes: Sequence[int] | None = None,
    draws: int = 3,
    n_prompts: int = 128,
    seed: int = 0,
    progress: bool = True,
) -> FaithfulnessCurve:
    """Test a circuit by ablating what lies outside it, at every size.

    A circuit of size s holds the s features with the highest scores; active features that are not
    in it come after, in random order. Ablated features are set to their mean; what the
    dictionaries leave unexplained is kept.

    Parameters
    ----------
    circuit : Circuit or dict of Site to ndarray
        Features with scores; or the scores of all features, shape (F,), by site.
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        All sites whose features are ablated.
    task : Task
        Clean prompts with a metric; better one that the circuit was not learnt on.
    acts : Activations, optional
        Where means come from and which features are active, with the positions at which ablations
        act; by default captured from the task.
    positions : str, optional
        Where `acts` is not given: `all` tokens, the `last`, or a position that the task names; by
        default that of the circuit.
    sizes : sequence of int, optional
        Sizes to test; by default the fractions of MIB, of all active features.
    draws : int
        Random circuits of each size.
    n_prompts : int
        Prompts of the task to test on, the first ones.
    seed : int
        Decides the random circuits.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    FaithfulnessCurve

    Raises
    ------
    InputError
        If the task has no metric, a feature or site is unknown, a size is out of range, or the
        ablation of all features does not change the metric.
    """
    if not isinstance(circuit, Mapping):
        expect(circuit, "circuit", "Circuit")
    known, part = as_dictionaries(model, dictionaries), with_metric(task).subset(n_prompts)
    own = {} if isinstance(circuit, Mapping) else circuit.settings
    if acts is None:
        where = positions or str(own.get("positions", "all"))
        acts = capture(model, known, task, progress=progress).pooled(where)
    rows = acts
    rng = np.random.default_rng(seed)
    universe = _universe(rows, list(known))

    def measure(kept: np.ndarray) -> np.ndarray:
        # What is never active is always ablated: it may be once others are.
        features = {
            site: kept["feature"][kept["site"] == number].astype(np.int64)
            for number, site in enumerate(rows.sites)
        }
        return metric_under(model, part, known, mean_ablation(rows, features, complement=True))

    order, total = universe[_order(circuit, universe, rows.sites, rng)], len(universe)
    if sizes is None:
        sizes = sorted({max(1, round(fraction * total)) for fraction in FRACTIONS})
    chosen = np.asarray(sizes, dtype=int)
    if not len(chosen) or chosen.min() < 0 or chosen.max() > total:
        raise InputError(f"sizes must be from 0 to {total}, the number of features: {sizes!r}.")
    full, empty = metric_under(model, part, known, []), measure(order[:0])
    if abs(full.mean() - empty.mean()) < LEAST:
        raise InputError(
            f"Ablating all features leaves the {part.metric} of {part.name!r} as it is, so no "
            "circuit can keep a share of it."
        )
    orders = [order, *(universe[rng.permutation(total)] for _ in range(whole(draws, "draws", 0)))]
    cuts = [each[:size] for each in orders for size in chosen]
    cuts += [order[size:] for size in chosen]
    found = [measure(cut) for cut in Bar(cuts, "ablating", shown=progress)]
    table = np.stack(found).reshape(-1, len(chosen), len(full))
    return FaithfulnessCurve(
        sizes=chosen,
        fractions=chosen / total,
        inside=table[0],
        outside=table[-1],
        full=full,
        empty=empty,
        random=table[1:-1],
        settings={
            "evaluated_on": evaluated_on(own, model, part),
            "ablation": "mean",
            "ablated_positions": rows.settings.get("positions", "all"),
            "universe": f"{total} active features",
            "random_seed": seed,
        },
    )


def faithfulness_by_size(
    circuit: Circuit,
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: Task,
    sizes: Sequence[int],
    *,
    n_prompts: int = 128,
) -> np.ndarray:
    """Return F of the features with the highest scores, so many at a time.

    Parameters
    ----------
    circuit : Circuit
        Of features at positions, from `CircuitLasso` or `find_circuit`: what is left out is ablated
        as its settings say.
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Those of the circuit.
    task : Task
        Prompts, better such as the circuit was not learnt on.
    sizes : sequence of int
        How many features are kept.
    n_prompts : int
        Prompts of the task to test on, the first ones.

    Returns
    -------
    ndarray, shape (sizes,)
        1 is what the model has, 0 what is left with all features at these places ablated.
    """
    said, part = circuit.settings, with_metric(task).subset(n_prompts)
    known = {Site.parse(name): dictionaries[Site.parse(name)] for name in said["sites"]}
    runs = PlacedFeatures.of(model, known, part, said["positions"], said.get("ablation"))
    plain = runs.metric(), runs.metric_with({})
    expect_better(model, part, "feature", *(float(each.mean()) for each in plain))
    nodes = circuit.nodes[circuit.nodes["kind"] == "feature"]
    order = nodes[np.argsort(-nodes["score"], kind="stable")]
    found = []
    for size in sizes:
        kept: dict[tuple[Site, str], list[int]] = {}
        for site, position, index in order[["site", "position", "index"]][:size].tolist():
            kept.setdefault((Site.parse(site), position), []).append(index)
        mine = runs.metric_with({place: np.sort(units) for place, units in kept.items()})
        found.append(share_kept(np.stack([mine, *plain], 1)))
    return np.array(found)


_FEATURE = np.dtype([("site", "i4"), ("feature", "i4")])  # site by its place among the sites


def _universe(acts: Activations, sites: list[Site]) -> np.ndarray:
    """All active features, site by site."""
    found = []
    for number, site in enumerate(acts.sites):
        expect_known(site, sites, f"No dictionary was given for {site}")
        active = np.unique(acts.features[site].indices).tolist()
        found += [(number, feature) for feature in active]
    return np.array(found, _FEATURE)


def _order(
    circuit: Circuit | Mapping[Site, np.ndarray],
    universe: np.ndarray,
    sites: list[Site],
    rng: np.random.Generator,
) -> np.ndarray:
    """Rows of the universe, best first; ties in random order."""
    if isinstance(circuit, Circuit):
        rows = circuit.nodes[:-1][["site", "index", "score"]].tolist()
        given = {(Site.parse(site), feature): score for site, feature, score in rows}
    else:
        given = {
            (site, feature): abs(score)
            for site, column in circuit.items()
            for feature, score in enumerate(column.tolist())
        }
    if other := {site for site, _ in given} - {*sites}:
        known = ", ".join(map(str, sites))
        raise InputError(f"The circuit has features of {min(other)}, which is not among {known}.")
    scores = np.array([given.get((sites[n], each), 0.0) for n, each in universe.tolist()])
    shuffled = rng.permutation(len(universe))
    return shuffled[np.argsort(-scores[shuffled], kind="stable")]

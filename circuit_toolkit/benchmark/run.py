"""All methods over many cases whose circuit is known: rows, their means, and pairs of methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from circuit_toolkit.benchmark.interpbench.case_prompts import CaseMetric
from circuit_toolkit.benchmark.interpbench.cases import KnownCase
from circuit_toolkit.benchmark.methods import BASELINES, Method, run_methods, warm_up
from circuit_toolkit.benchmark.metrics import hamming, oracle_threshold
from circuit_toolkit.benchmark.truth import Truth, against
from circuit_toolkit.evidence.intervals import bootstrap, paired
from circuit_toolkit.models.model import Model
from circuit_toolkit.tasks.prompt_pairs import PromptPairs

if TYPE_CHECKING:
    import pandas as pd

OWN, ORACLE = "own", "oracle"
VERSUS = "eap_ig_absolute"  # what other methods are compared with, case by case
AVERAGED = (
    "edge_auroc", "edge_ap", "ap_10", "ap_20", "ap_40", "node_auroc", "node_ap",
    "shd", "shd_best", "shd_empty", "n_edges", "seconds", "cpu_seconds",
)  # fmt: skip


class Trial(NamedTuple):
    """A model, prompts for it, and the circuit that it is known to have."""

    name: str
    model: Model
    task: PromptPairs
    truth: Truth


@dataclass(frozen=True)
class Bench:
    """How well methods find known circuits; rows are plain dicts, for tables and for JSON."""

    cases: list[dict[str, Any]]
    means: list[dict[str, Any]]
    pairs: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


def trials_of(cases: Sequence[KnownCase], metric: CaseMetric = "difference") -> Iterator[Trial]:
    """Make trials of known cases."""
    for case in cases:
        yield Trial(case.name, case.model, case.task.with_metric(metric), case.truth)


def bench(
    trials: Sequence[Trial],
    methods: Mapping[str, Method],
    *,
    n_prompts: int | None = None,
    seed: int = 0,
    repeats: int = 1,
    say: Callable[[str, list[dict[str, Any]]], None] | None = None,
) -> Bench:
    """Run all methods over all cases."""
    import torch

    rows: list[dict[str, Any]] = []
    scores: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    for number, trial in enumerate(trials):
        if not number:
            warm_up(trial.model, trial.task)
        runs = run_methods(
            trial.model,
            trial.task,
            methods,
            n_prompts=n_prompts,
            seed=seed + number,
            repeats=repeats,
            progress=False,
        )
        new = []
        for name, run in runs.items():
            row = {"case": trial.name, "method": name, **against(run.circuit, trial.truth)}
            row["shd_rule"] = None if row["shd"] is None else OWN
            row |= {"seconds": run.seconds, "cpu_seconds": run.cpu_seconds}
            scores[name].append(trial.truth.scores(run.circuit))
            new.append(row)
        rows += new
        if say is not None:
            say(trial.name, new)
    shares = {}
    for name in methods:
        mine = [row for row in rows if row["method"] == name]
        if any(row["shd"] is None and row["edge_ap"] is not None for row in mine):
            truths = [trial.truth.mask for trial in trials]
            shares[name], _ = oracle_threshold(truths, scores[name])
            for row, truth, values in zip(mine, truths, scores[name], strict=True):
                graph = values > shares[name] * values.max()
                row |= {"shd": hamming(truth, graph), "n_edges": int(graph.sum())}
                row["shd_rule"] = ORACLE
    settings = {
        "n_prompts": n_prompts,
        "seed": seed,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "oracle_thresholds": shares,
        "versus": VERSUS,
    }
    tables = {name: _table([r for r in rows if r["method"] == name]) for name in methods}
    means = [_mean(name, table) for name, table in tables.items()]
    return Bench(rows, means, list(_pairs(tables)), settings)


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows of one method, a row a case, NaN where there is no number."""
    import pandas as pd

    table = pd.DataFrame(rows)
    numbers = [key for key in AVERAGED if key in table]
    return table.astype(dict.fromkeys(numbers, float))


def _mean(name: str, table: pd.DataFrame) -> dict[str, Any]:
    found: dict[str, Any] = {"method": name, "n_cases": len(table)}
    found["shd_rule"] = table["shd_rule"].iloc[0]
    for key in AVERAGED:
        if key in table:
            values = table[key].dropna().to_numpy()
            found[key] = float(values.mean()) if len(values) else None
            if len(values) > 1:
                found[f"{key}_interval"] = list(bootstrap(values)[1:])
    return found


def _pairs(tables: Mapping[str, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    """Differences of methods to one of them, case by case."""
    named = [name for name in tables if name not in (VERSUS, *BASELINES)]
    for name in named if VERSUS in tables else ():
        for key in ("edge_auroc", "edge_ap", "node_auroc", "shd"):
            both = np.stack([tables[name][key], tables[VERSUS][key]])
            both = both[:, np.isfinite(both).all(0)]
            if both.size:
                (difference, low, high), p_value = paired(*both)
                yield {
                    **{"method": name, "versus": VERSUS, "score": key, "difference": difference},
                    **{"interval": [low, high], "p_value": p_value},
                }

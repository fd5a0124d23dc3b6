"""Methods side by side on one task: what each finds, how near it is to the truth, what it takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.arguments import refuse_surrogates
from circuit_toolkit.benchmark.methods import (
    Method,
    MethodRun,
    chosen_methods,
    run_methods,
    warm_up,
)
from circuit_toolkit.benchmark.truth import (
    BUDGETS,
    Edge,
    Truth,
    against,
    scores_nodes_alone,
    truth_of,
)
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.component_faithfulness import KeptEdges, default_sizes, kept_edges
from circuit_toolkit.evidence.intervals import Paired, paired
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.models.model import Model
from circuit_toolkit.tasks.prompt_pairs import PromptPairs, expect_pairs
from circuit_toolkit.texts import printable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Comparison:
    """What methods found on one task.

    Parameters
    ----------
    name : str
        Of the task.
    runs : dict of str to MethodRun
        Circuit and seconds of each method.
    truth : Truth or None
        What is right.
    kept : KeptEdges or None
        What the strongest edges keep by themselves, of methods that score edges.
    """

    name: str
    runs: Mapping[str, MethodRun]
    truth: Truth | None
    kept: KeptEdges | None

    @property
    def table(self) -> pd.DataFrame:
        """A row for each method.

        With a truth the scores of `against`; with kept edges `cpr` and `cmd` (areas of the curve,
        see `KeptEdges.areas`) and `kept_K`, the share that the K strongest keep, for the size
        nearest to each of 10, 20 and 40; then seconds.
        """
        import pandas as pd

        rows = {}
        for name, run in self.runs.items():
            row: dict[str, Any] = {}
            if self.truth is not None:
                row |= against(run.circuit, self.truth)
            if self.kept is not None and name in self.kept.measured:
                shares = self.kept.shares(name).mean(0)
                for size in _near(self.kept.sizes):
                    row[f"kept_{size}"] = shares[self.kept.sizes.index(size)]
                row["cpr"], row["cmd"] = self.kept.areas(name)
            rows[name] = row | {"seconds": run.seconds, "cpu_seconds": run.cpu_seconds}
        table = pd.DataFrame.from_dict(rows, orient="index").astype(float)
        table.index.name = "method"
        return table.dropna(axis="columns", how="all")

    @property
    def curves(self) -> pd.DataFrame:
        """What the strongest edges of each method are worth, a row for each number of them.

        Columns `method`, `size`; with a truth `recall`, the share of the true edges among them;
        with kept edges `kept`, `low` and `high`, the share that they keep and its interval.
        """
        import pandas as pd

        parts = []
        for name, run in self.runs.items():
            if scores_nodes_alone(run.circuit):
                continue
            sizes = self.kept.sizes if self.kept else _sizes(self.truth)
            table = pd.DataFrame({"method": name, "size": sizes})
            if self.truth is not None:
                table["recall"] = _recall(run, self.truth, sizes)
            if self.kept:
                table[["kept", "low", "high"]] = self.kept.curve(name)
            parts.append(table)
        return pd.concat(parts, ignore_index=True)

    def paired(self, first: str, second: str, size: int) -> Paired:
        """Compare what two methods keep, prompt by prompt.

        Parameters
        ----------
        first, second : str
            Methods.
        size : int
            Number of strongest edges, one of `kept.sizes`.

        Returns
        -------
        Paired
            Of the shares that the first keeps minus those of the second.

        Raises
        ------
        InputError
            If there is no such method or size, or kept edges were not measured.
        """
        if self.kept is None:
            raise InputError("Kept edges were not measured: pass sizes to compare.")
        if size not in self.kept.sizes or not {first, second} <= set(self.kept.measured):
            raise InputError(
                f"Measured are sizes {', '.join(map(str, self.kept.sizes))} of "
                f"{', '.join(self.kept.measured)}; got {size}, {first!r} and {second!r}."
            )
        at = self.kept.sizes.index(size)
        return paired(self.kept.shares(first)[:, at], self.kept.shares(second)[:, at])

    def __repr__(self) -> str:
        """Name and methods."""
        return printable(f"Comparison({self.name!r}: {', '.join(self.runs)})")

    def _repr_html_(self) -> str:
        return self.table.to_html(float_format="{:.3g}".format, na_rep="")


def compare(
    model: Model,
    task: PromptPairs,
    methods: Sequence[str] | Mapping[str, Method] | None = None,
    *,
    truth: Circuit | Iterable[Edge] | None = None,
    universe: Sequence[Edge] | None = None,
    sizes: Sequence[int] | None = None,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    repeats: int = 1,
    progress: bool = True,
) -> Comparison:
    """Run methods side by side and hold what they find against the truth, or the model itself.

    Parameters
    ----------
    model : Model
        The model.
    task : PromptPairs
        Prompts with corrupted prompts: a `Task`, or that of a known case.
    methods : sequence of str or dict of str to callable, optional
        Names of `METHODS`, or methods of your own by name; by default all but exact edge
        patching. Random scores and the empty graph are always there.
    truth : Circuit or iterable of (str, str), optional
        What is right: scores of an exact method, such as `edge_patching` or a reference circuit,
        of which the 40 strongest edges are true; or the edges.
    universe : sequence of (str, str), optional
        Edges that count against the truth; by default all of the model.
    sizes : sequence of int, optional
        Numbers of strongest edges that are kept alone, all others carrying the corrupted run. By
        default from few to all where there is no truth, and none where there is.
    n_prompts : int, optional
        How many to use, the first ones; by default all.
    batch_size : int, optional
        By default what each method chooses.
    seed : int
        Of what is random.
    repeats : int
        Rounds through all methods; the shortest time counts.
    progress : bool
        Whether to show which method runs, and its own progress.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If a method is unknown, there are no corrupted prompts of equal length, or the truth does
        not fit.
    """
    n_prompts = expect_pairs(model, task, n_prompts)
    graph, methods = graph_of(model), chosen_methods(methods)
    for name in methods:
        refuse_surrogates(name, "The name of a method")
    known = None if truth is None else truth_of(graph, truth, universe=universe)
    warm_up(model, task)
    runs = run_methods(
        model,
        task,
        methods,
        n_prompts=n_prompts,
        batch_size=batch_size,
        seed=seed,
        repeats=repeats,
        progress=progress,
    )
    kept = None
    if sizes is None and truth is None:
        sizes = sorted({*default_sizes(graph), *(k for k in BUDGETS if k < len(graph.edges))})
    if sizes:
        edges = {n: r.circuit for n, r in runs.items() if not scores_nodes_alone(r.circuit)}
        kept = kept_edges(model, task, edges, sizes, n_prompts=n_prompts, progress=progress)
    return Comparison(task.name, runs, known, kept)


def _near(sizes: Sequence[int]) -> list[int]:
    """Sizes nearest to the budgets."""
    return sorted({min(sizes, key=lambda size: abs(size - budget)) for budget in BUDGETS})


def _sizes(truth: Truth | None) -> list[int]:
    """Every size up to three times the truth."""
    return [] if truth is None else list(range(1, min(3 * len(truth.edges), len(truth.universe))))


def _recall(run: MethodRun, truth: Truth, sizes: Sequence[int]) -> np.ndarray:
    """Share of the true edges among so many strongest; edges that score 0 are never among them."""
    scores = truth.scores(run.circuit)
    hits = (truth.mask & (scores > 0))[np.argsort(-scores, kind="stable")].cumsum()
    return np.r_[0, hits][np.minimum(sizes, len(hits))] / len(truth.edges)

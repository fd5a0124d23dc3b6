"""Ways to find the heads of a task side by side, against the heads that are in its circuit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.arguments import described, expect, is_a
from circuit_toolkit.attribution.heads import (
    ATTRIBUTION,
    TOWARDS,
    head_outputs,
    head_scores,
    scores_of_heads,
    towards_answer,
)
from circuit_toolkit.benchmark.metrics import at_budget, average_precision, roc_auc
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import edge_scores
from circuit_toolkit.display import draw
from circuit_toolkit.errors import InputError
from circuit_toolkit.head_codes import HeadCodes, HeadCodesFit
from circuit_toolkit.models.graph import Graph
from circuit_toolkit.models.model import Model
from circuit_toolkit.patching.effects import activation_patching
from circuit_toolkit.progress import Bar
from circuit_toolkit.tasks import Task

if TYPE_CHECKING:
    import pandas as pd

OURS, PUBLISHED, UNTRAINED = "head codes", "head codes, published", "untrained autoencoder"
# What a method does to the model beside reading its activations.
USES = {ATTRIBUTION: "gradients", "activation patching": "interventions"}


@dataclass(frozen=True, eq=False)
class HeadComparison:
    """How well methods find the heads of a circuit.

    Parameters
    ----------
    rows : list of dict
        A row for each method: `method`; `uses` (`activations`, `gradients` or `interventions`);
        `node_auc`, `node_ap`, means over seeds, with `_spread`, their standard deviation;
        `precision`, `recall` and `f1` of as many heads as are true; `edge_auc` where pairs are
        scored and edges are known; `seconds` and `cpu_seconds` after what all methods share, the
        capture.
    scores : dict of str to ndarray, each (S, L, H)
        Scores by method and seed.
    truth : ndarray of bool, shape (L, H)
        The heads that are in the circuit.
    fit : HeadCodesFit
        The head codes, to look into.
    """

    rows: list[dict[str, Any]]
    scores: dict[str, np.ndarray]
    truth: np.ndarray
    fit: HeadCodesFit

    def figure(self) -> Any:
        """Draw how well each way agrees with the truth.

        Returns
        -------
        plotly.graph_objects.Figure
        """
        return draw(self, "figure")

    def table(self) -> pd.DataFrame:
        """Rows for reading, the highest ROC AUC first, with one digit more than they are sure of.

        Returns
        -------
        DataFrame
        """
        import pandas as pd

        table = pd.DataFrame(self.rows).set_index("method")
        return table.sort_values("node_auc", ascending=False).round(3)


def head_agreement(scores: np.ndarray, truth: np.ndarray, budget: int | None = None) -> dict:
    """Hold scores of heads, (L, H) or (S, L, H) of seeds, against the mask of those of a circuit.

    Precision, recall and F1 are of the `budget` highest, by default as many as are true; the rest
    are means over seeds, with `_spread`, their standard deviation.
    """
    truth = np.asarray(truth, dtype=bool)
    each = np.asarray(scores, dtype=float)
    each = each[None] if each.ndim == truth.ndim else each
    if each.shape[1:] != truth.shape:
        raise InputError(f"Scores are of {each.shape[1:]} heads, the truth of {truth.shape}.")
    if truth.all() or not truth.any():
        raise InputError(
            f"{truth.sum()} of {truth.size} heads are true: nothing can be told apart."
        )
    budget = int(truth.sum()) if budget is None else budget
    flat = truth.ravel()
    auc = [roc_auc(flat, one.ravel()) for one in each]
    ap = [average_precision(flat, one.ravel()) for one in each]
    kept = np.mean([at_budget(flat, one.ravel(), budget) for one in each], axis=0)
    return {
        "node_auc": float(np.mean(auc)),
        "node_auc_spread": float(np.std(auc)),
        "node_ap": float(np.mean(ap)),
        "node_ap_spread": float(np.std(ap)),
        **dict(zip(("precision", "recall", "f1"), kept.tolist(), strict=True)),
    }


def compare_heads(
    model: Model,
    task: Task,
    truth: np.ndarray,
    codes: HeadCodes | None = None,
    *,
    edges: np.ndarray | None = None,
    interventions: bool = True,
    bos: bool = False,
    progress: bool = True,
) -> HeadComparison:
    """Score all heads by head codes, by simpler and slower methods and by trivial baselines.

    Parameters
    ----------
    model : Model
        The model.
    task : Task
        With corrupted prompts.
    truth : ndarray of bool, shape (L, H)
        The heads that are in the circuit: `HeadEffects.reference()`, or
        `canonical_circuit("ioi").mask()`.
    codes : HeadCodes, optional
        By default `HeadCodes()`.
    edges : ndarray of bool, shape (L * H, L * H), optional
        Pairs of heads, from row to column, that are edges of the circuit.
    interventions : bool
        Run attribution and activation patching too.
    bos : bool
        Whether the beginning-of-sequence token counts in a mean, as in the published form.
    progress : bool
        Whether to show which method runs.

    Returns
    -------
    HeadComparison
        Of the share of the output that changes towards the answer, and attribution patching
        (`head_scores`); head codes, the same autoencoder without training, the published form;
        the mean norm of the difference of a pair's outputs, which is what head codes see; the norm
        of the difference of mean outputs on prompts and on corrupted prompts; the index of the
        layer; activation patching.

    Raises
    ------
    InputError
        As `HeadCodes.fit`, or if the truth is of another model.
    """
    expect(model, "model", "Model")
    expect(task, "task", "Task")
    shape = (model.n_layers, model.n_heads)
    truth = _as_truth(truth, shape)
    codes = HeadCodes() if codes is None else codes
    expect(codes, "codes", "HeadCodes")
    published = HeadCodes.published(n_seeds=codes.n_seeds, seed=codes.seed)
    where = codes.positions_of(task)
    acts = capture(model, "head_out", task, where, bos=bos, progress=progress)
    means = capture(model, "head_out", task, "mean", bos=True, progress=progress)
    outputs = head_outputs(acts, model.n_heads)
    fits: dict[str, HeadCodesFit] = {}

    ways = lead_ways(model, task, codes, acts, fits, gradients=interventions)
    ways |= {
        PUBLISHED: lambda: _fitted(fits, PUBLISHED, published, means, task),
        "published pairs": lambda: fits[PUBLISHED].heads_in_pairs,
        "layer index": lambda: np.repeat(np.arange(shape[0])[:, None], shape[1], 1),
        "difference of means": lambda: differences(outputs)[0],
        "difference of pairs": lambda: differences(outputs)[1],
    }
    if interventions:
        ways["activation patching"] = lambda: scores_of_heads(
            activation_patching(model, task, batch_size=PATCHED_AT_ONCE), shape
        )
    rows, scores = [], {}
    for name, way in (bar := Bar(ways.items(), shown=progress)):
        bar.tell(name)
        began, cpu = time.perf_counter(), time.process_time()
        made = way()
        used = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
        if made is None:
            continue
        scores[name] = made[None] if made.ndim == 2 else made
        row = {"method": name, "uses": USES.get(name, "activations")}
        rows.append({**row, **head_agreement(made, truth), "edge_auc": None, **used})
    if edges is not None:
        for row in rows:
            if row["method"] in (OURS, PUBLISHED):
                row["edge_auc"] = pair_auc(fits[row["method"]], edges)
    return HeadComparison(rows, scores, truth, fits[OURS])


Way = Callable[[], "np.ndarray | None"]
PATCHED_AT_ONCE = 128  # prompts: of more, the inputs of all heads outgrow a small machine


def lead_ways(
    model: Model,
    task: Task,
    codes: HeadCodes,
    acts: Activations,
    fits: dict[str, HeadCodesFit],
    gradients: bool = True,
) -> dict[str, Way]:
    """Return what scores the heads: first what leads, then codes and their untrained baseline.

    What autoencoders find is put into `fits`.
    """
    ways: dict[str, Way] = {
        TOWARDS: lambda: towards_answer(model, task, head_outputs(acts, model.n_heads)),
        ATTRIBUTION: lambda: head_scores(model, task, ATTRIBUTION, progress=False),
        OURS: lambda: _fitted(fits, OURS, codes, acts, task),
        UNTRAINED: lambda: _fitted(fits, UNTRAINED, replace(codes, steps=0), acts, task),
    }
    if not gradients:
        del ways[ATTRIBUTION]
    return ways


def _fitted(
    fits: dict[str, HeadCodesFit], name: str, codes: HeadCodes, acts: Activations, task: Task
) -> np.ndarray:
    fits[name] = codes.fit(acts, task)
    return fits[name].per_seed


def differences(outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far heads are apart on prompts and on corrupted prompts."""
    b = len(outputs) // 2
    moved = outputs[:b] - outputs[b:]  # (b, P, L, H, D)
    mean = np.square(moved.mean(0)).sum((0, 3))
    return np.sqrt(mean), np.sqrt(np.square(moved).sum((1, 4))).mean(0)


def _as_truth(truth: Any, shape: tuple[int, int]) -> np.ndarray:
    """Return a mask of heads, refusing another kind of truth."""
    if is_a(truth, "HeadEffects", "CanonicalCircuit", "KnownHeads", "Circuit"):
        raise InputError(
            f"truth must be a mask of heads, bool of shape {shape}, got {described(truth)}. Pass "
            "reference_heads(...).reference(), canonical_circuit(...).mask() or known_heads(...)"
            ".mask."
        )
    found = np.asarray(truth)
    if found.shape != shape:
        raise InputError(f"truth must be a mask of heads of shape {shape}, got {found.shape}.")
    return found.astype(bool)


def pair_auc(fit: HeadCodesFit, edges: np.ndarray) -> float:
    """Hold scores of pairs of heads against the edges of a circuit."""
    layer = np.repeat(fit.layers, fit.scores.shape[1])
    within = layer[:, None] < layer
    return roc_auc(np.asarray(edges, dtype=bool)[within], fit.pairs[within])


def head_edges(circuit: Circuit, n_layers: int, n_heads: int, *, strongest: int = 20) -> np.ndarray:
    """Return which pairs of heads have the strongest edges of a circuit over components."""
    graph = Graph(n_layers, n_heads)
    names = [f"a{layer}.h{head}" for layer, head in np.ndindex(n_layers, n_heads)]
    ends = [graph.writer(name) for name in names], [graph.reader(name) for name in names]
    scores = edge_scores(circuit, graph)[np.ix_(*ends)]
    order = np.argsort(-scores, axis=None, kind="stable")[:strongest]
    return np.isin(np.arange(scores.size), order).reshape(scores.shape) & (scores > 0)

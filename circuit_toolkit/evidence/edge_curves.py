"""Edge ablation of regression circuits: an edge is taken away by what its weight says it carries.

Regressions give edges weights, so the part of a feature that comes over some edges can be taken
out of it in the running model: `z[v] <- max(0, z[v] - sum_u A[u, v] (z[u] - mean z[u]))` over the
removed edges u -> v, site by site, with the dictionaries' errors kept. Marks et al., 2025,
arXiv 2403.19647, for `F(C) = (m(C) - m(empty)) / (m(full) - m(empty))`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit_lasso.fit import LassoFit
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.curves import FRACTIONS, FaithfulnessCurve
from circuit_toolkit.evidence.without_edges import WithoutEdges
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

_LEAST = 1e-6  # a smaller difference between full and empty model is none


class EdgeCurve(FaithfulnessCurve):
    """Faithfulness and completeness over the number of edges.

    Parameters
    ----------
    sizes, fractions, inside, outside, full, empty, random, settings
        As of a `FaithfulnessCurve`; sizes count edges.
    """

    def __repr__(self) -> str:
        """Warn that it is of edges."""
        return super().__repr__().replace(" ablation at ", " ablation of edges at ", 1).replace(
            " features)", " edges)"
        )  # fmt: skip


def edge_faithfulness(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: Task,
    fit: LassoFit,
    strength: float = 0.1,
    *,
    circuit: Circuit | None = None,
    sizes: Sequence[int] | None = None,
    draws: int = 3,
    n_prompts: int = 128,
    batch_size: int = 128,
    seed: int = 0,
) -> EdgeCurve:
    """Test a regression circuit by ablating edges outside it, at every size.

    The edges are those of the fit between features of adjacent sites, and one from every feature
    of the last site that fires to the target. Over a removed edge into a feature its target loses
    `A[u, v] (z[u] - mean z[u])`, with weights refitted without penalty to the edges that the fit
    has, and z as they are in the ablated run. A removed edge into the target sets the feature of
    the last site to its mean: nothing else reads that site. What the fit leaves unexplained of a
    feature stays, and so do the dictionaries' errors.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Those of the fit: autoencoders.
    task : Task
        Clean prompts with a metric; better one that was not fitted.
    fit : LassoFit
        Of the last site alone onto the target (`reads="last"`). Edges are ablated at its
        positions.
    strength : float
        Which point of its path, in (0, 1].
    circuit : Circuit, optional
        Whose edges rank first, by score; by default that of the fit with all its edges.
    sizes : sequence of int, optional
        Numbers of edges to test; by default the fractions of MIB, of all edges.
    draws : int
        Random circuits of each size.
    n_prompts : int
        Prompts of the task to test on, the first ones.
    batch_size : int
        Prompts in one run.
    seed : int
        Decides the random circuits, and the order of edges without a score.

    Returns
    -------
    EdgeCurve

    Raises
    ------
    InputError
        If the task has no metric, a dictionary is missing or a transcoder, sites that are not
        the last are read by the target, an edge of the circuit is none of the fit, a size is
        out of range, or ablating every edge does not change the metric.
    """
    running = WithoutEdges(model, dictionaries, task.subset(n_prompts), fit, strength, batch_size)
    rng = np.random.default_rng(seed)
    if circuit is None:
        circuit = fit.circuit(strength, max_features=None, max_edges=None)
    edges = running.scored(circuit)
    total = len(edges)
    shuffled = edges[rng.permutation(total)]  # ties in random order
    order = shuffled[np.argsort(-shuffled["score"], kind="stable")]
    if sizes is None:
        sizes = sorted({max(1, round(fraction * total)) for fraction in FRACTIONS})
    chosen = np.asarray(sizes, dtype=int)
    if not len(chosen) or chosen.min() < 0 or chosen.max() > total:
        raise InputError(f"sizes must be from 0 to {total}, the edges there are: {sizes!r}.")
    full, empty = running.without(edges[:0]), running.without(edges)
    if abs(full.mean() - empty.mean()) < _LEAST:
        raise InputError(
            f"Ablating every edge leaves the {task.metric} of {task.name!r} as it is, so no "
            "circuit can keep a share of it."
        )
    orders = [edges[rng.permutation(total)] for _ in range(draws)]
    return EdgeCurve(
        sizes=chosen,
        fractions=chosen / total,
        inside=np.stack([running.without(order[size:]) for size in chosen]),
        outside=np.stack([running.without(order[:size]) for size in chosen]),
        full=full,
        empty=empty,
        random=np.array([[running.without(o[size:]) for size in chosen] for o in orders]).reshape(
            draws, len(chosen), len(full)
        ),
        settings={
            "model": model.name,
            "task": task.name,
            "metric": task.metric,
            "ablation": "mean",
            "of": "edges",
            "positions": fit.settings["positions"],
            "strength": running.strength,
            "universe": f"{total} edges of the fit and into the target",
            "n_prompts": len(full),
            "seed": seed,
        },
    )

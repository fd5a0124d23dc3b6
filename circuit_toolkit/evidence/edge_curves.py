"""Edge ablation of regression circuits: an edge is taken away by what its weight says it carries.

Regressions give edges weights, so the part of a feature that comes over some edges can be taken
out of it in the running model: `z[v] <- max(0, z[v] - sum_u A[u, v] (z[u] - mean z[u]))` over the
removed edges u -> v, site by site, with the dictionaries' errors kept. Marks et al., 2025,
arXiv 2403.19647, for `F(C) = (m(C) - m(empty)) / (m(full) - m(empty))`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from circuit_toolkit.arguments import expect
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit_lasso.fit import LassoFit
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.curves import FaithfulnessCurve, curve_over_sizes
from circuit_toolkit.evidence.evaluation import evaluated_on, with_metric
from circuit_toolkit.evidence.without_edges import WithoutEdges
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task


def edge_faithfulness(
    circuit: Circuit,
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: Task,
    fit: LassoFit,
    *,
    sizes: Sequence[int] | None = None,
    draws: int = 3,
    n_prompts: int = 128,
    batch_size: int = 128,
    seed: int = 0,
    progress: bool = True,
) -> FaithfulnessCurve:
    """Test a regression circuit by ablating edges outside it, at every size.

    The edges are those of the fit between features of adjacent sites, and one from every feature
    of the last site that fires to the target. Over a removed edge into a feature its target loses
    `A[u, v] (z[u] - mean z[u])`, with weights refitted without penalty to the edges that the fit
    has, and z as they are in the ablated run. A removed edge into the target sets the feature of
    the last site to its mean: nothing else reads that site. What the fit leaves unexplained of a
    feature stays, and so do the dictionaries' errors.

    Parameters
    ----------
    circuit : Circuit
        Of the fit, at any strength: its edges rank first, by score. For all edges pass
        `fit.circuit(strength, max_features=None, max_edges=None)`.
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Those of the fit: autoencoders.
    task : Task
        Clean prompts with a metric; better one that was not fitted.
    fit : LassoFit
        Of the last site alone onto the target (`reads="last"`). Edges are ablated at its
        positions.
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
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    FaithfulnessCurve
        Whose sizes count edges.

    Raises
    ------
    InputError
        If the task has no metric, a dictionary is missing or a transcoder, sites that are not
        the last are read by the target, an edge of the circuit is none of the fit, a size is
        out of range, or ablating every edge does not change the metric.
    """
    expect(circuit, "circuit", "Circuit")
    known, part = as_dictionaries(model, dictionaries), with_metric(task).subset(n_prompts)
    expect(fit, "fit", "LassoFit")
    strength = circuit.settings.get("strength")
    if strength is None:
        raise InputError("This circuit has no strength: pass one that fit.circuit(...) returned.")
    running = WithoutEdges(model, known, part, fit, strength, batch_size)
    rng = np.random.default_rng(seed)
    edges = running.scored(circuit)
    shuffled = edges[rng.permutation(len(edges))]  # ties in random order
    return curve_over_sizes(
        lambda kept, removed: running.without(removed),
        shuffled[np.argsort(-shuffled["score"], kind="stable")],
        edges,
        full=running.without(edges[:0]),
        sizes=sizes,
        draws=draws,
        seed=seed,
        rng=rng,
        progress=progress,
        settings={
            "evaluated_on": evaluated_on(circuit.settings, model, part),
            "ablation": "mean",
            "ablated_positions": running.positions,
            "of": "edges",
            "universe": f"{len(edges)} edges of the fit and into the target",
        },
    )

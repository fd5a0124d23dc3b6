"""Edge ablation of regression circuits: an edge is taken away by what its weight says it carries.

Regressions give edges weights, so the part of a feature that comes over some edges can be taken
out of it in the running model: `z[v] <- max(0, z[v] - sum_u A[u, v] (z[u] - mean z[u]))` over the
removed edges u -> v, site by site, with the dictionaries' errors kept. Marks et al., 2025,
arXiv 2403.19647, for `F(C) = (m(C) - m(empty)) / (m(full) - m(empty))`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from circuit_toolkit.arguments import expect
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET
from circuit_toolkit.circuit_lasso.fit import LassoFit
from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.curves import FaithfulnessCurve, curve_over_sizes
from circuit_toolkit.evidence.evaluation import evaluated_on, with_metric
from circuit_toolkit.interventions.hooks import places
from circuit_toolkit.models import LOGITS, Model, run
from circuit_toolkit.models.ports import Edit
from circuit_toolkit.regression import refit
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task
from circuit_toolkit.tasks.prompt_pairs import row_slices

# `end` is the place of the target's site among the sites; their number for the target itself.
EDGE = np.dtype([("end", "i4"), ("source", "i4"), ("target", "i4"), ("score", "f8")])


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
    if list(fit.readout) != fit.sites[-1:]:
        raise InputError(
            "The target of this fit reads several sites, and edges into it from other sites "
            "than the last cannot be ablated apart. Fit with reads='last'."
        )
    index = int(np.abs(np.log(fit.strengths / strength)).argmin())
    parts = _parts(fit, known, index)
    positions = "all" if fit.settings["positions"] == "mean" else fit.settings["positions"]
    bos = shared_bos([each.dictionary for each in parts])

    def without(removed: np.ndarray) -> np.ndarray:
        """Measure every prompt, shape (n,), with edges of the table removed."""
        outcome = []
        for here in row_slices(len(part), batch_size):
            batch = model.tokenize(part.clean[here], bos=bos)
            named = {name: values[here] for name, values in part.positions.items()}
            where = places(model, batch, positions, named)
            write = _edits(parts, removed, where) if len(removed) else {}
            logits = run(model, batch, [LOGITS], write, last_logits=True)[LOGITS][:, -1]
            scores = part.score(logits, range(here.start, here.stop))
            outcome.append(scores.double().numpy())
        return np.concatenate(outcome)

    rng = np.random.default_rng(seed)
    edges = _scored(circuit, parts, float(fit.strengths[index]))
    shuffled = edges[rng.permutation(len(edges))]  # ties in random order
    return curve_over_sizes(
        lambda kept, removed: without(removed),
        shuffled[np.argsort(-shuffled["score"], kind="stable")],
        edges,
        full=without(edges[:0]),
        sizes=sizes,
        draws=draws,
        seed=seed,
        rng=rng,
        progress=progress,
        settings={
            "evaluated_on": evaluated_on(circuit.settings, model, part),
            "ablation": "mean",
            "ablated_positions": positions,
            "of": "edges",
            "universe": f"{len(edges)} edges of the fit and into the target",
        },
    )


@dataclass
class _Site:
    """What an ablation needs at one site."""

    site: Site
    dictionary: Dictionary
    kept: Tensor  # (p,) features that were fitted
    fires: Tensor  # (r,) features that fire at all
    mean: Tensor  # (F,)
    into: sp.csr_array | None  # (p before, p) refitted weights; None at the first site


def _parts(fit: LassoFit, dictionaries: Mapping[Site, Dictionary], index: int) -> list[_Site]:
    """Sites of a fit in order, with the weights at a strength."""
    means, parts = fit.rows.means(), []
    for site in fit.sites:
        if site not in dictionaries or dictionaries[site].kind != "sae":
            raise InputError(f"Pass the autoencoder of {site} that the fit was learnt on.")
        parts.append(
            _Site(
                site,
                dictionaries[site],
                torch.as_tensor(fit.screening[site].kept),
                torch.as_tensor(np.unique(fit.rows.features[site].indices)).long(),
                torch.as_tensor(means[site]).float(),
                sp.csr_array(refit(fit.chain[site], index)[0]) if site in fit.chain else None,
            )
        )
    return parts


def _scored(circuit: Circuit, parts: Sequence[_Site], strength: float) -> np.ndarray:
    """Return all edges as a table, with the scores that a circuit gives them, else 0."""
    tables = []
    for end, (before, here) in enumerate(zip(parts, parts[1:], strict=False), start=1):
        assert here.into is not None
        rows, columns = here.into.nonzero()
        tables.append(_table(end, before.kept[rows], here.kept[columns]))
    tables.append(_table(len(parts), parts[-1].fires, torch.zeros_like(parts[-1].fires)))
    edges = np.concatenate(tables)
    row = {tuple(key): i for i, key in enumerate(edges[["end", "source", "target"]].tolist())}
    number = {str(each.site): end for end, each in enumerate(parts)} | {TARGET: len(parts)}
    nodes = circuit.nodes[["site", "index"]].tolist()
    for source, target, score in circuit.edges[["source", "target", "score"]].tolist():
        (start, u), (end, v) = nodes[source], nodes[target]
        key = (number.get(end, -1), u, v)
        if key not in row or number.get(start) != number[end] - 1:
            raise InputError(
                f"The circuit has an edge from {start}/{u} to {end}/{v}, which this fit has "
                f"not at strength {strength:g}. Take its own circuit at that strength."
            )
        edges["score"][row[key]] = score
    return edges


def _edits(parts: Sequence[_Site], edges: np.ndarray, where: Tensor) -> dict[Site, Edit]:
    """Take what removed edges carry out of the features of each site, in order."""
    current: list[Tensor] = []  # features of the site before, (tokens, F), as ablated
    cut = edges["source"][edges["end"] == len(parts)]

    def edit_of(end: int, here: _Site) -> Edit:
        weights = _removed(edges[edges["end"] == end], parts, end)
        last = cut if end == len(parts) - 1 else cut[:0]

        def ablated(acts: Tensor) -> Tensor:
            if weights is not None:
                before = parts[end - 1]
                carried = (current[-1] - before.mean.to(acts))[:, before.kept]
                left = acts[:, here.kept] - carried @ weights.to(acts)
                acts[:, here.kept] = left.clamp(min=0)
            acts[:, last] = here.mean.to(acts)[last]
            current.append(acts)
            return acts

        def edit(x: Tensor) -> Tensor:
            out = x.clone()
            out[where] += here.dictionary.added(x[where], ablated)
            return out

        return edit

    return {each.site: edit_of(end, each) for end, each in enumerate(parts)}


def _removed(edges: np.ndarray, parts: Sequence[_Site], end: int) -> Tensor | None:
    """Weights (p before, p) of the removed edges into a site; None where there are none."""
    into = parts[end].into
    if not len(edges) or into is None:
        return None
    every = into.toarray()
    # Fitted features are in order.
    rows = np.searchsorted(parts[end - 1].kept.numpy(), edges["source"])
    columns = np.searchsorted(parts[end].kept.numpy(), edges["target"])
    weights = np.zeros_like(every)
    weights[rows, columns] = every[rows, columns]
    return torch.as_tensor(weights)


def _table(end: int, sources: Tensor, targets: Tensor) -> np.ndarray:
    table = np.zeros(len(sources), EDGE)
    table["end"], table["source"], table["target"] = end, sources.numpy(), targets.numpy()
    return table

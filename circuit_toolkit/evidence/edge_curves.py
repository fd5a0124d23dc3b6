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


@dataclass
class _Site:
    """What an ablation needs at one site."""

    dictionary: Dictionary
    kept: Tensor  # (p,) features that were fitted
    fires: Tensor  # (r,) features that fire at all
    mean: Tensor  # (F,)
    into: sp.csr_array | None  # (p before, p) refitted weights; None at the first site


class WithoutEdges:
    """Prompts, and the model as it runs without some edges."""

    def __init__(
        self,
        model: Model,
        dictionaries: Mapping[Site, Dictionary],
        task: Task,
        fit: LassoFit,
        strength: float,
        batch_size: int,
    ):
        if list(fit.readout) != fit.sites[-1:]:
            raise InputError(
                "The target of this fit reads several sites, and edges into it from other sites "
                "than the last cannot be ablated apart. Fit with reads='last'."
            )
        self.model, self.task = model, task
        self.batch_size = batch_size
        index = int(np.abs(np.log(fit.strengths / strength)).argmin())
        self.strength = float(fit.strengths[index])
        self.positions = "all" if fit.settings["positions"] == "mean" else fit.settings["positions"]
        means = fit.rows.means()
        self.sites: dict[Site, _Site] = {}
        for site in fit.sites:
            if site not in dictionaries or dictionaries[site].kind != "sae":
                raise InputError(f"Pass the autoencoder of {site} that the fit was learnt on.")
            self.sites[site] = _Site(
                dictionaries[site],
                torch.as_tensor(fit.screening[site].kept),
                torch.as_tensor(np.unique(fit.rows.features[site].indices)).long(),
                torch.as_tensor(means[site]).float(),
                sp.csr_array(refit(fit.chain[site], index)[0]) if site in fit.chain else None,
            )
        self.bos = shared_bos([each.dictionary for each in self.sites.values()])

    def scored(self, circuit: Circuit) -> np.ndarray:
        """Return all edges as a table, with the scores that a circuit gives them, else 0."""
        parts = []
        for end, site in enumerate(self.sites.values()):
            if site.into is not None:
                rows, columns = site.into.nonzero()
                before = list(self.sites.values())[end - 1]
                parts.append(_table(end, before.kept[rows], site.kept[columns]))
        last = list(self.sites.values())[-1]
        parts.append(_table(len(self.sites), last.fires, torch.zeros_like(last.fires)))
        edges = np.concatenate(parts)
        row = {tuple(key): i for i, key in enumerate(edges[["end", "source", "target"]].tolist())}
        number = {str(site): end for end, site in enumerate(self.sites)} | {TARGET: len(self.sites)}
        nodes = circuit.nodes[["site", "index"]].tolist()
        for source, target, score in circuit.edges[["source", "target", "score"]].tolist():
            (start, u), (end, v) = nodes[source], nodes[target]
            key = (number.get(end, -1), u, v)
            if key not in row or number.get(start) != number[end] - 1:
                raise InputError(
                    f"The circuit has an edge from {start}/{u} to {end}/{v}, which this fit has "
                    f"not at strength {self.strength:g}. Take its own circuit at that strength."
                )
            edges["score"][row[key]] = score
        return edges

    def without(self, edges: np.ndarray) -> np.ndarray:
        """Measure every prompt, shape (n,), with edges of the table removed."""
        outcome = []
        for here in row_slices(len(self.task), self.batch_size):
            batch = self.model.tokenize(self.task.clean[here], bos=self.bos)
            named = {name: values[here] for name, values in self.task.positions.items()}
            where = places(self.model, batch, self.positions, named)
            write = self._edits(edges, where) if len(edges) else {}
            logits = run(self.model, batch, [LOGITS], write, last_logits=True)[LOGITS][:, -1]
            rows = range(here.start, here.stop)
            outcome.append(self.task.score(logits, rows).double().numpy())
        return np.concatenate(outcome)

    def _edits(self, edges: np.ndarray, where: Tensor) -> dict[Site, Edit]:
        """Take what removed edges carry out of the features of each site, in order."""
        current: list[Tensor] = []  # features of the site before, (tokens, F), as ablated
        cut = edges["source"][edges["end"] == len(self.sites)]

        def edit_of(end: int, site: _Site) -> Edit:
            removed = _removed(edges, end, list(self.sites.values()))
            last = cut if end == len(self.sites) - 1 else cut[:0]

            def ablated(acts: Tensor) -> Tensor:
                if removed is not None:
                    before, weights = removed
                    carried = (current[-1] - before.mean.to(acts))[:, before.kept]
                    left = acts[:, site.kept] - carried @ weights.to(acts)
                    acts[:, site.kept] = left.clamp(min=0)
                acts[:, last] = site.mean.to(acts)[last]
                current.append(acts)
                return acts

            def edit(x: Tensor) -> Tensor:
                out = x.clone()
                out[where] += site.dictionary.added(x[where], ablated)
                return out

            return edit

        return {site: edit_of(end, each) for end, (site, each) in enumerate(self.sites.items())}


def _removed(edges: np.ndarray, end: int, sites: Sequence[_Site]) -> tuple[_Site, Tensor] | None:
    """Weights (p before, p) of the removed edges into a site, and the site before; None: none."""
    mine = edges[edges["end"] == end]
    into = sites[end].into
    if not len(mine) or into is None:
        return None
    before, every = sites[end - 1], into.toarray()
    rows = np.searchsorted(before.kept.numpy(), mine["source"])  # fitted features are in order
    columns = np.searchsorted(sites[end].kept.numpy(), mine["target"])
    weights = np.zeros_like(every)
    weights[rows, columns] = every[rows, columns]
    return before, torch.as_tensor(weights)


def _table(end: int, sources: Tensor, targets: Tensor) -> np.ndarray:
    table = np.zeros(len(sources), EDGE)
    table["end"], table["source"], table["target"] = end, sources.numpy(), targets.numpy()
    return table

"""The running model without some edges of a regression circuit: see `edge_faithfulness`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from circuit_toolkit.arguments import whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET
from circuit_toolkit.circuit_lasso.fit import LassoFit
from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions.hooks import places
from circuit_toolkit.models import LOGITS, Model, run
from circuit_toolkit.models.ports import Edit
from circuit_toolkit.regression import refit
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

# `end` is the place of the target's site among the sites; their number for the target itself.
EDGE = np.dtype([("end", "i4"), ("source", "i4"), ("target", "i4"), ("score", "f8")])


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
        self.batch_size = whole(batch_size, "batch_size", 1)
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
        for start in range(0, len(self.task), self.batch_size):
            here = slice(start, start + self.batch_size)
            batch = self.model.tokenize(self.task.clean[here], bos=self.bos)
            named = {name: values[here] for name, values in self.task.positions.items()}
            where = places(self.model, batch, self.positions, named)
            write = self._edits(edges, where) if len(edges) else {}
            logits = run(self.model, batch, [LOGITS], write, last_logits=True)[LOGITS][:, -1]
            rows = range(start, start + len(batch.ids))
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

"""What CircuitLasso fits: a path of circuits, from which one is read off at any strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.arguments import expect, number, whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET, new_edges, new_nodes
from circuit_toolkit.circuit_lasso import fit_file
from circuit_toolkit.errors import InputError
from circuit_toolkit.regression import LassoPath, LogisticPath, Screening, one_standard_error
from circuit_toolkit.sites import Site

OWN_TARGET = "target"  # name of a target that the caller gave as numbers


def explained(acts: Activations) -> np.ndarray | None:
    """Return the metric of each prompt, in one sense on all of them."""
    if acts.metric is None:
        return None
    return np.asarray(acts.metric, float) * (1 if acts.directions is None else acts.directions)


@dataclass(frozen=True, eq=False)
class LassoFit:
    """A fitted path of circuits, from dense to empty.

    Parameters
    ----------
    screening : dict of Site to Screening
        Features that were fitted, and those that they stand for.
    chain : dict of Site to LassoPath
        For each site but the first, its features on those of the site before.
    readout : dict of Site to LassoPath or LogisticPath
        The target on the features of the sites that it reads.
    held_out : ndarray, shape (k,)
        Fit on held-out prompts at each strength: R² of the target, or for a class the area under
        the ROC curve, of which .5 is chance.
    folds : ndarray, shape (folds, k), or None
        The same on each fold of the training prompts, fitted on the others; None where it was not
        asked for, or the target is constant on a fold.
    rows : Activations
        The rows that were fitted, one a prompt; their metric is what was explained.
    scales : dict of Site to ndarray
        Standard deviation of every feature that was fitted.
    labels : dict of Site to list of str
        Names of the features.
    settings : dict
        What was fitted, with the settings of `CircuitLasso`.
    """

    screening: Mapping[Site, Screening]
    chain: Mapping[Site, LassoPath]
    readout: Mapping[Site, LassoPath | LogisticPath]
    held_out: np.ndarray
    folds: np.ndarray | None
    rows: Activations
    scales: Mapping[Site, np.ndarray]
    labels: Mapping[Site, list[str]]
    settings: Mapping[str, Any]

    @property
    def strengths(self) -> np.ndarray:
        """Fitted strengths, decreasing, shape (k,)."""
        return next(iter(self.readout.values())).strengths

    @property
    def sites(self) -> list[Site]:
        """Sites in order of computation."""
        return list(self.screening)

    def __repr__(self) -> str:
        """Return what was fitted and how well; not the tables."""
        said, best = self.settings, self._best()
        how = f"positions={said['positions']!r}, reads={said['reads']!r}"
        chance = " (AUROC, chance 0.5)" if said.get("held_out_fit") == "auroc" else ""
        return (
            f"LassoFit({said['target']} of {said['task']}, {how}, adaptive={said['adaptive']}, "
            f"{len(self.strengths)} strengths, best held-out fit {self.held_out[best]:.3f}{chance} "
            f"at {self.strengths[best]:.3g})"
        )

    @cached_property
    def _means(self) -> dict[Site, np.ndarray]:
        return self.rows.means()

    def best_strength(self) -> float:
        """Return the strength with the best fit on held-out prompts.

        It is 1, whose circuit is empty, only where no other fit is above that of knowing nothing.

        Returns
        -------
        float
        """
        return float(self.strengths[self._best()])

    def one_se_strength(self) -> float:
        """Return the greatest strength whose fit is within a standard error of the best.

        By cross-validation on the training prompts (Hastie, Tibshirani and Friedman, 2009, section
        7.10), so that the fit on held-out prompts stays a fair one.

        Returns
        -------
        float

        Raises
        ------
        InputError
            If there is no fit on folds.
        """
        if self.folds is None:
            raise InputError(
                "This fit knows no standard error: it was fitted without folds, its target is "
                "constant on one of them, or a class has one prompt to train on. Use "
                "CircuitLasso(folds=5), more prompts, or a strength such as 0.1."
            )
        return float(self.strengths[one_standard_error(self.folds)])

    def save(self, path: str | PathLike) -> Path:
        """Write the fit as one safetensors file, whole or not at all.

        All that circuits are read off is in it, the rows among it; second moments are not, so a
        path that was read cannot `solve` between its strengths.

        Parameters
        ----------
        path : path
            A file of that name is replaced; `~` is the home folder.

        Returns
        -------
        Path

        Raises
        ------
        InputError
            If no file can be written there, or the settings cannot be written as JSON.
        """
        return fit_file.write(path, {each.name: getattr(self, each.name) for each in fields(self)})

    @classmethod
    def load(cls, path: str | PathLike) -> LassoFit:
        """Read a fit that `save` wrote; needs neither the model nor torch.

        Parameters
        ----------
        path : path
            The file.

        Returns
        -------
        LassoFit
            Whose circuits are the same at every strength.

        Raises
        ------
        InputError
            If there is no such file.
        FileFormatError
            If it is damaged, foreign or of another version.
        """
        return cls(**fit_file.read(path))

    def _best(self) -> int:
        """Index of the best held-out fit; where there is none, as for a constant target, 0."""
        return int(np.nan_to_num(self.held_out, nan=-np.inf).argmax())

    def on(self, acts: Activations) -> LassoFit:
        """Apply the fitted weights to other prompts, for circuits of these.

        Parameters
        ----------
        acts : Activations
            Captured at the same sites with the same dictionaries.

        Returns
        -------
        LassoFit
            Whose `circuit(prompt=...)` counts the prompts of `acts`.

        Raises
        ------
        InputError
            If a site is missing or the dictionaries differ.
        """
        expect(acts, "acts", "Activations", "ActivationStore")
        for key in ("model", "dictionaries"):
            if acts.settings.get(key) != self.rows.settings.get(key):
                raise InputError(
                    f"These activations have {key} {acts.settings.get(key)}, the fit has "
                    f"{self.rows.settings.get(key)}. Capture with the same."
                )
        rows = acts.pooled(self.settings["positions"])
        own = self.settings["target"] == OWN_TARGET  # nobody said what it is on other prompts
        metric = None if own else explained(rows)
        return replace(self, rows=replace(rows, metric=metric, directions=None))

    def circuit(
        self,
        strength: float | Literal["best", "one_se"] = 0.1,
        *,
        edge_budget: int | None = None,
        prompt: int | None = None,
        max_features: int | None = 40,
        max_edges: int | None = 200,
    ) -> Circuit:
        """Read off the circuit at a fitted strength.

        The score of an edge is the relevance that flows over it: the target's, 1, is shared out
        over its sources in proportion to the absolute coefficient (for a prompt: times the
        activation there), theirs over theirs, and so on to the first site.

        Parameters
        ----------
        strength : float, "best" or "one_se"
            A number in (0, 1]: the fitted strength nearest to it; at 1 the circuit is empty.
            `best`: that with the best fit on held-out prompts. `one_se`: the greatest within one
            standard error of the best, by cross-validation.
        edge_budget : int, optional
            Instead of a strength: the weakest at which the circuit, after `max_features`, has no
            more edges than this.
        prompt : int, optional
            Number of a prompt, for the circuit of this prompt alone; by default that of all.
        max_features, max_edges : int, optional
            Keep at most so many, the most relevant first; None keeps all.

        Returns
        -------
        Circuit
            Weights in standardised units, with the held-out fit as evidence. Its settings say the
            strength, and what it was `chosen_by`.

        Raises
        ------
        InputError
            If the strength is neither a word nor in (0, 1], no fitted strength keeps to the
            budget, there are no folds for `one_se`, or no such prompt.
        """
        if prompt is not None:
            prompt = whole(prompt, "prompt")
            if not 0 <= prompt < self.rows.n_prompts:
                raise InputError(
                    f"There is no prompt {prompt}: they are 0 to {self.rows.n_prompts - 1}."
                )
        if edge_budget is not None:
            k, chosen_by = self._within(whole(edge_budget, "edge_budget", 0), prompt, max_features)
        elif isinstance(strength, str):
            words = {"best": self.best_strength, "one_se": self.one_se_strength}
            if strength not in words:
                raise InputError(
                    f"strength must be a number in (0, 1], 'best' or 'one_se', got {strength!r}."
                )
            k, chosen_by = self._nearest(words[strength]()), strength
        else:
            k = self._nearest(number(strength, "strength", 0, 1, open_low=True))
            chosen_by = "hand"
        drawn = self._drawn(k, prompt).prune(max_features, max_edges)
        is_label = self.settings["objective"] == "cross-entropy"
        fit = self.settings.get("held_out_fit", "accuracy" if is_label else "r2")
        return replace(
            drawn,
            settings={**drawn.settings, "chosen_by": chosen_by},
            evidence={"fit": {f"held_out_{fit}": float(self.held_out[k])}},
        )

    def _nearest(self, strength: float) -> int:
        return int(np.abs(np.log(self.strengths / strength)).argmin())

    def _within(self, budget: int, prompt: int | None, max_features: int | None) -> tuple[int, str]:
        """Index of the weakest strength that keeps to a budget of edges, and how to call it."""
        n = 0
        for k in reversed(range(len(self.strengths))):
            n = len(self._drawn(k, prompt).prune(max_features).edges)
            if n <= budget:
                return k, f"edge budget of {budget}"
        raise InputError(
            f"At strength {self.strengths[0]:.3g} there are {n} edges, more than {budget}. Fit "
            "greater strengths too: CircuitLasso(strengths=...)."
        )

    def _readout(self, site: Site, k: int) -> np.ndarray:
        """Standardised coefficients (p,) of the target on the features of a site."""
        if site not in self.readout:
            return np.zeros(len(self.screening[site].kept))
        return self.readout[site].standardised(k).toarray().ravel()

    def _present(self, prompt: int | None) -> list[np.ndarray]:
        """How much of each feature is there: 1, or on a prompt its activation in its own scale."""
        if prompt is None:
            return [np.ones(len(screening.kept)) for screening in self.screening.values()]
        return [
            self.rows.features[site][[prompt]].toarray().ravel()[screening.kept] / self.scales[site]
            for site, screening in self.screening.items()
        ]

    def _drawn(self, k: int, prompt: int | None) -> Circuit:
        """Put what carries relevance at a strength into tables."""
        weights = [self.chain[later].standardised(k) for later in self.sites[1:]]
        direct = [self._readout(site, k) for site in self.sites]
        present = self._present(prompt)
        carried = propagate_relevance(
            [
                sp.diags_array(here) @ abs(matrix)
                for here, matrix in zip(present, weights, strict=False)
            ],
            [here * abs(column) for here, column in zip(present, direct, strict=True)],
        )
        nodes, offset = [], 0
        rows: list[np.ndarray] = []  # position of a fitted feature in the node table, or -1
        for site, relevance in zip(self.sites, carried.nodes, strict=True):
            live = np.flatnonzero(relevance > 0)
            features = self.screening[site].kept[live]
            row = np.full(len(relevance), -1)
            row[live] = offset + np.arange(len(live))
            rows.append(row)
            offset += len(live)
            acts = self._means[site]
            if prompt is not None:
                acts = self.rows.features[site][[prompt]].toarray().ravel()
            known = self.labels.get(site)
            nodes.append(
                new_nodes(
                    len(live),
                    site=str(site),
                    position=self.settings["positions"],
                    index=features,
                    score=relevance[live],
                    activation=acts[features],
                    label="" if known is None else [known[feature] for feature in features],
                )
            )
        end = new_nodes(1, TARGET, label=self.settings["target"], score=1.0)
        if self.rows.metric is not None and self.settings["objective"] == "squared error":
            values = self.rows.metric
            end["activation"] = values.mean() if prompt is None else values[prompt]
        flows: list[Any] = [*zip(carried.edges, weights, rows, rows[1:], strict=False)]
        for flow, weight, row in zip(carried.direct, direct, rows, strict=True):
            flows.append((flow[:, None], weight[:, None], row, np.array([offset])))
        edges = []
        for flow, weight, source, target in flows:
            part = sp.coo_array(flow)
            there = np.asarray(sp.csr_array(weight)[part.row, part.col]).ravel()
            ends = {"source": source[part.row], "target": target[part.col]}
            edges.append(new_edges(part.nnz, **ends, weight=there, score=part.data))
        strength = float(self.strengths[k])
        settings = {**self.settings, "strength": strength}
        settings |= {"level": "features", "scope": "dataset" if prompt is None else "prompt"}
        if prompt is not None:
            settings["prompt"] = " ".join(self.rows.tokens[prompt])
        return Circuit(np.concatenate([*nodes, end]), np.concatenate(edges), settings)


class Relevance(NamedTuple):
    """What each feature and each edge passes on to the target."""

    nodes: tuple[np.ndarray, ...]
    edges: tuple[sp.csr_array, ...]
    direct: tuple[np.ndarray, ...]


def propagate_relevance(strengths: Sequence[sp.sparray], direct: Sequence[np.ndarray]) -> Relevance:
    """Share out relevance 1 of the target over its sources, theirs over theirs, and so on."""
    total = sum(float(part.sum()) for part in direct)
    into_target = [np.asarray(part, float) / total if total else 0.0 * part for part in direct]
    nodes = [part.copy() for part in into_target]
    edges: list[sp.csr_array] = []
    for i in range(len(strengths) - 1, -1, -1):
        S = sp.csc_array(strengths[i])
        sums = np.asarray(S.sum(axis=0)).ravel()  # (p_i+1,)
        share = np.divide(nodes[i + 1], sums, out=np.zeros(len(sums)), where=sums > 0)
        flow = sp.csr_array(S @ sp.diags_array(share))
        flow.eliminate_zeros()
        edges.append(flow)
        nodes[i] += np.asarray(flow.sum(axis=1)).ravel()
    return Relevance(tuple(nodes), tuple(reversed(edges)), tuple(into_target))

"""CircuitLasso: which features drive which, and the target, by sparse regression.

Yin et al., "Scalable Circuit Learning for Interpreting Large Language Models", 2026,
arXiv 2606.16939. No intervention and no backward pass: one capture, then regressions of the
features of each site on those of the site before, and of the target on the features that it reads.
Weights are dependency scores, not causal effects; `ablation_evidence` tests a circuit by
intervention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations import MEAN, Activations
from circuit_toolkit.circuits.circuit import Circuit
from circuit_toolkit.circuits.relevance import carry_back
from circuit_toolkit.circuits.tables import EDGE, NODE, TARGET
from circuit_toolkit.errors import InputError
from circuit_toolkit.interpret.labels import feature_labels
from circuit_toolkit.regression import (
    GramStatistics,
    LassoPath,
    LogisticPath,
    Screening,
    lasso_path,
    logistic_path,
    screen_features,
)
from circuit_toolkit.sites import Site

STRENGTHS = tuple(np.geomspace(1, 0.01, 25).round(4).tolist())


@dataclass(frozen=True)
class CircuitLasso:
    """Learn circuits by sparse regression on captured activations.

    Parameters
    ----------
    positions : str
        How the tokens of a prompt become one row: their `mean` (default), the `last`, or a
        position that the task names.
    reads : {"last", "all"}
        Whether the target is regressed on the features of the last site, as in the paper, or on
        those of each site on its own (an extension), which also finds what has done its work
        before the last site.
    strengths : tuple of float
        Regularisation strengths: shares of the smallest penalty at which a target has no
        sources, in (0, 1].
    min_active : int
        Features that fire on fewer training rows are left out.
    held_out : float
        Share of the prompts (with their twins) that the held-out fit is measured on.
    seed : int
        Decides which these are.
    """

    positions: str = "mean"
    reads: Literal["last", "all"] = "last"
    strengths: tuple[float, ...] = STRENGTHS
    min_active: int = 10
    held_out: float = 0.2
    seed: int = 0

    def fit(
        self,
        acts: Activations,
        target: Any = "metric",
        labels: Mapping[Site, list[str]] | None = None,
    ) -> LassoFit:
        """Fit the whole path of strengths.

        Parameters
        ----------
        acts : Activations
            From `capture`, with `positions="all"` or the ones of this estimator.
        target : Task, str or ndarray, shape (prompts,)
            The task that was captured (its metric, by squared loss), `metric`, the name of a
            label (two classes, or `name=class` for one class against the rest, by
            cross-entropy), or one number for each prompt.
        labels : dict of Site to list of str, optional
            Names of the features; by default the words on which they fire.

        Returns
        -------
        LassoFit
            From which circuits are read off at any strength without the activations or the model.

        Raises
        ------
        InputError
            If a setting is out of range, the target is unknown or constant, or no feature fires
            often enough.
        """
        if self.reads not in ("last", "all") or not 0 < self.held_out < 1:
            raise InputError(
                "reads must be 'last' or 'all' and held_out between 0 and 1, got "
                f"{self.reads!r} and {self.held_out}."
            )
        name, y, is_label = _target(acts, target)
        rows = acts.pooled(self.positions)
        if labels is None:
            labels = {} if (acts.position == MEAN).any() else feature_labels(acts)
        train = self._training(rows.groups)
        X = {site: sp.csr_array(matrix, dtype=np.float64) for site, matrix in rows.features.items()}
        screened = {site: self._screen(site, matrix[train]) for site, matrix in X.items()}
        X = {site: matrix[:, screened[site].kept] for site, matrix in X.items()}
        sites = list(X)
        chain = {
            later: lasso_path(
                GramStatistics.from_arrays(X[site][train], X[later][train]), list(self.strengths)
            )
            for site, later in zip(sites, sites[1:], strict=False)
        }
        readout, scores = {}, {}
        for site in sites if self.reads == "all" else sites[-1:]:
            if is_label:
                path = logistic_path(X[site][train], y[train], list(self.strengths))
                scores[site] = path.held_out_accuracy(X[site][~train], y[~train])
            else:
                path = lasso_path(
                    GramStatistics.from_arrays(X[site][train], y[train, None]), list(self.strengths)
                )
                other = GramStatistics.from_arrays(X[site][~train], y[~train, None])
                scores[site] = path.held_out_r2(other)[:, 0]
            readout[site] = path
        return LassoFit(
            chain=chain,
            readout=readout,
            screening=screened,
            held_out=np.max(list(scores.values()), axis=0),
            rows=rows,
            scales={site: np.sqrt(_variances(matrix[train])) for site, matrix in X.items()},
            labels=labels,
            settings={
                "method": "CircuitLasso",
                **asdict(replace(self, strengths=())),
                "target": name,
                "loss": "cross-entropy" if is_label else "squared",
                **{key: acts.settings.get(key) for key in ("model", "task", "n_prompts")},
                "sites": [str(site) for site in sites],
            },
        )

    def _training(self, groups: np.ndarray) -> np.ndarray:
        """Mask of the training prompts; a prompt and its twin stay together."""
        names = np.unique(groups)
        held_out = np.random.default_rng(self.seed).permutation(names)[
            : max(1, round(self.held_out * len(names)))
        ]
        return ~np.isin(groups, held_out)

    def _screen(self, site: Site, X: sp.csr_array) -> Screening:
        screening = screen_features(
            GramStatistics.from_arrays(X, np.zeros((X.shape[0], 1))), self.min_active
        )
        if not len(screening.kept):
            raise InputError(
                f"No feature of {site} fires on {self.min_active} of {X.shape[0]} training rows. "
                "Capture more prompts, or lower min_active."
            )
        return screening


def _target(acts: Activations, target: Any) -> tuple[str, np.ndarray, bool]:
    """Name and values (prompts,) of what is explained, and whether it is a class."""
    task = getattr(target, "name", None)
    if task is not None and task != acts.settings.get("task"):
        raise InputError(
            f"The activations are of task {acts.settings.get('task')!r}, not of {task!r}. "
            "Capture the task that is the target."
        )
    if task is not None or (isinstance(target, str) and target == "metric"):
        if acts.metric is None:
            raise InputError(
                "These activations have no metric: capture a task, or pass target=<one number for "
                "each prompt>."
            )
        name, y = getattr(target, "metric", "metric"), np.asarray(acts.metric, float)
    elif isinstance(target, str):
        return target, _is_class(acts, target), True
    else:
        name, y = "target", np.asarray(target, float)
        if y.shape != (acts.n_prompts,):
            raise InputError(
                f"target must have one number for each of {acts.n_prompts} prompts, got shape "
                f"{y.shape}."
            )
    if not np.isfinite(y).all() or y.std() == 0:
        raise InputError(f"The target {name!r} is constant or not finite on these prompts.")
    return name, y, False


def _is_class(acts: Activations, target: str) -> np.ndarray:
    """Read `label` (two classes: is it the later one in the alphabet) or `label=class`."""
    label, _, wanted = target.partition("=")
    if label not in acts.labels:
        known = ", ".join(["metric", *acts.labels])
        raise InputError(f"Unknown target {target!r}. Use one of {known}, or an array.")
    classes = np.unique(acts.labels[label]).tolist()
    if not wanted and len(classes) != 2:
        raise InputError(
            f"{label!r} has {len(classes)} classes: choose one, as in '{label}={classes[0]}'."
        )
    wanted = wanted or classes[1]
    if wanted not in classes:
        raise InputError(f"{label!r} has no class {wanted!r}, only {', '.join(classes)}.")
    return acts.labels[label] == wanted


@dataclass(frozen=True, eq=False)
class LassoFit:
    """A fitted path of circuits, from dense to empty.

    Parameters
    ----------
    chain : dict of Site to LassoPath
        For each site but the first, its features on those of the site before.
    readout : dict of Site to LassoPath or LogisticPath
        The target on the features of the sites that it reads.
    screening : dict of Site to Screening
        Features that were fitted, and those that they stand for.
    held_out : ndarray, shape (k,)
        R² of the target on held-out prompts, or accuracy for a class, at each strength.
    rows : Activations
        The rows that were fitted, one a prompt.
    scales : dict of Site to ndarray
        Standard deviation of every feature that was fitted.
    labels : dict of Site to list of str
        Names of the features.
    settings : dict
        What was fitted.
    """

    chain: Mapping[Site, LassoPath]
    readout: Mapping[Site, LassoPath | LogisticPath]
    screening: Mapping[Site, Screening]
    held_out: np.ndarray
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
        """Say what was fitted and how well; not the tables."""
        best = int(np.nanargmax(self.held_out))
        return (
            f"LassoFit({self.settings['target']} of {self.settings['task']}, {len(self.strengths)} "
            f"strengths, best held-out fit {self.held_out[best]:.3f} at {self.strengths[best]:.3g})"
        )

    @cached_property
    def _means(self) -> dict[Site, np.ndarray]:
        return self.rows.means()

    def best_strength(self) -> float:
        """Give the strength with the best held-out fit."""
        return float(self.strengths[int(np.nanargmax(self.held_out))])

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
        for key in ("model", "dictionaries"):
            if acts.settings.get(key) != self.rows.settings.get(key):
                raise InputError(
                    f"These activations have {key} {acts.settings.get(key)}, the fit has "
                    f"{self.rows.settings.get(key)}. Capture with the same."
                )
        return replace(self, rows=acts.pooled(self.settings["positions"]))

    def circuit(
        self,
        strength: float = 0.1,
        *,
        prompt: int | None = None,
        max_features: int | None = 60,
        max_edges: int | None = 300,
    ) -> Circuit:
        """Read off the circuit at the fitted strength nearest to the given one.

        The score of an edge is the relevance that flows over it: the target's, 1, is shared out
        over its sources in proportion to the absolute coefficient (for a prompt: times the
        activation there), theirs over theirs, and so on to the first site.

        Parameters
        ----------
        strength : float
            In (0, 1]; at 1 the circuit is empty.
        prompt : int, optional
            Number of a prompt, for the circuit of this prompt alone; by default that of all.
        max_features, max_edges : int, optional
            Keep at most so many, the most relevant first; None keeps all.

        Returns
        -------
        Circuit
            Weights in standardised units, with the held-out fit as evidence.

        Raises
        ------
        InputError
            If the strength is not in (0, 1], or there is no such prompt.
        """
        if not 0 < strength <= 1:
            raise InputError(f"strength must be in (0, 1], got {strength}.")
        if prompt is not None and not 0 <= prompt < self.rows.n_prompts:
            raise InputError(
                f"There is no prompt {prompt}: they are 0 to {self.rows.n_prompts - 1}."
            )
        k = int(np.abs(np.log(self.strengths / strength)).argmin())
        weights = [self.chain[later].coefficients[k] for later in self.sites[1:]]
        direct = [self._readout(site, k) for site in self.sites]
        present = self._present(prompt)
        carried = carry_back(
            [
                sp.diags_array(here) @ abs(matrix)
                for here, matrix in zip(present, weights, strict=False)
            ],
            [here * abs(column) for here, column in zip(present, direct, strict=True)],
        )
        return self._drawn(k, prompt, weights, direct, carried).prune(max_features, max_edges)

    def _readout(self, site: Site, k: int) -> np.ndarray:
        """Standardised coefficients (p,) of the target on the features of a site."""
        if site not in self.readout:
            return np.zeros(len(self.screening[site].kept))
        path = self.readout[site]
        if isinstance(path, LogisticPath):
            return path.coefficients[:, [k]].toarray().ravel()
        return path.coefficients[k].toarray().ravel()

    def _present(self, prompt: int | None) -> list[np.ndarray]:
        """How much of each feature is there: 1, or on a prompt its activation in its own scale."""
        if prompt is None:
            return [np.ones(len(screening.kept)) for screening in self.screening.values()]
        return [
            self.rows.features[site][[prompt]].toarray().ravel()[screening.kept] / self.scales[site]
            for site, screening in self.screening.items()
        ]

    def _drawn(self, k, prompt, weights, direct, carried) -> Circuit:
        """Put what carries relevance into tables."""
        nodes, offset = [], 0
        rows: list[np.ndarray] = []  # position of a fitted feature in the node table, or -1
        for site, relevance in zip(self.sites, carried.nodes, strict=True):
            live = np.flatnonzero(relevance > 0)
            features = self.screening[site].kept[live]
            row = np.full(len(relevance), -1)
            row[live] = offset + np.arange(len(live))
            rows.append(row)
            offset += len(live)
            table = np.zeros(len(live), NODE)
            table["site"], table["feature"], table["score"] = str(site), features, relevance[live]
            if prompt is None:
                table["activation"] = self._means[site][features]
            else:
                table["activation"] = self.rows.features[site][[prompt]].toarray().ravel()[features]
            if site in self.labels:
                table["label"] = [self.labels[site][feature] for feature in features]
            nodes.append(table)
        end = np.zeros(1, NODE)
        end["site"], end["label"], end["score"] = TARGET, self.settings["target"], 1.0
        if self.rows.metric is not None and self.settings["loss"] == "squared":
            values = self.rows.metric
            end["activation"] = values.mean() if prompt is None else values[prompt]
        edges = []
        for i, flow in enumerate(carried.edges):
            part = flow.tocoo()
            edges.append(
                _edges(
                    rows[i][part.row],
                    rows[i + 1][part.col],
                    weights[i].tocsr()[part.row, part.col],
                    part.data,
                )
            )
        for i, flow in enumerate(carried.direct):
            live = np.flatnonzero(flow > 0)
            edges.append(
                _edges(rows[i][live], np.full(len(live), offset), direct[i][live], flow[live])
            )
        strength = float(self.strengths[k])
        fit = "held_out_accuracy" if self.settings["loss"] == "cross-entropy" else "held_out_r2"
        settings = {**self.settings, "strength": strength}
        settings["level"] = "dataset" if prompt is None else "prompt"
        if prompt is not None:
            settings["prompt"] = " ".join(self.rows.tokens[prompt])
        return Circuit(
            np.concatenate([*nodes, end]),
            np.concatenate(edges),
            settings,
            {"fit": {fit: float(self.held_out[k])}},
        )


def _variances(X: sp.csr_array) -> np.ndarray:
    """Variance of each column."""
    return np.asarray(X.power(2).mean(axis=0) - X.mean(axis=0) ** 2).ravel()


def _edges(source, target, weight, score) -> np.ndarray:
    table = np.zeros(len(source), EDGE)
    table["source"], table["target"] = source, target
    table["weight"], table["score"] = np.asarray(weight).ravel(), score
    return table

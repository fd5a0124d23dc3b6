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
from functools import partial
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.circuit_lasso.fit import OWN_TARGET, LassoFit, explained
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.labels import feature_labels
from circuit_toolkit.regression import (
    GramStatistics,
    LassoPath,
    Screening,
    lasso_path,
    logistic_path,
    screen_features,
)
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks.task import Task

STRENGTHS = tuple(np.geomspace(1, 0.03, 20).round(4).tolist())
TOL = 1e-11  # tight, so that sums in another order, as over shards, do not show in the results


@dataclass(frozen=True)
class CircuitLasso:
    """Learn circuits by sparse regression on captured activations.

    Parameters
    ----------
    positions : str
        How the tokens of a prompt become one row: the `last` (default: where the next word is
        said; what other tokens contribute enters through attention, layer by layer), their `mean`
        (for what is true of a whole text, such as a label), or a position that the task names;
        not `all`, which is no one row.
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
        Share of the prompts (with their corrupted prompts) that the held-out fit is measured on.
    seed : int
        Decides which these are.
    """

    positions: str = "last"
    reads: Literal["last", "all"] = "last"
    strengths: tuple[float, ...] = STRENGTHS
    min_active: int = 10
    held_out: float = 0.2
    seed: int = 0

    def fit(
        self,
        acts: Activations | ActivationStore,
        target: Any = "metric",
        labels: Mapping[Site, list[str]] | None = None,
        *,
        client: Any = None,
        progress: bool = True,
    ) -> LassoFit:
        """Fit the whole path of strengths.

        Parameters
        ----------
        acts : Activations or ActivationStore
            From `capture`, with `positions="all"` or the ones of this estimator. Of a store one
            shard at a time is in memory, and its pooled rows.
        target : Task, str or ndarray, shape (prompts,)
            The task that was captured (its metric, by squared loss), `metric`, the name of a
            label (two classes, or `name=class` for one class against the rest, by
            cross-entropy), or one number for each prompt.
        labels : dict of Site to list of str, optional
            Names of the features; by default the words on which they fire.
        client : dask.distributed.Client, optional
            Of a cluster whose workers read the store, add up statistics and fit the regressions;
            the results are the same up to rounding. See docs/scaling.md.
        progress : bool
            Whether to show Dask's progress bar; without a client there is none.

        Returns
        -------
        LassoFit
            From which circuits are read off at any strength without the activations or the model.

        Raises
        ------
        InputError
            If a setting is out of range, the target is unknown or constant, no feature fires
            often enough, or the cluster cannot be used.
        """
        if self.reads not in ("last", "all") or not 0 < self.held_out < 1:
            raise InputError(
                "reads must be 'last' or 'all' and held_out between 0 and 1, got "
                f"{self.reads!r} and {self.held_out}."
            )
        if self.positions == "all":
            raise InputError("positions must make one row of a prompt: 'mean', 'last' or a name.")
        source: Any = acts
        if client is not None:
            from circuit_toolkit.circuit_lasso.cluster import OnWorkers

            source = OnWorkers(client, acts, progress)
        rows = source.pooled(self.positions)
        name, y, is_label = _target(rows, target)
        if labels is None:
            labels = {} if acts.settings.get("positions") == "mean" else feature_labels(source)
        train = self._training(rows.groups)
        fit = self._regressions if client is None else partial(source.regressions, self)
        screened, chain, readout, held_out = fit(rows, y, is_label, train)
        fitted = {site: X[train][:, screened[site].kept] for site, X in rows.features.items()}
        return LassoFit(
            chain=chain,
            readout=readout,
            screening=screened,
            held_out=held_out,
            rows=rows if is_label else replace(rows, metric=y, directions=None),
            scales={site: np.sqrt(_variances(X)) for site, X in fitted.items()},
            labels=labels,
            settings={
                "method": "CircuitLasso",
                **{key: value for key, value in asdict(self).items() if key != "strengths"},
                "target": name,
                "loss": "cross-entropy" if is_label else "squared",
                **{key: acts.settings.get(key) for key in ("model", "task", "n_prompts")},
                "sites": [str(site) for site in fitted],
            },
        )

    def _regressions(
        self, rows: Activations, y: np.ndarray, is_label: bool, train: np.ndarray
    ) -> tuple[dict[Site, Screening], dict[Site, LassoPath], dict[Site, Any], np.ndarray]:
        """Screening, chain, readout and held-out fit, as `OnWorkers.regressions` gives them."""
        X = {site: sp.csr_array(matrix, dtype=np.float64) for site, matrix in rows.features.items()}
        screened = {}
        for site, matrix in X.items():
            nothing = np.zeros((np.count_nonzero(train), 0))
            screened[site] = self._screen(site, GramStatistics.from_arrays(matrix[train], nothing))
        X = {site: matrix[:, screened[site].kept] for site, matrix in X.items()}
        sites = list(X)
        chain = {
            later: lasso_path(
                GramStatistics.from_arrays(X[site][train], X[later][train]).standardised(),
                list(self.strengths),
                TOL,
            )
            for site, later in zip(sites, sites[1:], strict=False)
        }
        readout, scores = {}, {}
        for site in sites if self.reads == "all" else sites[-1:]:
            if is_label:
                path = logistic_path(X[site][train], y[train], list(self.strengths))
                scores[site] = path.held_out_accuracy(X[site][~train], y[~train])
            else:
                stats = GramStatistics.from_arrays(X[site][train], y[train, None])
                path = lasso_path(stats.standardised(), list(self.strengths), TOL)
                other = GramStatistics.from_arrays(X[site][~train], y[~train, None])
                scores[site] = path.held_out_r2(other)[:, 0]
            readout[site] = path
        return screened, chain, readout, scores[sites[-1]]

    def _training(self, groups: np.ndarray) -> np.ndarray:
        """Mask of the training prompts; a prompt and its corrupted prompt stay together."""
        names = np.unique(groups)
        held_out = np.random.default_rng(self.seed).permutation(names)[
            : max(1, round(self.held_out * len(names)))
        ]
        train = ~np.isin(groups, held_out)
        if not train.any():
            raise InputError(
                f"All {len(names)} groups of prompts would be held out. Capture more prompts, or "
                f"lower held_out={self.held_out}."
            )
        return train

    def _screen(self, site: Site, stats: GramStatistics) -> Screening:
        screening = screen_features(stats, self.min_active)
        if not len(screening.kept):
            raise InputError(
                f"No feature of {site} fires on {self.min_active} of {stats.n} training rows. "
                "Capture more prompts, or lower min_active."
            )
        return screening


def _target(acts: Activations, target: Any) -> tuple[str, np.ndarray, bool]:
    """Name and values (prompts,) of what is explained, and whether it is a class."""
    task = target.name if isinstance(target, Task) else None
    if task is not None and task != acts.settings.get("task"):
        raise InputError(
            f"The activations are of task {acts.settings.get('task')!r}, not of {task!r}. "
            "Capture the task that is the target."
        )
    if task is not None or (isinstance(target, str) and target == "metric"):
        y = explained(acts)
        if y is None:
            raise InputError(
                "These activations have no metric: capture a task, or pass target=<one number for "
                "each prompt>."
            )
        name = getattr(target, "metric", "metric")
    elif isinstance(target, str):
        return target, _is_class(acts, target), True
    else:
        name, y = OWN_TARGET, np.asarray(target, float)
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


def _variances(X: sp.csr_array) -> np.ndarray:
    """Variance of each column, in float64."""
    X = sp.csr_array(X, dtype=np.float64)
    return np.asarray(X.power(2).mean(axis=0) - X.mean(axis=0) ** 2).ravel()

"""CircuitLasso: which features drive which, and the target, by sparse regression.

Yin et al., "Scalable Circuit Learning for Interpreting Large Language Models", 2026,
arXiv 2606.16939. The observational design is theirs: one capture, then regressions of the features
of each site on those of the site before, and of the target on the features that it reads; no
intervention, so weights are dependency scores. The randomised design, an extension, regresses what
follows on what random ablations changed, so weights are effects. `evaluate` and `confirm_edges`
test a circuit of either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations.activations import Activations, Positions
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.arguments import described, expect, expect_known, is_a, number, one_of, whole
from circuit_toolkit.circuit_lasso.designs import Answers, imposed_rows
from circuit_toolkit.circuit_lasso.fit import OWN_TARGET, LassoFit, explained, first_of
from circuit_toolkit.circuit_lasso.randomised_runs import DRAWS
from circuit_toolkit.circuit_lasso.regressions import LEFT_OUT, Here, Regression, fit_all
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.word_shares import word_shares
from circuit_toolkit.models import Model
from circuit_toolkit.patching.placed_features import PlacedFeatures
from circuit_toolkit.regression import fold_labels, held_out_rows
from circuit_toolkit.regression.matrices import as_array
from circuit_toolkit.regression.settings import check_strengths
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks.task import Task

FROM_CAPTURE = ("model", "task", "n_prompts", "trained_on")
# Adaptive penalties differ a hundredfold between sources, so that weak ones enter late.
STRENGTHS = {
    False: tuple(np.geomspace(1, 0.03, 20).round(4).tolist()),
    True: tuple(np.geomspace(1, 0.001, 30).round(5).tolist()),
}


@dataclass(frozen=True)
class CircuitLasso:
    """Learn circuits by sparse regression on captured activations.

    Parameters
    ----------
    positions : str or sequence of str
        How the tokens of a prompt become one row: the `last` (default: where the next word is
        said; what other tokens contribute enters through attention, layer by layer), their `mean`
        (for what is true of a whole text, such as a label), or a position that the task names;
        not `all`, which is no one row. Of several, such as `("S2", "last")`, a row has the features
        at each, and those at a position have sources at the same or earlier ones (an extension).
    design : {"randomised", "observational"}, optional
        Whether regressions explain what random ablations change in the running model, or how
        activations vary together. By default randomised where `fit` is given a model.
    reads : {"last", "all"}
        Whether the target is regressed on the features of the last site, as in the paper, or on
        those of each site on its own (an extension), which also finds what has done its work
        before the last site. The randomised design reads all sites at once.
    strengths : tuple of float, optional
        Regularisation strengths: shares of the smallest penalty at which a target has no
        sources, in (0, 1]; by default 20 from 1 to 0.03, adaptive 30 from 1 to 0.001.
    adaptive : bool
        Whether every regression is fitted twice, the second time with penalties that spare the
        sources which the first found strong (the adaptive lasso of Zou, 2006, an extension): fewer
        edges, and more of them right. The first fit is read where its Bayesian information
        criterion is smallest. Weak sources enter late: choose by `circuit("one_se")` or an
        `edge_budget` rather than by a strength.
    min_active : int
        Features that are active on fewer training rows are left out.
    held_out : float
        Share of the prompts (with their corrupted prompts) that the held-out fit is measured on;
        of a label the same share of both classes.
    folds : int
        Into how many parts the training prompts are divided for `circuit("one_se")`, which fits
        the target as many times again; fewer where prompts are few. 0: not at all.
    draws : int
        Randomised runs of each prompt.
    seed : int
        Decides which prompts are held out, the folds, and what is ablated in randomised runs.

    Raises
    ------
    InputError
        If a setting is out of range.
    """

    positions: Positions = "last"
    design: Literal["randomised", "observational"] | None = None
    reads: Literal["last", "all"] = "last"
    strengths: tuple[float, ...] | None = None
    adaptive: bool = False
    min_active: int = 10
    held_out: float = 0.2
    folds: int = 5
    draws: int = DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings, and bring numbers of numpy and torch to those of Python."""
        one_of(self.design, "design", None, "randomised", "observational")
        if self.reads not in ("last", "all") or not isinstance(self.adaptive, bool | np.bool_):
            raise InputError(
                "reads must be 'last' or 'all' and adaptive True or False, got "
                f"{described(self.reads)} and {described(self.adaptive)}."
            )
        given: dict[str, Any] = {
            "positions": _positions(self.positions),
            "draws": whole(self.draws, "draws", 1),
            "adaptive": bool(self.adaptive),
            "min_active": whole(self.min_active, "min_active", 1),
            "folds": whole(self.folds, "folds", 0),
            "seed": whole(self.seed, "seed", 0),
            "held_out": number(self.held_out, "held_out", 0, 1, open_low=True),
        }
        if given["held_out"] == 1:
            raise InputError("held_out must be between 0 and 1, got 1: nothing is left to fit on.")
        if self.strengths is not None:
            given["strengths"] = tuple(check_strengths(as_array(self.strengths)).tolist())
        for name, value in given.items():
            object.__setattr__(self, name, value)

    @property
    def grid(self) -> tuple[float, ...]:
        """Strengths that are fitted, decreasing."""
        return STRENGTHS[self.adaptive] if self.strengths is None else self.strengths

    def fit(
        self,
        acts: Activations | ActivationStore,
        target: Any = "metric",
        labels: Mapping[Site, list[str]] | None = None,
        *,
        model: Model | None = None,
        dictionaries: Mapping[Site, Dictionary] | None = None,
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
            The task that was captured (its metric, by squared error), `metric`, the name of a
            label (two classes, or `name=class` for one class against the rest, by
            cross-entropy, on clean prompts alone), or one number for each prompt.
        labels : dict of Site or str to list of str, optional
            Names of the features; by default the words on which they are active.
        model : Model, optional
            Runs the prompts of the task that is the target: for the randomised design, and so that
            the target is the vector of the answers' logits where the task has more than two.
        dictionaries : dict of Site to Dictionary, optional
            With a model, those of the capture.
        client : dask.distributed.Client, optional
            Of a cluster whose workers read the store, make the randomised runs, add up statistics
            and fit the regressions; the results are the same up to rounding. See docs/scaling.md.
        progress : bool
            Whether to show a progress bar, with a client that of Dask.

        Returns
        -------
        LassoFit
            From which circuits are read off at any strength without the activations or the model.

        Raises
        ------
        InputError
            If an argument is of the wrong kind, the target is unknown or constant, a class of it
            is in one prompt alone, no feature is active often enough, or the cluster cannot be
            used.

        Warns
        -----
        ConvergenceWarning
            If some solutions are not certified.
        """
        expect(acts, "acts", "Activations", "ActivationStore")
        design = self._design(acts, target, model, dictionaries, client)
        where: Any = Here(acts, progress)
        if client is not None:
            from circuit_toolkit.circuit_lasso.cluster import OnWorkers

            where = OnWorkers(client, acts, progress)
        with where as run:
            return self._fitted(run, design, target, labels, model, dictionaries)

    def _fitted(
        self, run: Any, design: str, target: Any, labels: Any, model: Any, dictionaries: Any
    ) -> LassoFit:
        """Fit what `run` has, where it has it."""
        acts, rows = run.acts, run.pooled(self.positions)
        name, y, is_label = _target(rows, target)
        if labels is None:
            pooled = acts.settings.get("positions") == "mean"
            labels = {} if pooled else word_shares(run).labels()
        fold = self._folds(rows.groups, y if is_label else None)
        if is_label:  # a label is of the clean prompt: its corrupted one may be of another class
            fold[np.setdiff1d(np.arange(len(y)), first_of(rows.groups))] = LEFT_OUT
        order, randomised = self._order(rows), design == "randomised"
        how = Regression(self.grid, self.adaptive, self.min_active, run.light, order, randomised)
        samples, Y, of_sample, reads = rows, y[:, None], fold, self.reads
        answers = None
        if model is not None and isinstance(target, Task) and self.positions != "mean":
            given = as_dictionaries(model, dictionaries)
            for site in rows.features:
                expect_known(site, given, f"No dictionary was given for {site}, which was captured")
            known = {site: given[site] for site in rows.features}
            answers = Answers.of(model, known, target, rows)
            if randomised:
                runs = PlacedFeatures.of(model, known, target, rows.settings["positions"])
                samples, Y = imposed_rows(run, runs, answers.tokens, self.draws, self.seed)
                of_sample, reads = np.tile(fold[: len(target)], self.draws), "jointly"
            elif len(answers.tokens) > 2:
                Y = answers.logits
            else:
                answers = None  # one number says it all
        fitted = fit_all(run, samples, Y, is_label, of_sample, how, reads)
        train = {
            site: X[fold >= 0][:, fitted.screening[site].kept] for site, X in rows.features.items()
        }
        settings = {
            "method": "CircuitLasso",
            **{key: value for key, value in asdict(self).items() if key != "strengths"},
            "positions": rows.settings["positions"],
            "design": design,
            "reads": reads,
            "target": name,
            "objective": "cross-entropy" if is_label else "squared error",
            "held_out_fit": "auroc" if is_label else "r2",
            **{key: acts.settings.get(key) for key in FROM_CAPTURE},
            "sites": [str(site) for site in train],
        }
        if answers is not None:
            settings |= {"answers": answers.tokens, "ablation": answers.ablation}
        elif not is_label:
            rows = replace(rows, metric=y, directions=None)
        return LassoFit(
            **fitted._asdict(),
            rows=rows,
            scales={site: np.sqrt(_variances(X)) for site, X in train.items()},
            labels=_checked_labels(labels, rows, len(order)),
            settings=settings,
            gradient=None if answers is None else answers.gradient,
            references=None if answers is None else answers.references,
        )

    def _design(self, acts: Any, target: Any, model: Any, dictionaries: Any, client: Any) -> str:
        """Return the design, and refuse what does not go with it."""
        if model is not None:
            expect(model, "model", "Model")
            if dictionaries is None:
                raise InputError("With a model pass dictionaries=, those of the capture.")
        runs = model is not None and isinstance(target, Task) and self.positions != "mean"
        design = self.design or ("randomised" if runs else "observational")
        if design == "randomised" and not runs:
            raise InputError(
                "The randomised design runs the model on a task, and ablates at tokens: fit(acts, "
                "task, model=..., dictionaries=...), at other positions than 'mean'. Or use "
                "CircuitLasso(design='observational')."
            )
        if design == "randomised" and client is not None and isinstance(acts, Activations):
            raise InputError(
                "On a cluster the randomised design needs a folder that all workers see, from "
                "which they read the model: pass the store of capture(..., store=...). Or use "
                "CircuitLasso(design='observational')."
            )
        return design

    def _order(self, rows: Activations) -> np.ndarray:
        """Whether each position is at or before each other one, on every prompt, (P, P)."""
        if isinstance(self.positions, str):
            return np.ones((1, 1), bool)
        at = np.array([rows.places(position) for position in self.positions])  # (P, n)
        return np.asarray((at[:, None] <= at[None]).all(2))

    def _folds(self, groups: np.ndarray, label: np.ndarray | None = None) -> np.ndarray:
        """Fold of each prompt, from 0; -1 for held-out ones. Corrupted prompts stay with theirs."""
        held_out = held_out_rows(groups, self.held_out, self.seed, label)
        train, fold = groups[~held_out], np.where(held_out, -1, 0)
        k = min(self.folds, len(np.unique(train)))
        if label is not None:  # a fold needs both classes
            label = label[~held_out]
            k = min(k, *(len(np.unique(train[label == each])) for each in (False, True)))
        if k > 1:
            fold[~held_out] = fold_labels(train, k, self.seed, label)
        return fold


def _target(acts: Activations, target: Any) -> tuple[str, np.ndarray, bool]:
    """Name and values (prompts,) of what is explained, and whether it is a class."""
    if is_a(target, "Circuit", "LassoFit", "Model", "Activations", "ActivationStore"):
        expect(target, "target", "Task", "str", "ndarray")
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
        name = OWN_TARGET
        try:
            y = as_array(target).astype(float)
        except (TypeError, ValueError):
            raise InputError(
                "target must be a task, the name of a label or one number for each prompt, got "
                f"{described(target)}."
            ) from None
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
    expect_known(wanted, classes, f"{label!r} has no class {wanted!r}")
    return acts.labels[label] == wanted


def _variances(X: sp.csr_array) -> np.ndarray:
    """Variance of each column, in float64."""
    X = sp.csr_array(X, dtype=np.float64)
    return np.asarray(X.power(2).mean(axis=0) - X.mean(axis=0) ** 2).ravel()


def _positions(given: Any) -> Positions:
    """Return one position, or a tuple of several."""
    names = (given,) if isinstance(given, str) else given
    if (
        not isinstance(names, list | tuple)
        or not names
        or not all(isinstance(name, str) and name != "all" for name in names)
        or len(set(names)) < len(names)
        or (len(names) > 1 and "mean" in names)
    ):
        raise InputError(
            "positions must make one row of a prompt: 'mean', 'last' or a name, or several names "
            f"and 'last', each once; got {described(given)}."
        )
    return names[0] if len(names) == 1 else tuple(names)


def _checked_labels(
    labels: Mapping[Any, Any], rows: Activations, n_positions: int
) -> dict[Site, list[str]]:
    """Names by site, as many as there are features."""
    if not isinstance(labels, Mapping):
        raise InputError(f"labels must be names by site, got {described(labels)}.")
    found = {Site.parse(site): list(names) for site, names in labels.items()}
    for site, names in found.items():
        shape: Any = rows.features[site].shape if site in rows.features else ()
        width = shape[1] // n_positions if shape else len(names)
        if len(names) != width:
            raise InputError(f"labels has {len(names)} names for the {width} features of {site}.")
    return found

"""What CircuitLasso fits: a path of circuits, from which one is read off at any strength."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.arguments import expect, number, whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.names import told_apart
from circuit_toolkit.circuit_lasso import fit_file
from circuit_toolkit.circuit_lasso.drawing import by_effect, by_relevance
from circuit_toolkit.errors import InputError
from circuit_toolkit.regression import LassoPath, LogisticPath, Screening, one_standard_error
from circuit_toolkit.sites import Site
from circuit_toolkit.texts import printable

if TYPE_CHECKING:
    from circuit_toolkit.tasks.task import Task

OWN_TARGET = "target"  # name of a target that the caller gave as numbers


def explained(acts: Activations) -> np.ndarray | None:
    """Return the metric of each prompt, in one sense on all of them."""
    if acts.metric is None:
        return None
    return np.asarray(acts.metric, float) * (1 if acts.directions is None else acts.directions)


def first_of(groups: np.ndarray) -> np.ndarray:
    """Return rows of clean prompts: the first of each group."""
    return np.unique(groups, return_index=True)[1]


@dataclass(frozen=True, eq=False)
class LassoFit:
    """A fitted path of circuits, from dense to empty.

    Parameters
    ----------
    screening : dict of Site to Screening
        Features that were fitted, and those that they stand for. At several positions these are
        columns: the F features at the first position, then those at the second, and so on.
    chain : dict of Site to LassoPath
        For each site but the first, its features on those of the site before.
    readout : dict of Site to LassoPath or LogisticPath
        The target on the features of the sites that it reads; of the randomised design, at the
        last site, on those of all sites side by side.
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
    gradient : ndarray, shape (rows, q), or None
        Where the target is a vector, the logits of q answers: what each counts in the metric.
    references : dict of Site to ndarray, or None
        What an ablation sets the features to on a prompt that has no corrupted one, (P F,).
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
    gradient: np.ndarray | None = None
    references: Mapping[Site, np.ndarray] | None = None

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
        how = f"positions={said['positions']!r}, design={said.get('design', 'observational')!r}"
        chance = " (AUROC, chance 0.5)" if said.get("held_out_fit") == "auroc" else ""
        return printable(
            f"LassoFit({said['target']} of {said['task']}, {how}, adaptive={said['adaptive']}, "
            f"{len(self.strengths)} strengths, best held-out fit {self.held_out[best]:.3f}{chance} "
            f"at {self.strengths[best]:.3g})"
        )

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

    def on(self, acts: Activations, task: Task | None = None) -> LassoFit:
        """Apply the fitted weights to other prompts, for circuits of these.

        What they say is an estimate; `on_prompt` runs the model on one prompt and tests it.

        Parameters
        ----------
        acts : Activations
            Captured at the same sites with the same dictionaries.
        task : Task, optional
            Which answers are right on these prompts: needed where the target is a vector.

        Returns
        -------
        LassoFit
            Whose `circuit(prompt=...)` counts the prompts of `acts`.

        Raises
        ------
        InputError
            If a site is missing or the dictionaries differ, or the answers are unknown.
        """
        expect(acts, "acts", "Activations", "ActivationStore")
        if task is not None:
            expect(task, "task", "Task")
        for key in ("model", "dictionaries"):
            if acts.settings.get(key) != self.rows.settings.get(key):
                raise InputError(
                    f"These activations have {key} {acts.settings.get(key)}, the fit has "
                    f"{self.rows.settings.get(key)}. Capture with the same."
                )
        rows = acts.pooled(self.settings["positions"])
        own = self.settings["target"] == OWN_TARGET  # nobody said what it is on other prompts
        metric = None if own else explained(rows)
        gradient = None if self.gradient is None else self._gradient_on(rows, task)
        if gradient is not None and acts.metric is not None:
            metric = np.asarray(acts.metric, float)
        rows = replace(rows, metric=metric, directions=None)
        return replace(self, rows=rows, gradient=gradient)

    def _gradient_on(self, rows: Activations, task: Task | None) -> np.ndarray:
        """Return what each fitted logit counts in the metric of other prompts, (rows, q)."""
        if task is None or task.metric is None:
            raise InputError(
                "This fit explains the logits of answers. Say which are right on these prompts: "
                "fit.on(acts, task), with the task that was captured."
            )
        from circuit_toolkit.circuit_lasso.designs import expect_captured  # which needs torch

        expect_captured(task, rows)
        tokens, fitted = self.settings["answers"], self.gradient
        assert fitted is not None
        if task.metric == "logit_difference":
            return task.weights(tokens, range(rows.n_prompts)).astype(fitted.dtype)
        return np.repeat(fitted[self.clean].mean(0)[None], rows.n_prompts, axis=0)

    def circuit(
        self,
        strength: float | Literal["best", "one_se"] = 0.1,
        *,
        edge_budget: int | None = None,
        prompt: int | None = None,
        max_features: int | None = 40,
        max_edges: int | None = 200,
        max_per_site: int | None = None,
    ) -> Circuit:
        """Read off the circuit at a fitted strength.

        Observational: the score of an edge is the relevance that flows over it: the target's, 1, is
        shared out over its sources in proportion to the absolute coefficient (for a prompt: times
        the activation there), theirs over theirs, and so on to the first site.

        Randomised: the score of a node is the share of the metric that goes when it is ablated, as
        estimated, and the weight of an edge the share of the activation of its target, where that
        is at least a twentieth. What no later feature in the circuit carries on has an edge to the
        metric. `confirm_edges` and `evaluate` test it.

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
        max_per_site : int, optional
            Keep at most so many features of each site.

        Returns
        -------
        Circuit
            With the held-out fit as evidence; observational weights are in standardised units. Its
            settings say the strength, and what it was `chosen_by`.

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
        max_features, max_edges, max_per_site = (
            None if most is None else whole(most, name, 0)
            for name, most in (
                ("max_features", max_features),
                ("max_edges", max_edges),
                ("max_per_site", max_per_site),
            )
        )
        if edge_budget is not None:
            budget = whole(edge_budget, "edge_budget", 0)
            k, chosen_by = self._within(budget, prompt, max_features, max_per_site)
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
        drawn = self._drawn(k, prompt, max_features, max_per_site, max_edges)
        is_label = self.settings["objective"] == "cross-entropy"
        fit = self.settings.get("held_out_fit", "accuracy" if is_label else "r2")
        return replace(
            drawn,
            nodes=told_apart(drawn.nodes),
            settings={**drawn.settings, "chosen_by": chosen_by},
            evidence={"fit": {f"held_out_{fit}": float(self.held_out[k])}},
        )

    def _nearest(self, strength: float) -> int:
        return int(np.abs(np.log(self.strengths / strength)).argmin())

    def _drawn(
        self,
        k: int,
        prompt: int | None,
        max_features: int | None,
        max_per_site: int | None,
        max_edges: int | None = None,
    ) -> Circuit:
        """Put the circuit of a strength into tables."""
        if self.settings.get("design") == "randomised":
            return by_effect(self, k, prompt, max_features, max_per_site, max_edges)
        drawn = by_relevance(self, k, prompt)
        return drawn.prune(max_features, max_edges, max_per_site=max_per_site)

    def _within(self, budget: int, prompt: int | None, *features: int | None) -> tuple[int, str]:
        """Index of the weakest strength that keeps to a budget of edges, and how to call it."""
        n = 0
        for k in reversed(range(len(self.strengths))):
            n = len(self._drawn(k, prompt, *features).edges)
            if n <= budget:
                return k, f"edge budget of {budget}"
        raise InputError(
            f"At strength {self.strengths[0]:.3g} there are {n} edges, more than {budget}. Fit "
            "greater strengths too: CircuitLasso(strengths=...)."
        )

    def weights_of_target(self, site: Site, k: int) -> np.ndarray:
        """Standardised coefficients of the target on the fitted features of a site.

        Parameters
        ----------
        site : Site
            Of the fit.
        k : int
            Point of the path.

        Returns
        -------
        ndarray, shape (p,)
            Zeros where the target does not read the site.
        """
        if site not in self.readout:
            return np.zeros(len(self.screening[site].kept))
        return self.readout[site].standardised(k).toarray().ravel()

    def slopes_of_target(self, site: Site, k: int) -> sp.csc_array:
        """Coefficients of the logits on the fitted features of a site, in the unit of the data.

        Parameters
        ----------
        site : Site
            Of the fit.
        k : int
            Point of the path.

        Returns
        -------
        csc_array, shape (p, q)
        """
        p = len(self.screening[site].kept)
        if self.settings["reads"] == "jointly":
            first = sum(len(self.screening[each].kept) for each in self.sites if each < site)
            return self.readout[self.sites[-1]].coefficients[k][first : first + p]
        if site not in self.readout:
            assert self.gradient is not None
            return sp.csc_array((p, self.gradient.shape[1]))
        return self.readout[site].coefficients[k]

    @cached_property
    def means(self) -> dict[Site, np.ndarray]:
        """Mean of every column of the rows, (P F,) by site: of randomised runs the clean ones."""
        if self.settings.get("design") == "randomised":
            return {
                site: np.asarray(X[self.clean].mean(0)).ravel()
                for site, X in self.rows.features.items()
            }
        return self.rows.means()

    @cached_property
    def clean(self) -> np.ndarray:
        """Rows of clean prompts."""
        return first_of(self.rows.groups)

    @cached_property
    def moved(self) -> dict[Site, sp.csr_array]:
        """How far fitted features are from what an ablation sets them to, (rows, p) by site."""
        assert self.references is not None
        _, of_row, counts = np.unique(self.rows.groups, return_inverse=True, return_counts=True)
        n = np.arange(len(of_row))
        other = np.bincount(of_row, weights=n)[of_row].astype(int) - n
        paired = (counts[of_row] == 2) & (self.settings["ablation"] == "corrupted")
        found = {}
        for site, screening in self.screening.items():
            X = sp.csr_array(self.rows.features[site][:, screening.kept])
            at = np.where(paired, other, 0)
            keep = sp.diags_array(paired.astype(X.dtype))
            alone = sp.csr_array((~paired).astype(X.dtype)[:, None])
            reference = sp.csr_array(self.references[site][screening.kept][None].astype(X.dtype))
            found[site] = sp.csr_array(X - keep @ X[at] - alone @ reference)
        return found

    @cached_property
    def moved_by_logit(self) -> dict[Site, np.ndarray]:
        """Mean over clean prompts of how far a feature moves times the gradient, (p, q) by site."""
        assert self.gradient is not None
        G = self.gradient[self.clean]
        return {site: (X[self.clean].T @ G) / len(G) for site, X in self.moved.items()}

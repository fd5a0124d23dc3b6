"""Sparse feature activations of a set of prompts: captured once, then read in many ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.errors import InputError
from circuit_toolkit.sites import Site

MEAN = -1  # the position of a row that is a mean over the tokens of a prompt


@dataclass(frozen=True, eq=False)
class Activations:
    """Feature activations at some sites; rows are samples, columns are features.

    Parameters
    ----------
    features : dict of Site to scipy.sparse.csr_array, each (rows, F)
        Activations, in order of computation of the sites.
    prompt : ndarray of int, shape (rows,)
        Which prompt a row is of.
    position : ndarray of int, shape (rows,)
        Which of its tokens, counted from 0; -1 for a mean over its tokens.
    tokens : list of list of str
        The tokens of every prompt as text.
    groups : ndarray of int, shape (prompts,)
        Prompts that belong together, such as a prompt and its corrupted twin, share a number.
    metric : ndarray of float, shape (prompts,), optional
        The metric of the task on each prompt.
    directions : ndarray of int, shape (prompts,), optional
        +1 or -1 where the metric changes its sense from prompt to prompt, see `Task`.
    labels : dict of str to ndarray
        Classes of the prompts.
    named : dict of str to ndarray of int, shape (prompts,)
        Positions that the task names: index of a token of each prompt.
    settings : dict
        Model, task, positions and dictionaries: what is needed to say where this comes from.

    Raises
    ------
    InputError
        If the shapes disagree.
    """

    features: Mapping[Site, sp.csr_array]
    prompt: np.ndarray
    position: np.ndarray
    tokens: list[list[str]]
    groups: np.ndarray
    metric: np.ndarray | None = None
    directions: np.ndarray | None = None
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    named: Mapping[str, np.ndarray] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse tables that do not go together."""
        rows = len(self.prompt)
        for site, matrix in self.features.items():
            if len(matrix.indptr) != rows + 1:
                raise InputError(f"{site} has {len(matrix.indptr) - 1} rows, expected {rows}.")
        columns = {"groups": self.groups, "metric": self.metric, "directions": self.directions}
        for name, values in columns.items():
            if values is not None and len(values) != len(self.tokens):
                raise InputError(
                    f"{name} has {len(values)} entries for {len(self.tokens)} prompts."
                )

    @property
    def sites(self) -> list[Site]:
        """Sites in order of computation."""
        return list(self.features)

    @property
    def n_prompts(self) -> int:
        """Number of prompts, corrupted twins included."""
        return len(self.tokens)

    def __repr__(self) -> str:
        """Sizes; not the tables."""
        sites = ", ".join(site.short for site in self.sites)
        return f"Activations({len(self.prompt)} rows of {self.n_prompts} prompts at {sites})"

    def pooled(self, positions: str) -> Activations:
        """Reduce to one row a prompt, without running the model again.

        Parameters
        ----------
        positions : str
            `mean` over the tokens of a prompt, its `last` token, `all` tokens (no change), or a
            position that the task names (see `named`).

        Returns
        -------
        Activations
            Rows in the order of the prompts.

        Raises
        ------
        InputError
            If the rows are not tokens any more, or the task does not name the position.
        """
        captured = self.settings.get("positions", "all")
        if positions == captured:
            return self
        if captured != "all" or (self.position == MEAN).any():
            raise InputError(
                f"These activations were captured as positions={captured!r}; {positions!r} needs "
                "the tokens: capture(..., positions='all')."
            )
        if positions == "mean":
            counts = np.bincount(self.prompt, minlength=self.n_prompts)
            weights = 1.0 / counts[self.prompt]
            chosen, where = np.arange(len(self.prompt)), np.full(self.n_prompts, MEAN)
        else:
            where = self._place(positions)
            chosen = np.flatnonzero(self.position == where[self.prompt])
            weights = np.ones(len(chosen))
        pool = sp.csr_array(
            (weights, (self.prompt[chosen], chosen)), shape=(self.n_prompts, len(self.prompt))
        )
        return replace(
            self,
            features={
                site: sp.csr_array(pool @ matrix, dtype=np.float32)
                for site, matrix in self.features.items()
            },
            prompt=np.arange(self.n_prompts),
            position=where,
            settings={**self.settings, "positions": positions},
        )

    def _place(self, positions: str) -> np.ndarray:
        """Token of each prompt at a named position."""
        if positions == "last":
            return np.array([len(words) - 1 for words in self.tokens])
        if positions in self.named:
            return self.named[positions]
        known = ", ".join(["all", "mean", "last", *self.named])
        raise InputError(f"Unknown positions {positions!r}. Use one of {known}.")

    def means(self) -> dict[Site, np.ndarray]:
        """Average every feature over the rows.

        Returns
        -------
        dict of Site to ndarray, shape (F,)
        """
        return {
            site: np.asarray(matrix.mean(axis=0)).ravel() for site, matrix in self.features.items()
        }

    def of_prompt(self, prompt: int, site: Site, feature: int) -> np.ndarray:
        """Give the activation of one feature on each token of a prompt.

        Parameters
        ----------
        prompt : int
            Number of the prompt.
        site : Site
            Where.
        feature : int
            Which feature.

        Returns
        -------
        ndarray, shape (tokens,)
            Zero at tokens that were not captured, such as <bos>.

        Raises
        ------
        InputError
            If there is no such prompt, or the rows are means over tokens.
        """
        if not 0 <= prompt < self.n_prompts:
            raise InputError(f"There is no prompt {prompt}: they are 0 to {self.n_prompts - 1}.")
        values = np.zeros(len(self.tokens[prompt]), dtype=np.float32)
        rows = np.flatnonzero(self.prompt == prompt)
        if (self.position[rows] == MEAN).any():
            raise InputError("Means have no tokens: capture(..., positions='all').")
        values[self.position[rows]] = self.features[site][rows][:, [feature]].toarray().ravel()
        return values

    def examples(self, site: Site, feature: int, n: int = 8) -> list[int]:
        """Find the prompts on which a feature is strongest.

        Parameters
        ----------
        site : Site
            Where.
        feature : int
            Which feature.
        n : int
            At most so many; no text twice, and none where it does not fire.

        Returns
        -------
        list of int
            Numbers of prompts, the strongest first.
        """
        column = self.features[site][:, [feature]].tocoo()
        found: dict[str, int] = {}
        for row in column.row[np.argsort(-column.data, kind="stable")]:
            if len(found) == n:
                break
            prompt = int(self.prompt[row])
            found.setdefault(" ".join(self.tokens[prompt]), prompt)
        return list(found.values())

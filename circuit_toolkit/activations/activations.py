"""Sparse feature activations of a set of prompts: captured once, then read in many ways."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.errors import InputError
from circuit_toolkit.sites import Site

MEAN = -1  # the position of a row that is a mean over the tokens of a prompt
TOKEN_BYTES = 64  # of a token as text in memory: a short str and the pointer to it


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
        Prompts that belong together, such as a prompt and its corrupted prompt, share a number.
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
        """Number of prompts, corrupted prompts included."""
        return len(self.tokens)

    @property
    def nbytes(self) -> int:
        """Bytes that this takes in memory, about: the tokens are taken as short words."""
        arrays = [self.prompt, self.position]
        for matrix in self.features.values():
            arrays += [matrix.data, matrix.indices, matrix.indptr]
        return sum(each.nbytes for each in arrays) + TOKEN_BYTES * sum(map(len, self.tokens))

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
        if positions == self.settings.get("positions", "all"):
            return self
        pool = self.pooling(positions)
        is_mean = positions == "mean"
        return replace(
            self,
            features={
                site: sp.csr_array(pool @ matrix, dtype=np.float32)
                for site, matrix in self.features.items()
            },
            prompt=np.arange(self.n_prompts),
            position=np.full(self.n_prompts, MEAN) if is_mean else self._place(positions),
            settings={**self.settings, "positions": positions},
        )

    def pooling(self, positions: str) -> sp.csr_array:
        """Return the matrix that takes rows, which are tokens, to one row a prompt.

        Parameters
        ----------
        positions : str
            As for `pooled`, but not `all`.

        Returns
        -------
        scipy.sparse.csr_array, shape (prompts, rows)

        Raises
        ------
        InputError
            As `pooled`.
        """
        captured = self.settings.get("positions", "all")
        if captured != "all" or (self.position == MEAN).any():
            raise InputError(
                f"These activations were captured as positions={captured!r}; {positions!r} needs "
                "the tokens: capture(..., positions='all')."
            )
        if positions == "mean":
            counts = np.bincount(self.prompt, minlength=self.n_prompts)
            weights = 1.0 / counts[self.prompt]
            chosen = np.arange(len(self.prompt))
        else:
            chosen = np.flatnonzero(self.position == self._place(positions)[self.prompt])
            weights = np.ones(len(chosen))
        return sp.csr_array(
            (weights, (self.prompt[chosen], chosen)), shape=(self.n_prompts, len(self.prompt))
        )

    def _place(self, positions: str) -> np.ndarray:
        """Token of each prompt at a named position."""
        if positions == "last":
            return np.array([len(words) - 1 for words in self.tokens])
        if positions in self.named:
            return self.named[positions]
        known = ", ".join(["all", "mean", "last", *self.named])
        raise InputError(f"Unknown positions {positions!r}. Use one of {known}.")

    def part(self, start: int, stop: int) -> Activations:
        """Cut out some prompts, which are then counted from 0.

        Parameters
        ----------
        start, stop : int
            The first prompt, and the one after the last.

        Returns
        -------
        Activations
        """
        rows = np.flatnonzero((self.prompt >= start) & (self.prompt < stop))
        prompts = slice(start, stop)
        return replace(
            self,
            features={site: sp.csr_array(matrix[rows]) for site, matrix in self.features.items()},
            prompt=self.prompt[rows] - start,
            position=self.position[rows],
            tokens=self.tokens[prompts],
            groups=self.groups[prompts],
            metric=None if self.metric is None else self.metric[prompts],
            directions=None if self.directions is None else self.directions[prompts],
            labels={name: values[prompts] for name, values in self.labels.items()},
            named={name: values[prompts] for name, values in self.named.items()},
        )

    def shards(self) -> Iterator[Activations]:
        """Return itself as the only shard, so that what reads a store shard by shard reads this.

        Yields
        ------
        Activations
        """
        yield self

    def save(self, folder: str | os.PathLike) -> Path:
        """Write to a folder, whole or not at all; `ActivationStore.open` reads it.

        Parameters
        ----------
        folder : path
            Must not be there yet, or be empty.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        InputError
            If the folder holds something, or the settings cannot be written as JSON.
        """
        # It reads these tables, and so stands on them.
        from circuit_toolkit.activations.store.writer import save

        return save(self, folder)

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
        """Return the activation of one feature on each token of a prompt.

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


def joined(parts: list[Activations]) -> Activations:
    """Put activations below each other, such as those of the batches of one capture."""
    first = parts[0]
    offsets = np.cumsum([0, *(part.n_prompts for part in parts)])
    tables: dict[str, Any] = {
        "prompt": np.concatenate(
            [part.prompt + offset for part, offset in zip(parts, offsets, strict=False)]
        ),
        "position": np.concatenate([part.position for part in parts]),
        "tokens": [words for part in parts for words in part.tokens],
        "groups": np.concatenate([part.groups for part in parts]),
        "metric": _maybe_joined([part.metric for part in parts]),
        "directions": _maybe_joined([part.directions for part in parts]),
        "labels": {key: np.concatenate([p.labels[key] for p in parts]) for key in first.labels},
        "named": {key: np.concatenate([p.named[key] for p in parts]) for key in first.named},
        "settings": first.settings,
    }
    columns = {site: [part.features[site] for part in parts] for site in first.features}
    del first
    parts.clear()
    features = {site: sp.csr_array(sp.vstack(columns.pop(site))) for site in list(columns)}
    return Activations(features=features, **tables)


def _maybe_joined(columns: list[np.ndarray | None]) -> np.ndarray | None:
    """Put columns below each other that all parts have, or none."""
    given = [column for column in columns if column is not None]
    return np.concatenate(given) if given else None

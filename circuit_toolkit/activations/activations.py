"""Sparse feature activations of a set of prompts: captured once, then read in many ways."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.arguments import described, expect_known, one_of, whole
from circuit_toolkit.errors import InputError
from circuit_toolkit.sites import Site

Positions = str | Sequence[str]
MEAN = -1  # the position of a row that is of no one token, such as a mean over a prompt
SINK = 20  # times the median: so much activation a token has as an attention sink alone
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
        Which of its tokens, counted from 0; -1 for a mean over its tokens, or for several.
    tokens : list of list of str
        The tokens of every prompt as text.
    texts : list of str, optional
        The prompts as they were given.
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
    texts: list[str] | None = None

    def __post_init__(self) -> None:
        """Refuse tables that do not go together."""
        rows = len(self.prompt)
        for site, matrix in self.features.items():
            if len(matrix.indptr) != rows + 1:
                raise InputError(f"{site} has {len(matrix.indptr) - 1} rows, expected {rows}.")
        for name in ("groups", "metric", "directions", "texts"):
            values, n = getattr(self, name), len(self.tokens)
            if values is not None and len(values) != n:
                raise InputError(f"{name} has {len(values)} entries for {n} prompts.")

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
        matrices = sum(map(bytes_of, self.features.values()))
        tokens = TOKEN_BYTES * sum(map(len, self.tokens))
        return matrices + self.prompt.nbytes + self.position.nbytes + tokens

    def __repr__(self) -> str:
        """Sizes; not the tables."""
        sites = ", ".join(site.short for site in self.sites)
        return f"Activations({len(self.prompt)} rows of {self.n_prompts} prompts at {sites})"

    def pooled(self, positions: Positions) -> Activations:
        """Reduce to one row a prompt, without running the model again.

        Parameters
        ----------
        positions : str or sequence of str
            `mean` over the tokens of a prompt, its `last` token, `all` tokens (no change), or a
            position that the task names (see `named`). Of several, a row has the features at the
            first of them, then those at the second, and so on.

        Returns
        -------
        Activations
            Rows in the order of the prompts.

        Raises
        ------
        InputError
            If the rows are not tokens any more, or the task does not name the position.
        """
        several = several_of(positions)
        positions = positions if isinstance(positions, str) else several
        if positions == self.settings.get("positions", "all"):
            return self
        pools = [self.pooling(each) for each in several]
        return replace(
            self,
            features={site: beside(pools, matrix) for site, matrix in self.features.items()},
            prompt=np.arange(self.n_prompts),
            position=(
                self.places(positions)
                if isinstance(positions, str)
                else np.full(self.n_prompts, MEAN)
            ),
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
        places = self.places(positions)[self.prompt]
        chosen = np.flatnonzero((positions == "mean") | (self.position == places))
        prompt, shape = self.prompt[chosen], (self.n_prompts, len(self.prompt))
        weights = 1.0 / np.bincount(prompt, minlength=self.n_prompts)[prompt]
        return sp.csr_array((weights, (prompt, chosen)), shape=shape)

    def places(self, positions: str) -> np.ndarray:
        """Return the token of each prompt at a position.

        Parameters
        ----------
        positions : str
            As in `pooled`, but not `all`.

        Returns
        -------
        ndarray of int, shape (prompts,)
            -1 for `mean`.

        Raises
        ------
        InputError
            If the task does not name it.
        """
        last = np.array([len(words) - 1 for words in self.tokens])
        known = {**self.named, "mean": np.full(self.n_prompts, MEAN), "last": last}
        one_of(positions, "positions", *known)
        return known[positions]

    def part(self, start: int, stop: int) -> Activations:
        """Return some prompts, counted from 0 again.

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
        names = ("groups", "metric", "directions", "texts")
        columns = {name: getattr(self, name) for name in names}
        return replace(
            self,
            features={site: sp.csr_array(matrix[rows]) for site, matrix in self.features.items()},
            prompt=self.prompt[rows] - start,
            position=self.position[rows],
            tokens=self.tokens[prompts],
            **{name: None if each is None else each[prompts] for name, each in columns.items()},
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
            Must not be there yet, or be empty; `~` is the home folder.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        InputError
            If the folder holds something, the settings cannot be written as JSON, or an
            activation is not finite.
        """
        from circuit_toolkit.activations.store.writer import save_activations  # stands on this

        return save_activations(self, folder)

    def inlying(self, site: Site | str) -> np.ndarray:
        """Return which tokens are of usual size: at the others nearly all features are active.

        The first token of a prompt is an attention sink in many models, with a norm a hundred times
        that of others. Norms are not held, so the sum of a token's activations decides: an outlying
        one is above 20 times the median of the tokens at which any feature is active. On SmolLM2
        the first token's is 600 to 2,600 times the median, that of no other above 7 times.

        Parameters
        ----------
        site : Site or str
            Where.

        Returns
        -------
        ndarray of bool, shape (rows,)
            All true where rows are not tokens but means, or one token a prompt.

        Raises
        ------
        InputError
            If the site was not captured.
        """
        size = np.asarray(abs(self._matrix(site)).sum(axis=1)).ravel()
        active = np.sort(size[size > 0])
        if self.settings.get("positions", "all") != "all" or not len(active):
            return np.ones(len(size), bool)
        return size <= SINK * active[(len(active) - 1) // 2]  # of two the lower one

    def text(self, prompt: int) -> str:
        """Return a prompt as it was given, or where that is not known, its tokens put together.

        Parameters
        ----------
        prompt : int
            Number of the prompt.

        Returns
        -------
        str

        Raises
        ------
        InputError
            If there is no such prompt.
        """
        prompt = _below(prompt, "prompt", self.n_prompts)
        if self.texts is not None:
            return self.texts[prompt]
        words = self.tokens[prompt]
        return ("" if any(word[:1] == " " for word in words) else " ").join(words)

    def means(self) -> dict[Site, np.ndarray]:
        """Average every feature over the rows.

        Returns
        -------
        dict of Site to ndarray, shape (F,)
        """
        return {
            site: np.asarray(matrix.mean(axis=0)).ravel() for site, matrix in self.features.items()
        }

    def of_prompt(self, prompt: int, site: Site | str, feature: int) -> np.ndarray:
        """Return the activation of one feature on each token of a prompt.

        Parameters
        ----------
        prompt : int
            Number of the prompt.
        site : Site or str
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
            If there is no such prompt, site or feature, or the rows are means over tokens.
        """
        prompt = _below(prompt, "prompt", self.n_prompts)
        column = self._column(site, feature)
        values = np.zeros(len(self.tokens[prompt]), dtype=np.float32)
        rows = np.flatnonzero(self.prompt == prompt)
        if (self.position[rows] == MEAN).any():
            raise InputError("Means have no tokens: capture(..., positions='all').")
        values[self.position[rows]] = column[rows].toarray().ravel()
        return values

    def examples(self, site: Site | str, feature: int, n: int = 8) -> list[int]:
        """Return the prompts on which a feature is strongest.

        Parameters
        ----------
        site : Site or str
            Where.
        feature : int
            Which feature.
        n : int
            At most so many; no text twice, and none that does not activate it. Tokens of outlying
            size do not count, see `inlying`.

        Returns
        -------
        list of int
            Numbers of prompts, the strongest first.

        Raises
        ------
        InputError
            If there is no such site or feature.
        """
        n, column = whole(n, "n", 0), self._column(site, feature).tocoo()
        found: dict[str, int] = {}
        counts = self.inlying(site)[column.row]
        rows, sizes = column.row[counts], np.asarray(column.data, dtype=float)[counts]
        for row in rows[np.argsort(-sizes, kind="stable")]:
            if len(found) == n:
                break
            prompt = int(self.prompt[row])
            found.setdefault(" ".join(self.tokens[prompt]), prompt)
        return list(found.values())

    def _column(self, site: Site | str, feature: int) -> sp.csr_array:
        """One feature on all rows, shape (rows, 1)."""
        matrix = self._matrix(site)
        width = matrix.shape[1]  # type: ignore[misc]  # scipy's stub says it may be None
        return matrix[:, [_below(feature, "feature", width)]]

    def _matrix(self, site: Site | str) -> sp.csr_array:
        """All features of a site, shape (rows, F)."""
        site = Site.parse(site)
        expect_known(site.short, [each.short for each in self.sites], f"{site} was not captured")
        return self.features[site]


def several_of(positions: Positions) -> list[str]:
    """Return one or several positions as a list; refuse what is neither."""
    found = [positions] if isinstance(positions, str) else positions
    if not isinstance(found, list | tuple) or not found:
        raise InputError(
            f"positions must be the name of a position, such as 'last', or a list of some, got "
            f"{described(positions)}."
        )
    return list(found)


def beside(pools: Sequence[sp.csr_array], matrix: sp.csr_array) -> sp.csr_array:
    """Put side by side what each pool makes of the rows."""
    return sp.csr_array(sp.hstack([pool @ matrix for pool in pools]), dtype=np.float32)


def bytes_of(matrix: sp.csr_array) -> int:
    """Return the bytes that a sparse matrix takes."""
    return matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes


def _below(value: int, name: str, n: int) -> int:
    """Return a number from 0 to n - 1, or refuse it."""
    if not 0 <= (found := whole(value, name)) < n:
        raise InputError(f"There is no {name} {found}: they are 0 to {n - 1}.")
    return found


def joined(parts: list[Activations]) -> Activations:
    """Put activations below each other, such as those of the batches of one capture."""
    offsets = np.cumsum([0, *(part.n_prompts for part in parts)])

    def column(name: str) -> Any:
        given = [getattr(part, name) for part in parts]
        return None if given[0] is None else np.concatenate(given)

    def table(name: str) -> dict[str, np.ndarray]:
        tables = [getattr(part, name) for part in parts]
        return {key: np.concatenate([each[key] for each in tables]) for key in tables[0]}

    tables: dict[str, Any] = {
        "prompt": np.concatenate(
            [part.prompt + offset for part, offset in zip(parts, offsets, strict=False)]
        ),
        "tokens": [words for part in parts for words in part.tokens],
        **{name: column(name) for name in ("position", "groups", "metric", "directions")},
        **{name: table(name) for name in ("labels", "named")},
        "settings": parts[0].settings,
    }
    if all(part.texts is not None for part in parts):
        tables["texts"] = [text for part in parts for text in part.texts or ()]
    columns = {site: [part.features[site] for part in parts] for site in parts[0].features}
    parts.clear()
    features = {site: sp.csr_array(sp.vstack(columns.pop(site))) for site in list(columns)}
    return Activations(features=features, **tables)

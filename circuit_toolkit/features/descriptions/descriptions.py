"""FeatureDescriptions: what every feature means, at thresholds that can be moved."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.errors import InputError
from circuit_toolkit.features.checks import check_number
from circuit_toolkit.features.descriptions.explain import concepts
from circuit_toolkit.features.descriptions.explainer import Explainer
from circuit_toolkit.features.descriptions.inherited_tokens import Described, describe_site
from circuit_toolkit.features.descriptions.tables import SiteTables
from circuit_toolkit.features.descriptions.words import grouped_words, spelled
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    import pandas as pd

LABEL = 3  # words in a label


@dataclass(frozen=True, eq=False)
class FeatureDescriptions:
    """What features mean, by the tokens that their weights single out; from `WeightLens.describe`.

    Tokens are told apart by their ids; texts are for reading.

    Parameters
    ----------
    tables : dict of Site to SiteTables
        What stands out, down to the floors, in order of computation; earlier dictionaries too
        where these were not asked for.
    settings : dict
        Model, dictionaries, preset, thresholds (`theta_token`, `theta_feature`), pools, floors.
    strings : dict of int to str
        Texts of the tokens.
    shown : tuple of Site
        Dictionaries that were asked for.
    concepts : dict of (str, int) to str
        What an explainer said of a feature of a site.
    """

    tables: Mapping[Site, SiteTables]
    settings: Mapping[str, Any]
    strings: Mapping[int, str]
    shown: tuple[Site, ...]
    concepts: Mapping[tuple[str, int], str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Sizes and thresholds; not the tables."""
        n = sum(self.tables[site].n_features for site in self.shown)
        return (
            f"FeatureDescriptions({len(self.validated())} of {n} features validated, preset "
            f"{self.settings['preset']!r}, theta {self.settings['theta_token']:g} and "
            f"{self.settings['theta_feature']:g})"
        )

    @cached_property
    def described(self) -> dict[Site, Described]:
        """Descriptions as matrices (F, V) of what tokens do alone, and the soft ones."""
        found: list[Described] = []
        for table in self.tables.values():
            found.append(
                describe_site(
                    table,
                    self.settings["theta_token"],
                    self.settings["theta_feature"],
                    found,
                    self.settings["upstream"],
                    self.settings["n_tokens"],
                )
            )
        return dict(zip(self.tables, found, strict=True))

    @cached_property
    def _tokens(self) -> dict[Site, list[list[int]]]:
        found = {}
        for site, (tokens, _) in self.described.items():
            feature = np.repeat(np.arange(len(tokens.indptr) - 1), np.diff(tokens.indptr))
            order = np.lexsort((tokens.indices, np.negative(tokens.data), feature))
            found[site] = [
                each.tolist() for each in np.split(tokens.indices[order], tokens.indptr[1:-1])
            ]
        return found

    @cached_property
    def _words(self) -> dict[Site, list[list[str]]]:
        language = self.settings["language"]
        return {
            site: [grouped_words((self.strings[t] for t in each), language) for each in tokens]
            for site, tokens in self._tokens.items()
        }

    def tokens_of(self, site: Site | str) -> list[list[int]]:
        """Return the description of each feature of a site as token ids.

        Parameters
        ----------
        site : Site or str
            Where.

        Returns
        -------
        list of list of int
            Those first that drive the feature hardest alone; empty where none is validated.

        Raises
        ------
        InputError
            If the site was not described.
        """
        return self._tokens[self._known(site)]

    def words_of(self, site: Site | str) -> list[list[str]]:
        """Return the description of each feature of a site as words, see `grouped_words`.

        Parameters
        ----------
        site : Site or str
            Where.

        Returns
        -------
        list of list of str

        Raises
        ------
        InputError
            If the site was not described.
        """
        return self._words[self._known(site)]

    def _known(self, site: Site | str) -> Site:
        site = Site.parse(site)
        if site not in self.tables:
            raise InputError(
                f"{site} was not described, only {', '.join(map(str, self.tables))}. Describe "
                "with its dictionary."
            )
        return site

    def at(
        self, *, theta_token: float | None = None, theta_feature: float | None = None
    ) -> FeatureDescriptions:
        """Move thresholds, without a run of the model.

        Parameters
        ----------
        theta_token, theta_feature : float, optional
            New thresholds; by default as they are. Not below `settings["floors"]`, which are
            `slack` below the thresholds of the run.

        Returns
        -------
        FeatureDescriptions
            What `describe` gives at these thresholds; explanations are left out.

        Raises
        ------
        InputError
            If a threshold is no number, or below its floor.
        """
        moved = {"theta_token": theta_token, "theta_feature": theta_feature}
        moved = {name: value for name, value in moved.items() if value is not None}
        for name, value in moved.items():
            check_number(name, value)
            floor = self.settings["floors"][name]
            if not value >= floor:
                raise InputError(
                    f"{name}={value:g} is below {floor:g}, and what stands out less was not kept. "
                    "Describe again with a lower threshold, or a larger slack."
                )
        moved = {name: float(value) for name, value in moved.items()}
        own = {**self.settings["own"], **moved}
        return replace(self, settings={**self.settings, **moved, "own": own}, concepts={})

    def validated(self) -> list[tuple[Site, int]]:
        """Return the features that have a description.

        Returns
        -------
        list of (Site, int)
            Site and number, in order.
        """
        return [
            (site, int(i))
            for site in self.shown
            for i in np.flatnonzero(np.diff(self.described[site].tokens.indptr))
        ]

    def labels(self) -> dict[Site, list[str]]:
        """Return a short label for each feature.

        Returns
        -------
        dict of Site to list of str
            At most three words, those first that drive it hardest alone; "" where none is
            validated.
        """
        return {
            site: [
                ", ".join(map(spelled, words[:LABEL])) + (", …" if len(words) > LABEL else "")
                for words in self._words[site]
            ]
            for site in self.shown
        }

    def table(self) -> pd.DataFrame:
        """Return one row a feature.

        Returns
        -------
        DataFrame
            `site`, `layer`, `feature`, `kind`, `validated`, `words`, `n_tokens` in the description,
            `own` tokens that stand out, share of them that are active as `validation`, share of
            the soft description that is active as `validation_soft` (both empty where there is
            nothing to test), `negative` tokens, `upstream` features, `concept`.
        """
        from circuit_toolkit.features.descriptions.overview import table

        return table(self)

    def coverage(self) -> pd.DataFrame:
        """Return how many features have a description, site by site, and what chance gives.

        Returns
        -------
        DataFrame
            `validated` share of features, and `own` share of those with a validated token of their
            own; `n_tokens` in a description; `candidates`, tokens that stand out for a feature, and
            `upstream`, features that do, both means over all; the same with the encoder's entries
            permuted as `chance_candidates` and `chance_upstream`, and as `chance_own` the share of
            features that one of these chance tokens happens to activate. Empty without a sample.
        """
        from circuit_toolkit.features.descriptions.overview import coverage

        return coverage(self)

    def search(self, token: str | int) -> pd.DataFrame:
        """Find the features for which a token stands out, or whose description holds it.

        Most tokens stand out for none, and an unknown token cannot be told from these: only those
        that stand out are kept. A token may drive many features all the same, see
        `explore_features`.

        Parameters
        ----------
        token : str or int
            A token as text, or its id. A text that no token has exactly finds those that differ
            from it in spaces and case.

        Returns
        -------
        DataFrame
            `site`, `layer`, `feature`, `token` (id), `text`, `solo` (what the token does alone,
            the strongest first), `z` and `contribution` of its embedding (empty where the token is
            inherited), `validated` (whether it is in the description), `words`.
        """
        from circuit_toolkit.features.descriptions.overview import search

        return search(self, token)

    def of(self, site: Site | str, feature: int) -> dict[str, Any]:
        """Tell all about one feature, in what JSON can hold.

        Parameters
        ----------
        site : Site or str
            Where.
        feature : int
            Which feature.

        Returns
        -------
        dict
            `feature`; `tokens` positive and negative, with contribution, its share of `totals` as
            `relative`, and what the token does alone as `solo`; `outputs` promoted and suppressed;
            `upstream` features with their words; `totals`; `description` and `description_soft`;
            `words`; `validation` (share of positive tokens that are active), `validation_soft`,
            `validated`; `concept`; `provenance`.

        Raises
        ------
        InputError
            If there is no such feature.
        """
        from circuit_toolkit.features.descriptions.record import record

        return record(self, Site.parse(site), feature)

    def explained(self, explainer: Explainer | Callable[[str], str]) -> FeatureDescriptions:
        """Add what an explainer says of each validated feature.

        Parameters
        ----------
        explainer : Explainer or callable
            What is called, and how often at most. Cost and first prompt are shown before; without
            `max_calls`, as with a bare callable, that is all. It keeps its answers: after an error
            pass the same again to go on.

        Returns
        -------
        FeatureDescriptions

        Raises
        ------
        InputError
            If there would be more calls than are allowed, a call fails, or gives no text.
        """
        return replace(self, concepts=concepts(self, explainer))

    def save(self, path: str | os.PathLike) -> Path:
        """Write to a file, whole or not at all.

        Parameters
        ----------
        path : path
            Ends in `.parquet` or `.json`; `~` is the home folder. One row a feature; what stands
            out down to the floors is in it too.

        Returns
        -------
        Path

        Raises
        ------
        InputError
            If the ending is another, or no file can be written there.
        """
        from circuit_toolkit.features.descriptions.file import save

        return save(self, resolved(path))

    @classmethod
    def load(cls, path: str | os.PathLike) -> FeatureDescriptions:
        """Read a file that `save` wrote.

        Parameters
        ----------
        path : path
            Ends in `.parquet` or `.json`.

        Returns
        -------
        FeatureDescriptions

        Raises
        ------
        InputError
            If there is no such file, or the ending is another.
        FileFormatError
            If it is damaged, foreign, or of another version.
        """
        from circuit_toolkit.features.descriptions.file import load

        return cls(**load(resolved(path)))

"""What descriptions hold, and what follows from it at their thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from circuit_toolkit.errors import InputError
from circuit_toolkit.features.descriptions.inherited_tokens import Described, describe_site
from circuit_toolkit.features.descriptions.tables import SiteTables
from circuit_toolkit.features.descriptions.words import grouped_words
from circuit_toolkit.sites import Site


@dataclass(frozen=True, eq=False)
class DescriptionData:
    """What `FeatureDescriptions` stands on."""

    tables: Mapping[Site, SiteTables]
    settings: Mapping[str, Any]
    strings: Mapping[int, str]
    shown: tuple[Site, ...]
    concepts: Mapping[tuple[str, int], str] = field(default_factory=dict)

    @cached_property
    def described(self) -> dict[Site, Described]:
        """Descriptions as matrices (F, V) of what tokens do alone, and the soft ones."""
        found: list[Described] = []
        names = ("theta_token", "theta_feature")
        token, feature = (self.settings[name] for name in names)
        upstream, n_tokens = self.settings["upstream"], self.settings["n_tokens"]
        for table in self.tables.values():
            found.append(describe_site(table, token, feature, found, upstream, n_tokens))
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
            Those first that activate the feature most alone; empty where none is validated.

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

    def standing_out(self, site: Site) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens and the upstream features that stand out, at the high end.

        Parameters
        ----------
        site : Site
            Where.

        Returns
        -------
        ndarray of TOKEN, ndarray of LINK
        """
        table = self.tables[site]
        tokens = table.tokens[table.tokens["z"] > self.settings["theta_token"]]
        return tokens, table.links[table.links["z"] > self.settings["theta_feature"]]

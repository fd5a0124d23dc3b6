"""FeatureDescriptions: what every feature means, at thresholds that can be moved."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.arguments import number, whole
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.descriptions.data import DescriptionData
from circuit_toolkit.features.descriptions.explainer import (
    Cost,
    Explainer,
    as_explainer,
    prompt_for,
)
from circuit_toolkit.features.descriptions.file import load_descriptions, save_descriptions
from circuit_toolkit.features.descriptions.overview import (
    coverage_table,
    feature_table,
    token_table,
)
from circuit_toolkit.features.descriptions.settings import check_settings
from circuit_toolkit.features.descriptions.tables import rows_of
from circuit_toolkit.features.descriptions.words import spelled
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    import pandas as pd

LABEL = 3  # words in a label
_OF_THE_RUN = ("dictionaries", "n_tokens", "n_permuted", "seed", "largest_group")


@dataclass(frozen=True, eq=False)
class FeatureDescriptions(DescriptionData):
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

    def __repr__(self) -> str:
        """Sizes and thresholds; not the tables."""
        n = sum(self.tables[site].n_features for site in self.shown)
        return (
            f"FeatureDescriptions({len(self.validated())} of {n} features validated, preset "
            f"{self.settings['preset']!r}, theta {self.settings['theta_token']:g} and "
            f"{self.settings['theta_feature']:g})"
        )

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
        moved = {
            name: number(value, name, -np.inf, np.inf)
            for name, value in moved.items()
            if value is not None
        }
        for name, value in moved.items():
            floor = self.settings["floors"][name]
            if not value >= floor:
                raise InputError(
                    f"{name}={value:g} is below {floor:g}, and what stands out less was not kept. "
                    "Describe again with a lower threshold, or a larger slack."
                )
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
            At most three words, those first that activate it most alone; "" where none is
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
        return feature_table(self)

    def coverage(self) -> pd.DataFrame:
        """Return how many features have a description, site by site, and the permutation null.

        Returns
        -------
        DataFrame
            `validated` share of features, and `own` share of those with a validated token of their
            own; `n_tokens` in a description; `candidates`, tokens that stand out for a feature, and
            `upstream`, features that do, both means over all. The permutation null is the same with
            the encoder's entries permuted: `null_candidates`, `null_upstream`, and `null_own`, the
            share of features that one of these tokens activates. Empty without a sample.
        """
        return coverage_table(self)

    def search(self, token: str | int) -> pd.DataFrame:
        """Find the features for which a token stands out, or whose description holds it.

        Most tokens stand out for none, and an unknown token cannot be told from these: only those
        that stand out are kept. A token may activate many features all the same, see
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
        return token_table(self, token if isinstance(token, str) else whole(token, "token"))

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
        site = Site.parse(site)
        index = whole(feature, "feature")
        n = self.tables[site].n_features if site in self.shown else 0
        if not 0 <= index < n:
            known = ", ".join(f"{self.tables[s].n_features} of {s}" for s in self.shown)
            raise InputError(f"Feature {index} of {site} was not described. There are {known}.")
        table, found = self.tables[site], self.described[site]
        theta, total = self.settings["theta_token"], float(table.totals[index]) or 1.0
        tokens, outputs = rows_of(table.tokens, index), rows_of(table.outputs, index)
        links = rows_of(table.links, index)
        links = links[links["z"] > self.settings["theta_feature"]]
        links = links[np.argsort(-links["contribution"], kind="stable")]
        positive = tokens[tokens["z"] > theta]
        description, words = self.tokens_of(site)[index], self.words_of(site)[index]
        soft = found.soft[[index]].indices.tolist()
        sources = list(self.tables)

        def named(ids: list[int]) -> list[dict[str, Any]]:
            return [{"id": i, "token": self.strings[i]} for i in ids]

        def entries(rows: np.ndarray) -> list[dict[str, Any]]:
            """Tokens with their contributions and, of inputs, what they do alone."""
            made = []
            for row, entry in zip(rows, named(rows["token"].tolist()), strict=True):
                entry["contribution"] = value = float(row["contribution"])
                if "solo" in (rows.dtype.names or ()):
                    entry |= {"relative": value / total, "solo": float(row["solo"])}
                made.append(entry)
            return made

        upstream = []
        for row in links:
            source, place, value = sources[row["source"]], row["index"], row["contribution"]
            upstream.append(
                {
                    "site": str(source),
                    "index": int(place),
                    "contribution": float(value),
                    "relative": float(value) / total,
                    "words": self.words_of(source)[place],
                }
            )
        where = {"site": str(site), "layer": site.layer, "index": index, "kind": table.kind}
        settings = {k: v for k, v in self.settings.items() if k not in _OF_THE_RUN}
        n_active = int((positive["solo"] > 0).sum())
        return {
            "feature": where,
            "tokens": {
                "positive": entries(positive),
                "negative": entries(tokens[tokens["z"] < -theta][::-1]),
            },
            "outputs": {
                "promoted": entries(outputs[outputs["z"] > theta]),
                "suppressed": entries(outputs[outputs["z"] < -theta][::-1]),
            },
            "upstream": upstream,
            "totals": {
                "embedding": float(table.embedding_total[index]),
                "upstream": float(table.upstream_total[index]),
            },
            "description": named(description),
            "description_soft": named(soft),
            "words": words,
            "validation": n_active / len(positive) if len(positive) else None,
            "validation_soft": len(description) / len(soft) if soft else None,
            "validated": bool(description),
            "concept": self.concepts.get((str(site), index)),
            "provenance": settings | {"dictionary": table.name},
        }

    def _prompts(self) -> dict[str, str]:
        """Prompt of each validated feature, by its name."""
        return {f"{site}/{i}": prompt_for(self.of(site, i)) for site, i in self.validated()}

    def cost(self) -> Cost:
        """Count what explaining the validated features would take, without calling anything.

        Returns
        -------
        Cost
            A notebook shows it in words, with the first prompt.
        """
        return Cost.of(self._prompts().values())

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
        said = as_explainer(explainer, max_calls=None).ask(self._prompts())
        concepts = {(str(site), i): said[f"{site}/{i}"] for site, i in self.validated()}
        return replace(self, concepts=concepts)

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
        return save_descriptions(self, resolved(path))

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
            If it is damaged, foreign, or of another version, or its settings are not what
            `WeightLens` writes.
        """
        fields = load_descriptions(resolved(path))
        if isinstance(fields["settings"], dict):
            fields["settings"].setdefault("inputs", "embedding")  # the first files do not say it
        check_settings(fields["settings"], resolved(path))
        return cls(**fields)

"""Which features a sentence activates, and where in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.features.descriptions.words import visible
from circuit_toolkit.models import Model
from circuit_toolkit.panels.feature_search import Entry, Labels, Listed
from circuit_toolkit.sites import Site
from circuit_toolkit.views.rendering import render

SHARE, ACTIVATION = "share", "activation"
ORDERS = [("by share of its largest", SHARE), ("by activation", ACTIVATION)]


class OfSentence(NamedTuple):
    """A sentence that was run, and the largest activations of features elsewhere."""

    acts: Activations
    largest: Mapping[Site, np.ndarray]

    @property
    def words(self) -> list[str]:
        """Its tokens."""
        return self.acts.tokens[0]

    def activations(self, site: Site, index: int) -> list[float]:
        """Activation of a feature at each token."""
        return self.acts.of_prompt(0, site, index).tolist()


def largest_in(acts: Activations) -> dict[Site, np.ndarray]:
    """Return the largest activation of each feature (F,), at tokens of usual size."""
    return {
        site: matrix[np.flatnonzero(acts.inlying(site))].max(axis=0).toarray().ravel()
        for site, matrix in acts.features.items()
    }


def activated_on(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    text: str,
    largest: Mapping[Site, np.ndarray],
) -> OfSentence:
    """Run a sentence."""
    return OfSentence(capture(model, dictionaries, [text], progress=False), largest)


def list_on_sentence(
    found: OfSentence, site: Site | None, token: int | None, labels: Labels, order: str = SHARE
) -> Listed:
    """List what a sentence activates, or one of its tokens, the strongest first."""
    acts, words = found.acts, [visible(word.strip(" ") or " ") for word in found.words]
    shown = {site: acts.features[site]} if site else acts.features
    at = acts.position
    rows = np.arange(len(at)) if token is None else np.flatnonzero(at == token)
    entries = []
    for where, matrix in shown.items():
        columns = sp.csc_array(matrix[rows])
        for i in np.flatnonzero(np.diff(columns.indptr)).tolist():
            part = slice(columns.indptr[i], columns.indptr[i + 1])
            values, places = columns.data[part], at[rows[columns.indices[part]]]
            best, most = int(values.argmax()), float(found.largest[where][i])
            value = float(values[best])
            if value <= 0:
                continue
            share = value / most if most > 0 else -1.0
            beside = f"{share:.0%}" if most > 0 else "never active in the prompts"
            strength = f"{value:.2g} on “{words[places[best]]}”, {beside}"
            if token is None and len(values) > 1:
                strength += f"; on {len(values)} tokens"
            entry = Entry(f"{where.short}/{i}", labels[where][i], strength)
            first = (-share, -value) if order == SHARE else (-value, -share)
            entries.append(((*first, where, i), entry))
    entries.sort(key=lambda each: each[0])
    word = "" if token is None else words[token]
    said = {"n": len(entries), "word": word, "where": site.short if site else "all layers"}
    said["shared"] = order == SHARE
    return Listed(
        [entry for _, entry in entries], render("panels/templates/of_sentence.html", **said)
    )

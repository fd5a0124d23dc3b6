"""The panel of features: what one means, what feeds it, and by which circuits it fires."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as w
import numpy as np
import traitlets

from circuit_toolkit.activations import Activations
from circuit_toolkit.capture import capture
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.interpret.circuit_lens import CircuitLens, FeatureCircuits
from circuit_toolkit.interpret.feature_card import FeatureCard, feature_card
from circuit_toolkit.interpret.labels import described_labels, feature_labels
from circuit_toolkit.interpret.names import feature_at
from circuit_toolkit.interpret.weight_lens import (
    FeatureDescriptions,
    WeightLens,
    solo_activations,
)
from circuit_toolkit.models import Model
from circuit_toolkit.panels.panel import Panel
from circuit_toolkit.sites import Site
from circuit_toolkit.views.card_page import card_html

_LISTED = 200  # features in the list: a dictionary may have many thousands


class FeatureExplorer(Panel):
    """Look features up and read their cards; `explore_features` makes one.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Those whose features are looked at.
    texts : sequence of str
        Where features are seen to fire.
    descriptions : FeatureDescriptions, optional
        From `WeightLens`; by default made here.
    lens : CircuitLens, optional
        Settings of the circuits; the sliders begin with them.

    Attributes
    ----------
    selected : str
        Feature whose card is shown, such as `blocks.3.ln2.hook_normalized/17`; may be assigned.
    descriptions : FeatureDescriptions
        At the thresholds of the sliders.
    circuits : FeatureCircuits or None
        Of the feature that is shown, if its firings were taken apart.
    card : FeatureCard
        What is shown.
    acts : Activations
        Of the texts.
    """

    selected = traitlets.Unicode("")

    def __init__(
        self,
        model: Model,
        dictionaries: Mapping[Site, Dictionary],
        texts: Sequence[str],
        descriptions: FeatureDescriptions | None = None,
        lens: CircuitLens | None = None,
    ) -> None:
        self.model, self.dictionaries, self.texts = model, dict(dictionaries), list(texts)
        if not self.dictionaries:
            raise InputError("There are no dictionaries to look at: load_dictionaries(model).")
        if descriptions is None:
            descriptions = WeightLens().describe(model, self.dictionaries)
        self.descriptions = self._described = descriptions
        self.acts: Activations = capture(model, self.texts, self.dictionaries)
        self._fires = feature_labels(self.acts)
        self._labels = described_labels(descriptions, self._fires)
        self.lens = lens or CircuitLens()
        self.circuits: FeatureCircuits | None = None
        self.card: FeatureCard
        self._analysed: dict[str, FeatureCircuits] = {}
        self._make_controls()
        super().__init__(
            [
                w.HBox([self._site, self._search, self._go]),
                w.HBox([self._token, self._feature]),
                self._status,
                self._found,
                w.HBox([self._analyse, self._eps, self._least]),
                self._card,
            ]
        )
        self._list()

    def __repr__(self) -> str:
        """Say what is shown; the widgets hold too much to print."""
        return f"FeatureExplorer({self.model!r}, selected={self.selected!r})"

    def _make_controls(self) -> None:
        wide = {"description_width": "initial"}
        described = [site for site in self.dictionaries if site in self._described.shown]
        self._site = w.Dropdown(
            options=[(site.short, site) for site in described], description="Layer", style=wide
        )
        self._search = w.Text(
            placeholder="which features does this token feed?",
            continuous_update=False,
            layout={"width": "280px"},
        )
        self._go = w.Text(
            placeholder="or a feature by name: mlp_in 3/17",
            continuous_update=False,
            layout={"width": "280px"},
        )
        settings = self._described.settings
        self._token, self._feature = (
            w.FloatSlider(
                value=settings[name],
                min=settings["floors"][name],
                max=settings["floors"][name] + 8,
                step=0.1,
                description=text,
                continuous_update=False,
                style=wide,
                layout={"width": "420px"},
            )
            for name, text in [
                ("theta_token", "A token stands out from z ="),
                ("theta_feature", "An earlier feature from z ="),
            ]
        )
        self._status = w.HTML()
        self._found = w.Select(options=[], rows=8, layout={"width": "860px"})
        self._analyse = w.Button(
            description="Take its firings apart",
            icon="sitemap",
            tooltip="Which heads and earlier features make it fire, on which firings (CircuitLens)",
            layout={"width": "200px"},
        )
        self._eps = w.FloatSlider(
            value=self.lens.eps,
            min=0.05,
            max=0.95,
            step=0.05,
            description="Alike up to a distance of",
            continuous_update=False,
            style=wide,
        )
        self._least = w.IntSlider(
            value=self.lens.min_samples,
            min=2,
            max=12,
            description="Least firings",
            continuous_update=False,
            style=wide,
        )
        self._card = w.HTML()
        self._site.observe(lambda _: self._guarded(self._list), "value")
        self._search.observe(lambda _: self._guarded(self._list), "value")
        self._go.observe(lambda change: self._guarded(self._name, change.new), "value")
        for slider in (self._token, self._feature):
            slider.observe(lambda _: self._guarded(self._rethreshold), "value")
        for slider in (self._eps, self._least):
            slider.observe(lambda _: self._guarded(self._draw), "value")
        self._found.observe(self._choose, "value")
        self._analyse.on_click(lambda _: self._guarded(self.analyse))

    def analyse(self) -> None:
        """Take the firings of the selected feature apart by circuits: the button."""
        self._say("running the texts on which it fires …")
        self._analysed[self.selected] = self.lens.analyse(
            self.model,
            self.dictionaries,
            self.selected,
            self.texts,
            acts=self.acts,
            descriptions=self.descriptions,
        )
        self._draw()
        found = self._analysed[self.selected]
        self._say(f"<b>{len(found.firings)}</b> firings taken apart: see the card")

    def _list(self) -> None:
        """List features that a token feeds, or those of the layer that have a description."""
        if self._search.value.strip():
            rows, said = self._fed_by(self.model.token_id(self._search.value))
        else:
            site = Site.parse(str(self._site.value))
            words = self.descriptions.words_of(site)
            rows = [
                (f"{site.short}/{i}", ", ".join(each), "") for i, each in enumerate(words) if each
            ]
            chance = self.descriptions.coverage().set_index("site")["chance_own"][str(site)]
            said = (
                f"<b>{len(rows)}</b> of {len(words)} features have a description that holds in the "
                f"running model (by chance {chance:.1%} would have a token of their own)"
            )
        if len(rows) > _LISTED:
            said += f"; the first {_LISTED} are listed"
        self._found.unobserve(self._choose, "value")
        self._found.options = [
            (" · ".join(part for part in (name, words, more) if part), name)
            for name, words, more in rows[:_LISTED]
        ]
        names = [name for _, name in self._found.options]
        self._found.value = names[0] if names else None
        self._found.observe(self._choose, "value")
        self._say(said)
        if names:
            self.selected = _whole(names[0])

    def _fed_by(self, token: int) -> tuple[list[tuple[str, str, str]], str]:
        """Run one token alone, and give the features that it activates, the fullest first."""
        solo = solo_activations(self.model, self.dictionaries, token)
        found = []
        for site, values in solo.items():
            largest = self.acts.features[site].max(axis=0).toarray().ravel()  # (F,)
            for i in np.flatnonzero(values):
                share = values[i] / max(largest[i], values[i])
                found.append((share, f"{site.short}/{i}", self._labels[site][i]))
        found.sort(key=lambda row: -row[0])
        word = html.escape(str(self.model.tokenizer.decode([token])))
        rows = [(name, words, f"{share:.0%} of its largest") for share, name, words in found]
        return rows, f"<b>{word}</b> alone activates <b>{len(rows)}</b> features"

    def _choose(self, change: Any) -> None:
        if change.new:
            self.selected = _whole(change.new)

    def _name(self, text: str) -> None:
        if text.strip():
            self.selected = _whole(text.strip())

    def _rethreshold(self) -> None:
        """Move the thresholds of all descriptions, without a run of the model."""
        self.descriptions = self._described.at(
            theta_token=self._token.value, theta_feature=self._feature.value
        )
        self._labels = described_labels(self.descriptions, self._fires)
        selected = self.selected
        self._list()
        self.selected = selected
        self._draw()

    @traitlets.validate("selected")
    def _known(self, proposal: Any) -> str:
        if not proposal.value:
            return ""
        site, index = feature_at(proposal.value, self.dictionaries)
        return f"{site}/{index}"

    @traitlets.observe("selected")
    def _show(self, change: Any) -> None:
        if change.new:
            site, index = feature_at(change.new)
            listed = {name for _, name in self._found.options}
            name = f"{site.short}/{index}"
            self._found.unobserve(self._choose, "value")
            self._found.value = name if name in listed else None
            self._found.observe(self._choose, "value")
            self._draw()

    def _draw(self) -> None:
        """Put the card together anew."""
        found = self._analysed.get(self.selected)
        self.circuits = found and found.at(eps=self._eps.value, min_samples=self._least.value)
        self.card = feature_card(
            self.model,
            self.dictionaries,
            self.selected,
            self.acts,
            descriptions=self.descriptions,
            circuits=self.circuits,
            labels=self._labels,
        )
        self._card.value = card_html(self.card)


def _whole(name: str) -> str:
    site, index = feature_at(name)
    return f"{site}/{index}"


def explore_features(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    texts: Sequence[str],
    *,
    descriptions: FeatureDescriptions | None = None,
    lens: CircuitLens | None = None,
) -> FeatureExplorer:
    """Open the panel of features: find one by layer, token or name, and read its card.

    Parameters
    ----------
    model : Model
        From `load_model`.
    dictionaries : dict of Site to Dictionary
        From `load_dictionaries`; those that WeightLens can read.
    texts : sequence of str
        Where features are seen to fire.
    descriptions : FeatureDescriptions, optional
        From `WeightLens`; by default made here.
    lens : CircuitLens, optional
        Settings of the circuits; the sliders begin with them.

    Returns
    -------
    FeatureExplorer
        A widget; `selected`, `card`, `descriptions` and `circuits` can be read in the next cell.
    """
    return FeatureExplorer(model, dictionaries, texts, descriptions, lens)

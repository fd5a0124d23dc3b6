"""The panel of features: what one means, what activates it, and by which circuits."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ipywidgets as w
import traitlets

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.arguments import as_prompts, refuse_surrogates
from circuit_toolkit.circuit_lens import CircuitLens, FeatureCircuits
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.dictionaries.names import feature_at
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.card import FeatureCard, feature_card
from circuit_toolkit.features.descriptions.words import visible
from circuit_toolkit.features.labels import described_labels, feature_labels
from circuit_toolkit.models import Model
from circuit_toolkit.panels.closing import closed
from circuit_toolkit.panels.feature_search import (
    Listed,
    OfToken,
    activated_by,
    check_described,
    list_activated,
    list_described,
    token_named,
)
from circuit_toolkit.panels.feature_sliders import (
    CLUSTERS,
    EXAMPLES,
    circuit_sliders,
    word_sliders,
)
from circuit_toolkit.panels.panel import Panel, button, check_objects, cluster_button, control, row
from circuit_toolkit.panels.sentence_search import (
    ORDERS,
    OfSentence,
    activated_on,
    largest_in,
    list_on_sentence,
)
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task
from circuit_toolkit.views.card.html import card_html, highlighted_text_html
from circuit_toolkit.weight_lens import FeatureDescriptions, WeightLens

_ALL = ""  # the choice of all layers: a menu takes None for no choice
PAGE = 100  # features in the list at a time
LIVE = 0.3  # s: a sentence that takes no longer is run at every letter


class FeatureExplorer(Panel):
    """Look features up and read their cards; `explore_features` makes one."""

    selected = traitlets.Unicode("")

    def __init__(
        self,
        model: Model,
        dictionaries: Mapping[Site, Dictionary],
        prompts: Task | Sequence[str],
        descriptions: FeatureDescriptions | None,
        lens: CircuitLens | None,
        progress: bool,
    ) -> None:
        self.model, self.dictionaries, self.prompts = model, dict(dictionaries), prompts
        if descriptions is None:
            descriptions = WeightLens().describe(model, self.dictionaries, progress=progress)
        check_described(descriptions, self.dictionaries)
        self._described, self.lens = descriptions, lens or CircuitLens()
        self.acts: Activations = capture(model, self.dictionaries, prompts, progress=progress)
        self._active = feature_labels(self.acts)
        self.circuits: FeatureCircuits | None = None
        self.card: FeatureCard
        self._analysed: dict[str, FeatureCircuits] = {}
        self._alone: dict[int, OfToken] = {}
        self._largest = largest_in(self.acts)
        self._sentence: OfSentence | None = None
        self._listing, self._page = Listed([], ""), 0
        self._caption = ""  # of the list
        self._take(descriptions)
        self._make_controls()
        wrap = w.Layout(flex_flow="row wrap")
        pages = w.HBox([self._before, self._pages, self._after], layout=wrap)
        sliders = w.VBox(
            [
                row("Words", self._words),
                row("Examples", self._examples),
                row("Clusters", self._clusters),
            ]
        )
        more = w.Accordion([sliders], titles=("Thresholds of descriptions and of clusters",))
        cluster = w.HBox([self._analyse, self._clustered], layout=wrap)
        body = w.Box(
            [
                w.VBox([self._status, self._found, pages, self._shown]),
                w.VBox([cluster, self._card, more]),
            ]
        )
        body.add_class("ct-body")
        find = [self._search, self._order, self._site, self._filter, self._go]
        super().__init__([w.HBox(find, layout=wrap), self._token, body])
        self.add_class("ct-features")
        self._pick()

    def __repr__(self) -> str:
        """Return what is shown; the widgets hold too much to print."""
        return f"FeatureExplorer({self.model!r}, selected={self.selected!r})"

    def _make_controls(self) -> None:
        sites = [(site.short, str(site)) for site in self.dictionaries]
        first = next(site for site in self.dictionaries if site in self._described.shown)
        options = [("all layers", _ALL), *sites]
        self._site = control(
            w.Dropdown, "Layer", label="48px", width="208px", options=options, value=str(first)
        )
        text = {"flex": "1 1 220px", "max_width": "320px"}
        self._search = w.Text(
            description="Text",
            placeholder="a sentence or a token: which features does it activate?",
            tooltip="Runs a sentence, or a token alone, and lists the features that it activates",
            continuous_update=False,
            style={"description_width": "initial"},
            layout={"flex": "1 1 420px", "max_width": "640px"},
        )
        self._filter = w.Text(
            description="Label",
            placeholder="has in it …",
            tooltip="Lists features whose label or name has this in it",
            style={"description_width": "initial"},
            layout={"flex": "0 1 200px"},
        )
        self._go = w.Text(
            description="Feature",
            placeholder="mlp_in 3/17",
            tooltip="The feature of the card; type another, such as mlp_in 3/17, and press Enter",
            continuous_update=False,
            style={"description_width": "initial"},
            layout=text,
        )
        self._order = control(w.Dropdown, "Sort", label="36px", width="250px", options=ORDERS)
        self._order.layout.display = "none"
        self._token = w.ToggleButtons(
            options=[("all tokens", -1)],
            description="At",
            style={"button_width": "auto", "description_width": "24px"},
            layout={"display": "none"},
        )
        narrow = {"width": "100px"}
        self._before = button("Previous", "chevron-left", "The page before", layout=narrow)
        self._after = button("Next", "chevron-right", "The next page", layout=narrow)
        self._pages, self._shown = w.Label(), w.HTML()
        self._words = word_sliders(self._described.settings)
        self._status, self._clustered, self._card = w.HTML(), w.HTML(), w.HTML()
        self._found = w.Select(options=[], rows=8, layout={"width": "98%"})
        self._analyse = cluster_button(width="208px", flex="0 0 auto")
        self._examples = circuit_sliders(self.lens, EXAMPLES)
        self._clusters = circuit_sliders(self.lens, CLUSTERS)
        self._hear(self._site, lambda _: self._pick())
        self._hear(self._search, self._look_up)
        self._hear(self._go, lambda change: self._name(change.new))
        self._hear(self._filter, lambda _: self._pick())
        self._hear(self._token, lambda _: self._pick())
        self._hear(self._order, lambda _: self._pick())
        for each, step in ((self._before, -1), (self._after, 1)):
            each.on_click(lambda _, step=step: self._guarded(self._turn, step))
        self._hear(self._found, lambda change: self._choose(change.new))
        for slider in self._words.values():
            self._hear(slider, lambda _: self._rethreshold())
        for slider in (*self._examples.values(), *self._clusters.values()):
            self._hear(slider, lambda _: self._draw(), where=self._clustered)
        self._analyse.on_click(lambda _: self._guarded(self.analyse, where=self._clustered))

    def analyse(self) -> None:
        """Cluster the activating examples of the selected feature by circuit: the button."""
        if not self.selected:
            raise InputError("No feature is chosen: take one of the list.")
        self._say("running the prompts on which it is active …", self._clustered, "busy")
        try:
            self._analysed[self.selected] = self.lens.analyse(
                self.model,
                self.dictionaries,
                self.prompts,
                self.selected,
                acts=self.acts,
                progress=False,
            )
        finally:
            self._draw()  # with the words of the present thresholds

    def _take(self, descriptions: FeatureDescriptions) -> None:
        """Use descriptions at other thresholds."""
        self.descriptions = descriptions
        self._labels = described_labels(descriptions, self._active)
        self._coverage: Any = descriptions.coverage().to_dict("records")

    def _listed(self) -> Listed:
        """Return what belongs in the list: what a token activates, or what has a description."""
        site = Site.parse(str(self._site.value)) if self._site.value else None
        if self._sentence is not None:
            token: int | None = self._token.value if self._token.value >= 0 else None  # pyright: ignore
            order = str(self._order.value)
            return list_on_sentence(self._sentence, site, token, self._labels, order)
        if self._search.value.strip():
            token = token_named(self.model, self._search.value)
            if token not in self._alone:  # one run a token, whatever the sliders do
                found = activated_by(self.model, self.dictionaries, self.acts, token)
                self._alone[token] = found
            return list_activated(self._alone[token], site, self._labels)
        sites = [site] if site else list(self.dictionaries)
        return list_described(self.descriptions, self._coverage, sites, self.acts, self._labels)

    def _list(self) -> None:
        """Fill the list anew; nothing of the last one stays if that cannot be done."""
        self._offer(Listed([], ""))
        self._offer(self._listed().about(self._filter.value))

    def _offer(self, listed: Listed) -> None:
        """List features from the first page on, or from that with the selected one."""
        self._caption, self._listing = listed.said, listed
        names = [each.name for each in listed.entries]
        name = _short(self.selected) if self.selected else ""
        self._page = names.index(name) // PAGE if name in names else 0
        self._fill_page()

    def _fill_page(self) -> None:
        entries, first = self._listing.entries, self._page * PAGE
        part = entries[first : first + PAGE]
        with self._quietly():
            self._found.options = [(each.line, each.name) for each in part]
        end = first + len(part)
        self._pages.value = f"{first + 1:,} to {end:,} of {len(entries):,}" if part else "none"
        self._before.disabled, self._after.disabled = first == 0, end == len(entries)
        self._mark()

    def _turn(self, step: int) -> None:
        """Go a page on or back: the buttons."""
        last = max(len(self._listing.entries) - 1, 0) // PAGE
        self._page = min(max(self._page + step, 0), last)
        self._fill_page()

    def _mark(self) -> bool:
        """Mark the selected feature in the list; tell whether it is there."""
        name = _short(self.selected) if self.selected else ""
        there = name in {name for _, name in self._found.options}
        with self._quietly():
            self._found.value = name if there else None
            self._go.value = name
        self._highlight()
        if self._caption:
            missing = "" if there else name
            self._fill(self._status, "listed.html", said=self._caption, missing=missing)
        else:
            self._say("")
        return there

    def _highlight(self) -> None:
        """Show where in the sentence the selected feature is active."""
        self._shown.value = ""
        if self._sentence is not None and self.selected:
            values = self._sentence.activations(*feature_at(self.selected, self.dictionaries))
            self._shown.value = highlighted_text_html(self._sentence.words, values)

    def _pick(self) -> None:
        """List, and show the first; a panel that has nothing to list shows what it can."""
        self._list()
        names = [name for _, name in self._found.options]
        if names:
            self._choose(names[0])
        elif not self.selected:
            self._choose(f"{self._site.value or next(iter(self.dictionaries))}/0")

    def _look_up(self, change: Any) -> None:
        """List what a text activates: a first one in all layers, which the menu narrows."""
        if not change.old.strip():
            with self._quietly():
                self._site.value = _ALL
        self._offer(Listed([], ""))
        self._run(change.new)
        self._pick()

    def _run(self, text: str) -> None:
        """Run a sentence, at every letter where that is fast; one token alone is no sentence."""
        self._sentence = None
        with self._quietly():
            self._token.options, self._token.value = [("all tokens", -1)], -1
        self._token.layout.display = self._order.layout.display = "none"
        if not _is_sentence(self.model, text):
            return
        began = time.perf_counter()
        found = activated_on(self.model, self.dictionaries, text, self._largest)
        self._search.continuous_update = time.perf_counter() - began < LIVE
        places = found.acts.position.tolist()
        words = [(visible(found.words[at].strip(" ") or " "), at) for at in places]
        with self._quietly():
            self._token.options = [("all tokens", -1), *words]
            self._token.value = -1
        self._token.layout.display = self._order.layout.display = ""
        self._sentence = found

    def _name(self, text: str) -> None:
        if text.strip():
            self._choose(text.strip())

    def _choose(self, name: str | None) -> None:
        """Show a feature, again if it is the one that is shown: what was said goes."""
        if not name:
            return
        site, index = feature_at(name, self.dictionaries)
        if self.selected == f"{site}/{index}":
            self._follow()
        self.selected = f"{site}/{index}"

    def _rethreshold(self) -> None:
        """Move the thresholds of all descriptions, without a run of the model."""
        at = {name: slider.value for name, slider in self._words.items()}
        self._take(self._described.at(**at))
        self._draw()
        self._list()

    @traitlets.validate("selected")
    def _known(self, proposal: Any) -> str:
        if not proposal.value:
            return ""
        site, index = feature_at(proposal.value, self.dictionaries)
        return f"{site}/{index}"

    @traitlets.observe("selected")
    def _show(self, change: Any) -> None:
        self._follow()
        self._draw()

    def _follow(self) -> None:
        """Let list, menu and box show the feature of the card."""
        if self._mark() or not self.selected:
            return
        if _short(self.selected) in {each.name for each in self._listing.entries}:
            self._offer(self._listing)  # on another page
            return
        with self._quietly():  # it is of another list: go to its layer
            self._search.value = self._filter.value = ""
            self._site.value = self.selected.rpartition("/")[0]
        self._run("")
        self._list()

    def _draw(self) -> None:
        """Put the card together anew."""
        found = self._analysed.get(self.selected)
        sliders = {**self._examples, **self._clusters}
        for slider in sliders.values():
            slider.disabled = found is None
        self.circuits = None
        if found:
            at = found.at(**{name: slider.value for name, slider in sliders.items()})
            self.circuits = replace(at, descriptions=self.descriptions)  # words of these thresholds
        if not self.selected:
            self._card.value = self._clustered.value = ""
            return
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
        self._say("", self._clustered)
        if self.card.circuit_lens:
            self._fill(self._clustered, "clusters.html", found=self.card.circuit_lens)

    def close(self) -> None:
        """Close all widgets of the panel, and let go of what it captured."""
        held = ("acts", "card", "circuits", "descriptions", "_described", "_analysed", "_alone")
        more = ("_active", "_labels", "_coverage", "_largest", "_sentence", "_listing", "prompts")
        closed(self, *held, *more)


def _is_sentence(model: Model, text: str) -> bool:
    """Whether a text is more than one token; one that has words the model does not know too."""
    if len(text.split()) > 1:
        return True
    refuse_surrogates(text, "The word")
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return len(ids) > 1 and model.tokenizer.unk_token_id not in ids  # pyright: ignore


def _short(name: str) -> str:
    site, index = feature_at(name)
    return f"{site.short}/{index}"


def explore_features(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    prompts: Task | Sequence[str],
    *,
    descriptions: FeatureDescriptions | None = None,
    lens: CircuitLens | None = None,
    progress: bool = True,
) -> FeatureExplorer:
    """Open the panel of features: find one by layer, text, label or name, and read its card.

    A sentence that is typed is run at once: all features that it activates are listed, at any of
    its tokens or at one. Without a text all features of the layer are listed.

    Parameters
    ----------
    model : Model
        From `load_model`.
    dictionaries : dict of Site to Dictionary
        From `load_dictionaries`; those that WeightLens can read.
    prompts : Task or sequence of str
        Where features are looked at.
    descriptions : FeatureDescriptions, optional
        From `WeightLens`; by default made here, by its default preset.
    lens : CircuitLens, optional
        Settings of the circuits; the sliders begin with them.
    progress : bool
        Whether to show bars while features are described and prompts are run.

    Returns
    -------
    FeatureExplorer
        A widget; `selected`, `card`, `descriptions` and `circuits` can be read in the next cell.

    Raises
    ------
    InputError
        If an argument is of the wrong kind, or the descriptions are of other dictionaries.
    """
    dictionaries = as_dictionaries(model, dictionaries)
    check_objects(descriptions=(descriptions, "FeatureDescriptions"), lens=(lens, "CircuitLens"))
    given = as_prompts(prompts, model)
    return FeatureExplorer(model, dictionaries, given, descriptions, lens, progress)

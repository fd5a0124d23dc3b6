"""The explorer: choose prompts, sites and strength, and see the circuit and what its nodes do."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ipywidgets as w
import traitlets

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET
from circuit_toolkit.circuit_lasso.estimator import CircuitLasso
from circuit_toolkit.circuit_lasso.fit import LassoFit
from circuit_toolkit.circuit_lens import CircuitLens, FeatureCircuits
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence import evaluate
from circuit_toolkit.features.card import FeatureCard, feature_card
from circuit_toolkit.features.descriptions.descriptions import FeatureDescriptions
from circuit_toolkit.features.labels import described_labels, named_features
from circuit_toolkit.models import Model
from circuit_toolkit.panels.graph_widget import GraphWidget
from circuit_toolkit.panels.panel import Panel
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import BUNDLED, Task
from circuit_toolkit.views.card.page import card_html

_ALL = -1  # the value of the prompt menu that stands for all prompts
_SHOWN = 40  # prompts in the menu
_CLICK = "<i>Click a node to see what is known of it.</i>"
_NAMES = (
    "<div style='color:#616e7c;font-size:12px;line-height:1.4'>A feature named "
    "<b>Kate, Ivy … to ⇒ Emma</b> fires on <b>to</b>, in prompts with Kate or Ivy, and promotes "
    "Emma; a name that ends in <b>, …</b> tells less than half of where it fires.{more}</div>"
)
_BY_WEIGHTS = " With descriptions such a name stands in brackets, one by weights alone does not."


class Explorer(Panel):
    """Learn a circuit, look at it, and test it, with a few controls; `explore` makes one.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Its dictionaries.
    task : Task, optional
        One's own; by default the bundled tasks are in the menu.
    n : int
        Prompts of a bundled task.
    estimator : CircuitLasso, optional
        Settings of the fit.
    descriptions : FeatureDescriptions, optional
        From `WeightLens`, for names and cards of features.

    Attributes
    ----------
    circuit : Circuit or None
        What is drawn.
    selected : str
        Id of the node that was clicked, or the empty string.
    card : FeatureCard or None
        What is known of it.
    circuits : FeatureCircuits or None
        Of it, if its firings were taken apart.
    strength : float
        Regularisation strength; assigning one redraws.
    fit : LassoFit
        The fitted path.
    acts : Activations
        What it was fitted on.
    """

    circuit: traitlets.Instance[Circuit | None] = traitlets.Instance(  # traitlets leaves T open
        Circuit,
        allow_none=True,  # pyright: ignore[reportAssignmentType]
    )
    selected = traitlets.Unicode("")
    strength = traitlets.Float(0.1)

    def __init__(
        self,
        model: Model,
        dictionaries: Mapping[Site, Dictionary],
        task: Task | None = None,
        n: int = 256,
        estimator: CircuitLasso | None = None,
        descriptions: FeatureDescriptions | None = None,
    ) -> None:
        self.model, self.dictionaries, self.n = model, dict(dictionaries), n
        self.descriptions = descriptions
        self.card: FeatureCard | None = None
        self.circuits: FeatureCircuits | None = None
        self._analysed: dict[str, FeatureCircuits] = {}
        self.estimator = estimator or CircuitLasso()
        self.tasks: dict[str, Any] = {task.name: task} if task else dict(BUNDLED)
        self.task: Task
        self.acts: Activations
        self.fit: LassoFit
        self._view: tuple[LassoFit, Activations, int]  # fit, activations and prompt that are shown
        self._make_controls()
        super().__init__(
            [
                w.HBox([self._task, self._positions, self._learn]),
                w.HBox([self._slider, self._features, self._test]),
                w.HBox([self._prompt, self._own]),
                w.Accordion([self._sites], titles=("Sites",)),
                self._status,
                self.graph,
                w.HTML(_NAMES.format(more=_BY_WEIGHTS * (descriptions is not None))),
                w.HBox([self._analyse, self._said]),
                self.feature,
            ]
        )
        self.learn()

    def __repr__(self) -> str:
        """Return what is shown; the widgets hold too much to print."""
        return f"Explorer({self.model!r}, circuit={self.circuit!r}, selected={self.selected!r})"

    def _make_controls(self) -> None:
        wide = {"description_width": "80px"}
        self._task = w.Dropdown(options=list(self.tasks), description="Task", style=wide)
        self._positions = w.Dropdown(
            options=list(dict.fromkeys(["last", "mean", self.estimator.positions])),
            value=self.estimator.positions,
            description="Tokens",
            tooltip="How the tokens of a prompt become one sample",
            style=wide,
        )
        self._learn = w.Button(description="Learn", button_style="primary", icon="play")
        self._sites = w.SelectMultiple(
            options=[(site.short, site) for site in self.dictionaries],
            value=list(self.dictionaries),
            rows=min(8, len(self.dictionaries)),
        )
        grid = list(self.estimator.grid)
        self._slider = w.SelectionSlider(
            options=[(f"{strength:.3g}", strength) for strength in grid],
            value=min(grid, key=lambda strength: abs(strength - self.strength)),
            description="Strength",
            continuous_update=True,
            style=wide,
            layout={"width": "420px"},
        )
        self._features = w.IntSlider(
            value=40, min=5, max=100, step=5, description="Features", style=wide
        )
        self._test = w.Button(
            description="Test by ablation",
            icon="flask",
            tooltip="Ablate the circuit in the running model, and random sets of the same size",
        )
        self._prompt = w.Dropdown(
            options=[("all prompts", _ALL)],
            description="Circuit of",
            style=wide,
            layout={"width": "560px"},
        )
        self._own = w.Text(
            placeholder="or type a prompt of your own and press Enter",
            continuous_update=False,
            layout={"width": "400px"},
        )
        self._status = w.HTML()
        self._analyse = w.Button(
            description="Take its firings apart",
            icon="sitemap",
            tooltip="Which heads and earlier features make it fire, on which prompts (CircuitLens)",
            layout={"width": "200px", "display": "none"},
        )
        self._said = w.HTML()
        self.graph = GraphWidget()
        self.feature = w.HTML(_CLICK)
        traitlets.link((self, "selected"), (self.graph, "selected"))
        traitlets.link((self, "circuit"), (self.graph, "circuit"))
        self._learn.on_click(lambda _: self._guarded(self.learn))
        self._test.on_click(lambda _: self._guarded(self.test))
        self._analyse.on_click(lambda _: self._guarded(self.analyse, where=self._said))
        self._task.observe(lambda _: self._guarded(self.learn), "value")
        self._own.observe(lambda change: self._guarded(self.try_prompt, change.new), "value")
        self._prompt.observe(self._choose_prompt, "value")
        self._slider.observe(lambda change: setattr(self, "strength", change.new), "value")
        self._features.observe(lambda _: self._draw(), "value")

    def learn(self) -> None:
        """Capture the chosen task at the chosen sites and fit the path: the Learn button."""
        sites = list(self._sites.value)
        if not sites:
            raise InputError("Choose at least one site.")
        chosen = {site: self.dictionaries[site] for site in sites}
        made = self.tasks[str(self._task.value)]
        self._say("capturing and fitting …")
        self.task = made if isinstance(made, Task) else made(self.model, n=self.n)
        self.acts = capture(self.model, chosen, self.task, progress=False)
        estimator = replace(self.estimator, positions=self._positions.value)
        labels = named_features(self.model, chosen, self.acts, estimator.positions)
        if self.descriptions is not None:
            labels = described_labels(self.descriptions, labels)
        self.fit = estimator.fit(self.acts, self.task, labels)
        self._view, self._analysed = (self.fit, self.acts, _ALL), {}
        prompts = [(text, i) for i, text in enumerate(self.task.clean[:_SHOWN])]
        self._prompt.unobserve(self._choose_prompt, "value")
        self._prompt.options = [("all prompts", _ALL), *prompts]
        self._prompt.value = _ALL
        self._prompt.observe(self._choose_prompt, "value")
        self._draw()

    def try_prompt(self, text: str) -> None:
        """Show the circuit of a prompt of one's own, by the weights learnt on the task.

        Parameters
        ----------
        text : str
            Any prompt that the model's tokenizer knows; empty goes back to all prompts.
        """
        if not text.strip():
            self._view = (self.fit, self.acts, _ALL)
        else:
            chosen = {site: self.dictionaries[site] for site in self.fit.sites}
            acts = capture(self.model, chosen, [text], progress=False)
            self._view = (self.fit.on(acts), acts, 0)
        self._draw()

    def test(self) -> None:
        """Ablate the circuit in the running model, on other prompts if the task can make them."""
        if self.circuit is None:
            raise InputError("There is no circuit to test.")
        self._say("ablating the circuit and 20 random sets …")
        made = self.tasks[str(self._task.value)]
        task = made if isinstance(made, Task) else made(self.model, n=64, seed=1, test=True)
        self.circuit = evaluate(
            self.circuit,
            self.model,
            self.dictionaries,
            task,
            self.fit.rows,
            n_prompts=64,
            progress=False,
        )
        self._say("")  # the graph has its size and its evidence above it

    def analyse(self) -> None:
        """Take the firings of the selected feature on the task apart by circuits: the button."""
        if self.card is None:
            raise InputError("No feature is selected: click a node.")
        self._say("running the prompts on which it fires …", self._said)
        self._analysed[self.selected] = CircuitLens().analyse(
            self.model,
            self.dictionaries,
            self.task,
            self.selected,
            acts=self.acts,
            descriptions=self.descriptions,
            progress=False,
        )
        self._draw_card()
        self._say("", self._said)

    def _choose_prompt(self, change: Any) -> None:
        self._view = (self.fit, self.acts, change.new)
        self._draw()

    @traitlets.observe("strength")
    def _follow(self, change: Any) -> None:
        """Move the slider to the nearest fitted strength, and redraw."""
        grid = [strength for _, strength in self._slider.options]
        self._slider.value = min(grid, key=lambda strength: abs(strength - change.new))
        self._draw()

    def _draw(self) -> None:
        """Read the circuit off the fitted path: no model, no fitting."""
        fit, _, prompt = self._view
        self.circuit = fit.circuit(
            self._slider.value,
            prompt=None if prompt == _ALL else prompt,
            max_features=self._features.value,
        )
        self._say("")  # the graph has its size and its evidence above it

    @traitlets.observe("selected")
    def _show_feature(self, change: Any) -> None:
        self.card, self.circuits, self.feature.value = None, None, _CLICK
        self._analyse.layout.display = "none"
        self._say("", self._said)
        if not change.new or self.circuit is None:
            return
        row = self.circuit.nodes[self.circuit.ids().index(change.new)]
        if row["site"] == TARGET:
            label = html.escape(str(row["label"]))
            said = f"what the circuit explains, {row['activation']:.2f} on average"
            self.feature.value = f"<b>{label}</b>: {said}."
            return
        self._analyse.layout.display = ""
        self._draw_card()

    def _draw_card(self) -> None:
        """Put the card of the selected feature together anew."""
        fit, acts, _ = self._view
        self.circuits = self._analysed.get(self.selected)
        self.card = feature_card(
            self.model,
            {site: self.dictionaries[site] for site in fit.sites},
            self.selected,
            acts,
            descriptions=self.descriptions,
            circuits=self.circuits,
            circuit=self.circuit,
            labels=fit.labels,
        )
        self.feature.value = card_html(self.card)


def explore(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: Task | None = None,
    *,
    n: int = 256,
    estimator: CircuitLasso | None = None,
    descriptions: FeatureDescriptions | None = None,
) -> Explorer:
    """Open the explorer: the circuit of a task as a live graph.

    Parameters
    ----------
    model : Model
        From `load_model`.
    dictionaries : dict of Site to Dictionary
        From `load_dictionaries`.
    task : Task, optional
        One's own; by default the bundled tasks are in the menu.
    n : int
        Prompts of a bundled task.
    estimator : CircuitLasso, optional
        Settings of the fit.
    descriptions : FeatureDescriptions, optional
        From `WeightLens`, for names and cards of features.

    Returns
    -------
    Explorer
        A widget; `explorer.circuit` and `explorer.selected` can be read in the next cell.
    """
    return Explorer(model, dictionaries, task, n, estimator, descriptions)

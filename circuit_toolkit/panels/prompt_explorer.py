"""The explorer of one prompt: its attribution graph, what its nodes are, and if they matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets as w
import traitlets

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.attribution.graph import attribution_graph
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence import confirm_nodes
from circuit_toolkit.features.card import FeatureCard, feature_card
from circuit_toolkit.features.descriptions.descriptions import FeatureDescriptions
from circuit_toolkit.models import Model
from circuit_toolkit.panels.graph_widget import GraphWidget
from circuit_toolkit.panels.panel import Panel, button, control, said_of
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task
from circuit_toolkit.views.card.html import card_html
from circuit_toolkit.views.graph.scene import READABLE


class PromptExplorer(Panel):
    """Draw the attribution graph of a prompt, look at it, and test it; `explore` makes one.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Transcoders, or what else `attribution_graph` takes.
    prompt : str or Task
        A text, or a task of one prompt, whose metric is the target.
    descriptions : FeatureDescriptions, optional
        From `WeightLens`, for names and cards of features.
    """

    circuit: traitlets.Instance[Circuit | None] = traitlets.Instance(
        Circuit,
        allow_none=True,  # pyright: ignore[reportAssignmentType]
    )
    selected = traitlets.Unicode("")

    def __init__(
        self,
        model: Model,
        dictionaries: Mapping[Site, Dictionary],
        prompt: str | Task,
        descriptions: FeatureDescriptions | None = None,
    ) -> None:
        self.model, self.dictionaries = model, dict(dictionaries)
        self.descriptions = descriptions
        self.whole: Circuit  # the pruned graph, of which `circuit` shows the strongest nodes
        self.acts: Activations
        self.card: FeatureCard | None = None
        self._task = prompt if isinstance(prompt, Task) else None
        text = prompt if isinstance(prompt, str) else prompt.clean[0]
        self._make_controls(text)
        super().__init__(
            [
                w.HBox([self._prompt, self._targets, self._go]),
                w.HBox([self._nodes, self._edges, self._test]),
                self._status,
                self.graph,
                self.feature,
            ]
        )
        self.draw()

    def __repr__(self) -> str:
        """Return what is shown; the widgets hold too much to print."""
        drawn = self.circuit.summary()[:2] if self.circuit else None
        return f"PromptExplorer({self.model!r}, circuit={drawn}, selected={self.selected!r})"

    def _make_controls(self, text: str) -> None:
        quiet: dict[str, Any] = {"continuous_update": False}
        self._prompt = control(w.Text, "Prompt", label="60px", width="640px", value=text, **quiet)
        hint = "else what is likeliest: Mary, or Mary - John"
        self._targets = control(
            w.Text, "Target", label="60px", width="360px", placeholder=hint, **quiet
        )
        self._go = button("Draw", "play", button_style="primary")
        nodes, edges = READABLE.values()
        sizes = ((nodes, 10, 200, 5), (edges, 20, 1000, 10))
        self._nodes, self._edges = (
            control(
                w.IntSlider,
                name,
                label="60px",
                value=value,
                min=least,
                max=most,
                step=step,
                **quiet,
            )
            for name, (value, least, most, step) in zip(("Nodes", "Edges"), sizes, strict=True)
        )
        self._test = button(
            "Test by ablation",
            "flask",
            "Set the strongest features to 0 in the running model, and others at these tokens",
        )
        self._status, self.feature = w.HTML(), w.HTML()
        self.graph = GraphWidget()
        self._busy_controls = (self._go, self._test)
        traitlets.link((self, "circuit"), (self.graph, "circuit"))
        traitlets.link((self, "selected"), (self.graph, "selected"))
        self._say(said_of(None, ""), self.feature, "quiet")
        self._go.on_click(lambda _: self._guarded(self.draw))
        self._test.on_click(lambda _: self._guarded(self.test))
        self._hear(self._prompt, lambda _: self.draw())
        self._hear(self._targets, lambda _: self.draw())
        self._hear(self._nodes, lambda _: self._show())
        self._hear(self._edges, lambda _: self._show())

    def draw(self) -> None:
        """Draw the graph of the prompt in the box: the Draw button."""
        text = str(self._prompt.value)
        of_task = self._task is not None and self._task.clean[0] == text
        targets = _targets(str(self._targets.value))
        with self._busy("drawing the graph …"):
            labels = self.descriptions.labels() if self.descriptions is not None else None
            whole = attribution_graph(
                self.model,
                self.dictionaries,
                self._task if of_task and self._task is not None else text,
                targets=targets,
                labels=labels,
                progress=False,
            )
            self.acts = capture(self.model, self.dictionaries, [text], progress=False)
            self.whole = whole
        self._say("")
        self._show()

    def test(self) -> None:
        """Set the strongest features to 0, one by one, in the running model: the Test button."""
        with self._busy("setting the strongest features to 0, one by one …"):
            given = self.whole, self.model, self.dictionaries
            self.whole = confirm_nodes(*given, progress=False)
        self._show()

    def _show(self) -> None:
        """Show the strongest nodes and edges of the graph."""
        few = self.whole.prune(int(self._nodes.value), int(self._edges.value))
        self.circuit = few.with_evidence(self.whole.evidence)

    @traitlets.observe("selected")
    def _show_node(self, change: Any = None) -> None:
        self.card = None
        if said := said_of(self.circuit, self.selected):
            self._say(said, self.feature, "quiet")
            return
        assert self.circuit is not None
        node = self.circuit.nodes[self.circuit.ids().index(self.selected)]
        if node["kind"] == TARGET:
            said = f"What is explained: {node['label']}, {node['activation']:+.2f}."
            self._say(said, self.feature, "quiet")
            return
        self.card = feature_card(
            self.model,
            self.dictionaries,
            self.selected,
            self.acts,
            descriptions=self.descriptions,
            circuit=self.circuit,
        )
        self.feature.value = card_html(self.card)


def _targets(text: str) -> Any:
    """Read the targets that a user typed: none, words with commas, or one minus another."""
    if not text.strip():
        return None
    if text.count(" - ") == 1:
        right, wrong = (word.strip() for word in text.split(" - "))
        if right and wrong and right != wrong:
            return {right: 1, wrong: -1}
        raise InputError(f"Type two words, one minus another, such as Mary - John; got {text!r}.")
    return [word.strip() for word in text.split(",") if word.strip()] or None

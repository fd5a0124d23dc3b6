"""The explorer: choose prompts, sites and strength, and see the circuit and what its nodes do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import ipywidgets as w
import traitlets

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.arguments import is_a, whole
from circuit_toolkit.circuit.tables import TARGET
from circuit_toolkit.circuit_lasso.estimator import CircuitLasso
from circuit_toolkit.circuit_lasso.fit import LassoFit
from circuit_toolkit.circuit_lens import CircuitLens, FeatureCircuits
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence import confirm_edges, on_prompt
from circuit_toolkit.features.card import FeatureCard, feature_card
from circuit_toolkit.features.descriptions.descriptions import FeatureDescriptions
from circuit_toolkit.features.labels import described_labels, named_features
from circuit_toolkit.models import Model
from circuit_toolkit.panels.panel import (
    CircuitPanel,
    button,
    check_objects,
    cluster_button,
    control,
    said_of,
)
from circuit_toolkit.panels.prompt_explorer import PromptExplorer
from circuit_toolkit.patching.placed_features import named_positions
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task
from circuit_toolkit.views.card.html import card_html

_ALL = -1  # the value of the prompt menu that stands for all prompts
_SHOWN = 40  # prompts in the menu
_BY_HAND, _BUDGET = "hand", "budget"
_CHOICES = [  # how the strength is chosen, see LassoFit.circuit
    ("by the slider", _BY_HAND),
    ("best held-out fit", "best"),
    ("one standard error", "one_se"),
    ("edge budget", _BUDGET),
]


class Explorer(CircuitPanel):
    """Learn a circuit, look at it, and test it, with a few controls; `explore` makes one."""

    selected = traitlets.Unicode("")
    strength = traitlets.Float(0.1)

    def __init__(
        self,
        model: Model,
        dictionaries: Mapping[Site, Dictionary],
        task: Task | None,
        n: int,
        estimator: CircuitLasso | None,
        descriptions: FeatureDescriptions | None,
    ) -> None:
        self.model, self.dictionaries, self.n = model, dict(dictionaries), n
        self.descriptions, self.estimator = descriptions, estimator or CircuitLasso()
        self.card: FeatureCard | None = None
        self.circuits: FeatureCircuits | None = None
        self._analysed: dict[str, FeatureCircuits] = {}
        self.task: Task
        self.acts: Activations
        self.fit: LassoFit
        self._view: tuple[LassoFit, Activations, int]  # fit, activations and prompt that are shown
        self._alone: Task | str | None = None  # the one prompt that is shown, and run by itself
        self._make_controls(task)
        super().__init__(
            [
                w.HBox([self._task, self._design, self._positions, self._adaptive, self._learn]),
                w.HBox([self._slider, self._choice, self._budget]),
                w.HBox([self._features, self._test]),
                w.HBox([self._prompt, self._own, self._answers]),
                w.Accordion([self._sites], titles=("Sites",)),
                self._status,
                self.graph,
                self._names,
                w.HBox([self._analyse, self._said]),
                self.feature,
            ]
        )
        self.learn()

    def __repr__(self) -> str:
        """Return what is shown; the widgets hold too much to print."""
        drawn = self.circuit.summary()[:2] if self.circuit else None
        return f"Explorer({self.model!r}, circuit={drawn}, selected={self.selected!r})"

    def _make_controls(self, task: Task | None) -> None:
        wide = "80px"
        self._offer_tasks(task, wide)
        self._design = control(
            w.Dropdown,
            "Method",
            options=[("randomised ablations", "randomised"), ("observational", "observational")],
            value=self.estimator.design or "randomised",
            width="220px",
            tooltip="Regress on what random ablations change, or on how activations vary together",
        )
        self._positions = control(
            w.Dropdown,
            "Tokens",
            options=_tokens(None, self.estimator.positions),
            value=self.estimator.positions,
            width="170px",
            tooltip="How the tokens of a prompt become one sample",
        )
        self._learn = button("Learn", "play", button_style="primary")
        self._sites = w.SelectMultiple(
            options=[(site.short, site) for site in self.dictionaries],
            value=_few(list(self.dictionaries)),
            rows=min(8, len(self.dictionaries)),
        )
        self._adaptive = w.Checkbox(
            value=self.estimator.adaptive,
            description="Adaptive weights",
            tooltip="Fit twice, sparing sources that the first fit found strong: fewer edges",
            indent=False,
            layout={"width": "150px"},
        )
        steps = _steps(self.estimator.grid)
        self._slider = control(
            w.SelectionSlider, "Strength", label=wide, width="420px", options=steps
        )
        self._choice = control(w.Dropdown, "chosen", label=wide, width="260px", options=_CHOICES)
        most = "The weakest strength with at most so many edges"
        numbers: dict[str, Any] = {"value": 60, "min": 1, "max": 100_000}
        self._budget = control(w.BoundedIntText, "Edges", width="170px", tooltip=most, **numbers)
        self._budget.layout.display = "none"
        numbers = {"value": 60, "min": 5, "max": 200, "step": 5}
        self._features = control(w.IntSlider, "Features", label=wide, **numbers)
        self._test = button(
            "Test by ablation",
            "flask",
            "Ablate the circuit in the running model, and random sets of the same size",
        )
        prompts = [("all prompts", _ALL)]
        self._prompt = control(w.Dropdown, "Circuit of", label=wide, width="560px", options=prompts)
        self._own = w.Text(
            placeholder="or type a prompt of your own and press Enter",
            continuous_update=False,
            layout={"width": "360px"},
        )
        self._answers = w.Text(
            placeholder="answer, wrong answer: else the two likeliest",
            continuous_update=False,
            layout={"width": "260px"},
        )
        self._analyse = cluster_button(width="200px", display="none")
        self._status, self._said, self._names, self.feature = (w.HTML() for _ in range(4))
        self._fill(self._names, "names.html", described=self.descriptions is not None)
        self._say(said_of(None, ""), self.feature, "quiet")
        self._busy_controls = (self._learn, self._test, self._analyse, self._task)
        traitlets.link((self, "selected"), (self.graph, "selected"))
        self._learn.on_click(lambda _: self._guarded(self.learn))
        self._test.on_click(lambda _: self._guarded(self.test))
        self._analyse.on_click(lambda _: self._guarded(self.analyse, where=self._said))
        self._hear(self._task, lambda _: self.learn())
        self._hear(self._own, lambda change: self.try_prompt(change.new))
        self._hear(self._answers, lambda _: self.try_prompt(self._own.value))
        self._hear(self._design, lambda _: self.learn())
        self._hear(self._prompt, lambda change: self._look_at(self.fit, self.acts, change.new))
        self._hear(self._slider, lambda change: setattr(self, "strength", change.new))
        self._hear(self._features, lambda _: self._draw())
        self._hear(self._choice, lambda _: self._choose())
        self._hear(self._budget, lambda _: self._choose())
        self._hear(self._adaptive, lambda _: self.learn())

    def learn(self) -> None:
        """Capture the task at the chosen sites, fit the path, and test: the Learn button."""
        sites = list(self._sites.value)
        if not sites:
            raise InputError("Choose at least one site.")
        chosen = {site: self.dictionaries[site] for site in sites}
        with self._busy("capturing and fitting …"):
            task = self._prompts(n=self.n)
            acts = capture(self.model, chosen, task, progress=False)
            names: Any = self._positions.value
            known = isinstance(names, str) or {*names} <= {*task.positions, "last"}
            settings = {
                "design": None if names == "mean" else self._design.value,
                "positions": names if known else "last",
                "adaptive": self._adaptive.value,
            }
            estimator = replace(self.estimator, **settings)
            labels = named_features(self.model, chosen, acts, estimator.positions)
            if self.descriptions is not None:
                labels = described_labels(self.descriptions, labels)
            self.fit = estimator.fit(
                acts, task, labels, model=self.model, dictionaries=chosen, progress=False
            )
        self.task, self.acts, self._analysed = task, acts, {}
        with self._quietly():
            prompts = [(text, i) for i, text in enumerate(task.clean[:_SHOWN])]
            self._prompt.options = [("all prompts", _ALL), *prompts]
            self._prompt.value, self._own.value = _ALL, ""
            self._positions.options = _tokens(task, estimator.positions)
            self._positions.value = estimator.positions
            self._slider.options = _steps(self.fit.strengths)
            self._move(self.strength)
        self._look_at(self.fit, acts, _ALL)
        self.test()

    def try_prompt(self, text: str) -> None:
        """Show what the circuit does on the user's own prompt, which is run by itself."""
        if not text.strip():
            self._look_at(self.fit, self.acts, _ALL)
            return
        chosen = {site: self.dictionaries[site] for site in self.fit.sites}
        acts = capture(self.model, chosen, [text], progress=False)
        if self.fit.gradient is None:  # a target of one number: the fitted weights, on this prompt
            self._look_at(self.fit.on(acts), acts, 0)
        else:
            self._look_at(self.fit, acts, 0, text)

    def test(self) -> None:
        """Ablate the circuit in the running model, on held-out prompts where there are any."""
        text = "ablating the circuit, its features one by one, and 20 random sets …"
        placed = self.fit.settings.get("ablation") is not None
        if self._alone is not None:  # it was tested when it was drawn
            return
        self._evaluate(text, self.dictionaries, None if placed else self.fit.rows)
        if placed and self.circuit is not None:
            with self._busy(text):
                task = self._prompts(n=64, seed=1, test=True)
                given = self.circuit, self.model, self.dictionaries, task
                self.circuit = confirm_edges(*given, n_prompts=64, progress=False)

    def analyse(self) -> None:
        """Cluster the activating examples of the selected feature by circuit: the button."""
        if self.card is None:
            raise InputError("No feature is selected: click a node.")
        with self._busy("running the prompts on which it is active …", self._said):
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

    def _look_at(
        self, fit: LassoFit, acts: Activations, prompt: int, text: str | None = None
    ) -> None:
        """Show a fit on all of its prompts, or on one, and the card of the selected node there."""
        before = getattr(self, "_view", (fit, acts, prompt)), self._alone
        self._view, self._alone = (fit, acts, prompt), text
        if text is None and prompt != _ALL and fit.gradient is not None:
            self._alone = self.task.select([prompt])
        self._say("")  # the graph has its size and its evidence above it
        selected = self.selected
        try:
            self._draw()
        except InputError:
            self._view, self._alone = before
            raise
        if self.selected == selected:  # else it was drawn anew with the selection
            self._show_feature()

    @traitlets.observe("strength")
    def _follow(self, change: Any) -> None:
        """Redraw at a strength that was set by hand."""
        if self._quiet:
            return
        with self._quietly():
            self._choice.value = _BY_HAND
            self._move(change.new)
        self._choose()

    def _move(self, strength: float) -> None:
        """Go to the nearest fitted strength, with the slider."""
        steps = [step for _, step in self._slider.options]
        self._slider.value = self.strength = min(steps, key=lambda step: abs(step - strength))

    def _choose(self) -> None:
        """Redraw at the strength that is chosen as the menu says; by hand if that cannot be."""
        self._budget.layout.display = "" if self._choice.value == _BUDGET else "none"
        try:
            self._draw()
        except InputError:
            with self._quietly():
                self._choice.value = _BY_HAND
            raise

    def _draw(self) -> None:
        """Read the circuit off the fitted path: no model, no fitting."""
        fit, _, prompt = self._view
        how: Any = self._choice.value
        circuit = fit.circuit(
            self.strength if how in (_BY_HAND, _BUDGET) else how,
            edge_budget=self._budget.value if how == _BUDGET else None,
            prompt=None if prompt == _ALL or self._alone is not None else prompt,
            max_features=self._features.value,
        )
        if self._alone is not None:
            answers = [word.strip() for word in self._answers.value.split(",")]
            words: Any = tuple(answers) if isinstance(self._alone, str) and any(answers) else None
            given = circuit, self.model, self.dictionaries, self._alone, self.task
            circuit = on_prompt(*given, answers=words)
        self.circuit = circuit
        with self._quietly():
            self._move(circuit.settings["strength"])

    @traitlets.observe("selected")
    def _show_feature(self, change: Any = None) -> None:
        self.card, self.circuits = None, None
        self._analyse.layout.display = "none"
        self._say("", self._said)
        if said := said_of(self.circuit, self.selected):
            self._say(said, self.feature, "quiet")
            return
        assert self.circuit is not None
        row = self.circuit.nodes[self.circuit.ids().index(self.selected)]
        if row["site"] == TARGET:
            told = {"label": str(row["label"]), "activation": float(row["activation"])}
            self._fill(self.feature, "target.html", **told)
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


def _tokens(task: Task | None, chosen: Any) -> list[tuple[str, Any]]:
    """Return the choices of positions: one token, the mean, or all that a task names."""
    named = tuple(named_positions(task)) if task is not None and task.positions else ("last",)
    every = named if len(named) > 1 else "last"
    return [
        (each if isinstance(each, str) else ", ".join(each), each)
        for each in dict.fromkeys(["last", "mean", every, chosen])
    ]


def _few(sites: list[Site]) -> list[Site]:
    """Choose two sites: what passes through each is coded anew there, so each adds features."""
    n = len(sites)
    return sites if n <= 3 else [sites[round(share * n)] for share in (0.45, 0.7)]


def _steps(strengths: Iterable[float]) -> list[tuple[str, float]]:
    return [(f"{strength:.3g}", float(strength)) for strength in strengths]


def explore(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: Task | str | None = None,
    *,
    n: int = 256,
    estimator: CircuitLasso | None = None,
    descriptions: FeatureDescriptions | None = None,
) -> Explorer | PromptExplorer:
    """Open the explorer: the circuit of a task, or the graph of one prompt, as a live graph.

    Parameters
    ----------
    model : Model
        From `load_model`.
    dictionaries : dict of Site to Dictionary
        From `load_dictionaries`.
    task : Task or str, optional
        One's own; by default the bundled tasks are in the menu. A text, or a task of one prompt,
        opens with its attribution graph: pass transcoders.
    n : int
        Prompts of a bundled task.
    estimator : CircuitLasso, optional
        Settings of the fit.
    descriptions : FeatureDescriptions, optional
        From `WeightLens`, for names and cards of features.

    Returns
    -------
    Explorer, or PromptExplorer for one prompt
        A widget. In the next cell `explorer.circuit` is what is drawn and `explorer.selected` the
        id of the node that was clicked, with its `card` and, if they were clustered, its
        `circuits`; `fit` is the fitted path and `acts` what it was fitted on. Assigning
        `explorer.strength` redraws.

    Raises
    ------
    InputError
        If an argument is of the wrong kind.
    """
    dictionaries = as_dictionaries(model, dictionaries)
    if isinstance(task, str) or (is_a(task, "Task") and len(task) == 1):  # pyright: ignore
        check_objects(descriptions=(descriptions, "FeatureDescriptions"))
        return PromptExplorer(model, dictionaries, task, descriptions)  # pyright: ignore
    check_objects(
        task=(task, "Task"),
        estimator=(estimator, "CircuitLasso"),
        descriptions=(descriptions, "FeatureDescriptions"),
    )
    return Explorer(model, dictionaries, task, whole(n, "n", 1), estimator, descriptions)

"""The panel of heads: rank them, look at each, and test those that are chosen with their paths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go
import traitlets

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.arguments import expect, whole
from circuit_toolkit.attribution.heads import ATTRIBUTION, TOWARDS, best_score
from circuit_toolkit.benchmark.heads.comparison import OURS, UNTRAINED, head_agreement, lead_ways
from circuit_toolkit.benchmark.heads.reference import known_heads
from circuit_toolkit.circuit.components import head_circuit
from circuit_toolkit.circuit.tables import TARGET
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence import confirm_edges, draw_paths
from circuit_toolkit.head_codes import HeadCodes, HeadCodesFit
from circuit_toolkit.interventions.changes import resample
from circuit_toolkit.interventions.runs import intervene
from circuit_toolkit.models import Model, run
from circuit_toolkit.panels.panel import CircuitPanel, button, check_objects, control
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task
from circuit_toolkit.views.figures.heads import attention_figure, head_figure

_SHOWN = 20  # prompts in the menu
_TESTED = 32  # prompts on which one head, or one path, is replaced
# Way to score heads -> its name in the menu, and the unit of its map.
_WAYS = {
    TOWARDS: ("Change towards the answer", "share of its output"),
    ATTRIBUTION: ("Attribution patching", "effect on the metric"),
    OURS: ("Head codes (published method)", "change of the codes"),
    UNTRAINED: ("Codes of an untrained autoencoder", "change of the codes"),
}


class HeadExplorer(CircuitPanel):
    """Score the heads of a model on a task; `explore_heads` makes one."""

    threshold = traitlets.Float(0.5, min=0.0, max=1.0)
    by = traitlets.Unicode(TOWARDS)
    selected = traitlets.Tuple(default_value=())

    def __init__(self, model: Model, task: Task | None, n: int, codes: HeadCodes | None) -> None:
        self.model, self.n, self.codes = model, n, codes or HeadCodes()
        self.task: Task
        self.fit: HeadCodesFit
        self._captured: tuple[Task, Activations] | None = None
        self._make_controls(task)
        super().__init__(
            [
                w.HBox([self._task, self._by, self._train, self._size, self._score]),
                self._status,
                w.HBox([self.map, w.VBox([self._about, self._codes, self._ways])]),
                w.HBox([self._prompt]),
                self._where,
                w.HBox([self._slider, self._test, self._tested]),
                self._chosen,
                self.graph,
            ]
        )
        self._guarded(self.score)

    def __repr__(self) -> str:
        """Return what is shown; the widgets hold too much to print."""
        return f"HeadExplorer({self.model!r}, circuit={self.circuit!r}, selected={self.selected})"

    def _make_controls(self, task: Task | None) -> None:
        self._offer_tasks(task, "initial")
        ways = [(title, name) for name, (title, _) in _WAYS.items()]
        self._by = control(w.Dropdown, "Score by", width="330px", options=ways)
        numbers: dict[str, Any] = {"value": self.codes.n_train, "min": 1, "max": 2 * self.n}
        self._train = control(w.BoundedIntText, "Prompts for codes", width="190px", **numbers)
        numbers = {"value": self.codes.n_features, "min": 1, "max": 4096}
        self._size = control(w.BoundedIntText, "Codes", width="130px", **numbers)
        self._score = button("Score", "play", button_style="primary")
        self.map = go.FigureWidget(head_figure(np.zeros((1, 1)), truth=np.zeros((1, 1), bool)))
        self._status, self._about, self._codes, self._ways, self._tested, self._chosen = (
            w.HTML() for _ in range(6)
        )
        self._prompt = control(w.Dropdown, "Prompt", width="640px")
        self.attention = go.FigureWidget(attention_figure(np.zeros((1, 1)), [""]))
        self._where = w.VBox([self.attention])  # its display is what hides an empty figure
        share = "Threshold, share of the highest score"
        numbers = {"value": self.threshold, "min": 0, "max": 1, "step": 0.01}
        self._slider = control(w.FloatSlider, share, width="480px", **numbers)
        tooltip = "Give the heads, all others, random sets, and every path their corrupted outputs"
        self._test = button("Test", "flask", tooltip)
        self._busy_controls = (self._score, self._test, self._task, self._prompt)
        traitlets.link((self, "threshold"), (self._slider, "value"))
        traitlets.link((self, "by"), (self._by, "value"))
        self._score.on_click(lambda _: self._guarded(self.score))
        self._test.on_click(lambda _: self._guarded(self.test, where=self._tested))
        self._hear(self._task, lambda _: self.score())
        self._hear(self._prompt, lambda _: self._look())
        self.graph.observe(self._from_graph, "selected")
        traces: Any = self.map.data
        for trace in traces:
            trace.on_click(self._clicked)

    def score(self) -> None:
        """Capture the chosen task and score its heads in every way: the Score button."""
        name = str(self._task.value)
        with self._busy("running the prompts, forwards and backwards, and training the codes …"):
            if self._captured is None or self._captured[0].name != name:
                task = self._prompts(n=self.n)
                where = self.codes.positions_of(task)
                acts = capture(self.model, "head_out", task, where, progress=False)
                self._captured = task, acts
            task, acts = self._captured
            codes = replace(self.codes, n_train=self._train.value, n_features=self._size.value)
            fits: dict[str, HeadCodesFit] = {}
            scores: dict[str, np.ndarray] = {}
            gradients = best_score(self.model) == ATTRIBUTION and task.metric is not None
            for way, make in lead_ways(self.model, task, codes, acts, fits, gradients).items():
                if (found := make()) is not None:
                    scores[way] = found if found.ndim == 3 else found[None]
        self.task, self.fit, self.scores = task, fits[OURS], scores
        self.known = known_heads(self.model, task.name)
        rings = "" if self.known is None else f" Rings: {self.known.source}."
        self._say(f"{self.task!r}.{rings} Click on a head.")
        self.selected = ()
        with self._quietly():
            self._prompt.options = [(text, i) for i, text in enumerate(self.task.clean[:_SHOWN])]
            self._prompt.value = 0
        by = self.by if self.by in scores else next(iter(scores))
        self._by.options = [(title, way) for way, (title, _) in _WAYS.items() if way in scores]
        self.by = by
        self._compare()
        self._look()
        self._draw()

    def _compare(self) -> None:
        """Hold the ways to score heads against the heads that are known."""
        self._say("", self._ways)
        if self.known is None:
            return
        truth, shown = self.known.mask, []
        for way, each in self.scores.items():
            row = head_agreement(each, truth)
            shown.append((_WAYS[way][0], f"{row['node_auc']:.2f}", f"{row['node_ap']:.2f}"))
        shown.append(("Chance", "0.50", f"{truth.mean():.2f}"))
        self._fill(self._ways, "ways.html", n=int(truth.sum()), rows=shown)

    def test(self) -> None:
        """Replace the circuit's heads, all others, random sets, and each path: the Test button."""
        if self.circuit is None:
            raise InputError("There is no circuit to test.")
        with self._busy("replacing every path …", self._tested):
            circuit, limit = self.circuit, {"n_prompts": _TESTED, "progress": False}
            note = "Paths that carry at least 1 % of the metric's change are drawn, and tested."
            try:
                circuit = draw_paths(circuit, self.model, self.task, **limit)
                others = self._prompts(n=64, seed=1, test=True)
                circuit = confirm_edges(circuit, self.model, None, others, **limit)
            except InputError as error:
                note = f"Paths were not tested: {error}"
            self.circuit = circuit
        text = "replacing the heads, all others, 20 random sets …"
        self._evaluate(text, None, where=self._tested)
        self._say(note, self._tested)

    @traitlets.observe("threshold", "by")
    def _draw(self, change: Any = None) -> None:
        """Read the circuit off the scores: no model runs."""
        if not hasattr(self, "fit") or self.by not in self.scores:
            return
        scores = self.scores[self.by].mean(0)
        truth = None if self.known is None else self.known.mask
        unit = _WAYS[self.by][1]
        self._redraw(self.map, head_figure(scores, truth=truth, layers=self.fit.layers, unit=unit))
        if self.by == OURS:
            self.circuit = self.fit.predict(self.threshold)
        else:
            keys = ("model", "task", "target", "n_prompts", "trained_on")
            settings = {"method": f"heads by {self.by}"}
            settings |= {key: self.fit.settings[key] for key in keys}
            self.circuit = head_circuit(scores, settings, self.threshold)
        names = self.circuit.nodes["label"][:-1].tolist()
        self._say("", self._tested)  # evidence is of the circuit that was tested
        self._fill(self._chosen, "heads.html", names=names, total=scores.size)

    @traitlets.observe("selected")
    def _show(self, change: Any) -> None:
        self._guarded(self._look)

    def _look(self) -> None:
        """Show the head that is selected on the prompt that is chosen."""
        if not self.selected:
            self._say("Click on a head of the map.", self._about, "quiet")
            self._say("", self._codes)
            self._where.layout.display = "none"
            return
        layer, head = self.selected
        row = self.fit.layers.index(layer)
        with self._busy(f"running the model for a{layer}.h{head} …"):
            effect = self._effect(layer, head)
            batch = self.model.tokenize([self.task.clean[int(self._prompt.value or 0)]])
            pattern = run(self.model, batch, [Site("attn_pattern", layer)])
        self._fill(
            self._about,
            "head.html",
            **{"layer": layer, "head": head, "effect": effect},
            ways=self._ranks(row, head),
            total=self.fit.scores.size,
        )
        table = self.fit.code_table(layer, head)
        only = np.count_nonzero((table["positives"] > 0) & (table["negatives"] == 0))
        shown = {"columns": list(table), "rows": table.head(8).to_numpy().tolist()}
        self._fill(self._codes, "codes.html", total=len(table), only=only, **shown)
        values = pattern[Site("attn_pattern", layer)][0, head].float().cpu().numpy()
        self._redraw(self.attention, attention_figure(values, self.model.words(batch)[0]))
        self._where.layout.display = ""

    def _ranks(self, row: int, head: int) -> list[tuple[str, float, int]]:
        """Score of a head in every way, and its rank."""
        means = {way: each.mean(0) for way, each in self.scores.items()}
        return [
            (_WAYS[way][0], each[row, head], 1 + int((each > each[row, head]).sum()))
            for way, each in means.items()
        ]

    def _effect(self, layer: int, head: int) -> dict[str, Any] | None:
        """Run the model with the head's output on the corrupted prompts: what the metric does."""
        if self.task.metric is None:
            return None
        task = self.task.subset(_TESTED)
        replaced = resample(Site("head_out", layer), heads=[head])
        before, after = (
            intervene(self.model, task, changes, progress=False).metric
            for changes in ([], [replaced])
        )
        assert after is not None and before is not None
        means = {"before": float(before.mean()), "after": float(after.mean())}
        return {"metric": self.task.metric.replace("_", " "), "n": len(task), **means}

    def _clicked(self, trace: Any, points: Any, state: Any = None) -> None:
        """Select what was clicked on the map."""
        if points.xs:
            self.selected = (int(points.ys[0]), int(points.xs[0]))

    def _from_graph(self, change: Any) -> None:
        """Select what was clicked in the graph."""
        if not change.new or self.circuit is None or change.new in self.circuit.groups:
            return
        node = self.circuit.nodes[self.circuit.ids().index(change.new)]
        if node["site"] != TARGET:
            self.selected = (Site.parse(str(node["site"])).layer, int(node["index"]))

    def _redraw(self, widget: Any, drawn: Any) -> None:
        """Put a new figure into a widget that is there: each widget brings its own script."""
        with widget.batch_update():
            for number, trace in enumerate(widget.data):
                there = number < len(drawn.data)
                trace.visible = there
                if there:
                    new = drawn.data[number].to_plotly_json()
                    trace.update({key: value for key, value in new.items() if key != "type"})
            widget.layout.update(drawn.layout)


def explore_heads(
    model: Model, task: Task | None = None, *, n: int = 128, codes: HeadCodes | None = None
) -> HeadExplorer:
    """Open the panel of heads: which ones a task needs, what each does, and whether it holds.

    Heads are ranked by the change of what they write towards the answer, by attribution patching,
    or by head codes (the published method, beside those of an untrained autoencoder). Test gives
    the heads, all others, random sets and each path between heads their corrupted outputs.

    Parameters
    ----------
    model : Model
        From `load_model`.
    task : Task, optional
        One's own, with corrupted prompts; by default the bundled tasks are in the menu.
    n : int
        Prompts of a bundled task.
    codes : HeadCodes, optional
        Settings of the head codes.

    Returns
    -------
    HeadExplorer
        A widget; `panel.by` and `panel.threshold` can be set and `panel.circuit`, `panel.scores`,
        `panel.fit` (the head codes) and `panel.selected` read in the next cell.

    Raises
    ------
    InputError
        If an argument is of the wrong kind.
    """
    expect(model, "model", "Model")
    check_objects(task=(task, "Task"), codes=(codes, "HeadCodes"))
    return HeadExplorer(model, task, whole(n, "n", 1), codes)

"""The panel of heads: rank them, look at several, and test a circuit of them with its paths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ipywidgets as w
import numpy as np
import traitlets

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.arguments import expect, whole
from circuit_toolkit.attribution.heads import ATTRIBUTION, TOWARDS, best_score
from circuit_toolkit.benchmark.heads.comparison import OURS, UNTRAINED, head_agreement, lead_ways
from circuit_toolkit.benchmark.heads.reference import known_heads
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import head_circuit
from circuit_toolkit.circuit.tables import TARGET
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence import confirm_edges, draw_paths, heads_effect
from circuit_toolkit.evidence.head_effect import checked_heads
from circuit_toolkit.evidence.head_paths import path_shares, possible_paths, with_paths
from circuit_toolkit.head_codes import HeadCodes, HeadCodesFit
from circuit_toolkit.models import Model, run
from circuit_toolkit.panels.closing import closed
from circuit_toolkit.panels.head_view import HeadView
from circuit_toolkit.panels.panel import CircuitPanel, button, check_objects, control
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

_SHOWN = 20  # prompts in the menu
_TESTED = 32  # prompts on which paths are tested
_ABLATED: dict[str, int] = {"n_prompts": 16, "random_sets": 8}  # of the heads that are selected
_FIRST = 10  # heads, the best ones, between which paths are found at once, ...
_SOME = 8  # ... on so many prompts
_BEST = 3  # heads that are shown first
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
        self._paths: dict[tuple[str, str], float] = {}  # share of the change that each carries
        self._make_controls(task)
        wrap = w.Layout(flex_flow="row wrap")
        super().__init__(
            [
                w.HBox([self._task, self._by, self._train, self._size, self._score], layout=wrap),
                self._status,
                self._prompt,
                self.view,
                self._about,
                w.HBox([self._slider, self._find, self._test], layout=wrap),
                self._chosen,
                self._tested,
                self.graph,
                w.Accordion(
                    [w.VBox([self._ranked, self._codes, self._ways])],
                    titles=("Scores of the selected heads, and how well they find known ones",),
                ),
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
        self.view = HeadView()
        self._status, self._about, self._ranked, self._codes, self._ways = (
            w.HTML() for _ in range(5)
        )
        self._tested, self._chosen = w.HTML(), w.HTML()
        self._prompt = control(w.Dropdown, "Prompt", width="min(640px, 98%)")
        share = "Threshold, share of the highest score"
        numbers = {"value": self.threshold, "min": 0, "max": 1, "step": 0.01}
        self._slider = control(w.FloatSlider, share, width="440px", **numbers)
        tooltip = "Patch every path between these heads, and from each to the answer"
        self._find = button("Find paths", "share-alt", tooltip)
        tooltip = "Give the heads, all others, random sets, and every path their corrupted outputs"
        self._test = button("Test", "flask", tooltip)
        self._busy_controls = (self._score, self._find, self._test, self._task, self._prompt)
        traitlets.link((self, "threshold"), (self._slider, "value"))
        traitlets.link((self, "by"), (self._by, "value"))
        self._score.on_click(lambda _: self._guarded(self.score))
        self._find.on_click(lambda _: self._guarded(self.find_paths, where=self._tested))
        self._test.on_click(lambda _: self._guarded(self.test, where=self._tested))
        self._hear(self._task, lambda _: self.score())
        self._hear(self._prompt, lambda _: self._look())
        self.graph.observe(self._from_graph, "selected")
        self.view.observe(self._from_view, "selected")

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
        self._say(f"{self.task!r}.{rings}")
        self._paths, self.selected = {}, ()
        with self._quietly():
            self._prompt.options = [(text, i) for i, text in enumerate(self.task.clean[:_SHOWN])]
            self._prompt.value = 0
        by = self.by if self.by in scores else next(iter(scores))
        self._by.options = [(title, way) for way, (title, _) in _WAYS.items() if way in scores]
        self.by = by
        self._compare()
        self._draw()
        self._guarded(self.find_paths, _FIRST, where=self._tested)
        assert self.circuit is not None
        self.selected = tuple(self._best(self.circuit, _BEST))

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

    def find_paths(self, most: int | None = None) -> None:
        """Patch the paths between the circuit's heads, or its best ones: the Find paths button."""
        if self.circuit is None:
            raise InputError("There is no circuit to find paths of.")
        within = {*self._best(self.circuit, most)}
        names = _names(self.circuit)
        heads = [at in within for at in _heads(self.circuit)] + [True]
        missing = [
            (a, b)
            for a, b in possible_paths(self.circuit)
            if heads[a] and heads[b] and (names[a], names[b]) not in self._paths
        ]
        if not missing:
            return
        with self._busy(f"patching {len(missing)} paths …", self._tested):
            given = self.circuit, self.model, self.task, missing
            shares = path_shares(*given, n_prompts=_SOME, progress=False).mean(1)
        ends = ((names[a], names[b]) for a, b in missing)
        self._paths |= dict(zip(ends, shares.tolist(), strict=True))
        self._draw()

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
        """Read the circuit off the scores and the paths that are known: no model runs."""
        if not hasattr(self, "fit") or self.by not in self.scores:
            return
        scores = self.scores[self.by].mean(0)
        known = None if self.known is None else self.known.mask
        self.view.show_scores(scores, self.fit.layers, known, _WAYS[self.by][1])
        if self.by == OURS:
            circuit = self.fit.predict(self.threshold)
        else:
            keys = ("model", "task", "target", "n_prompts", "trained_on")
            settings = {"method": f"heads by {self.by}"}
            settings |= {key: self.fit.settings[key] for key in keys}
            circuit = head_circuit(scores, settings, self.threshold)
        names = circuit.nodes["label"][:-1].tolist()
        self.circuit, without = self._with_known_paths(circuit)
        said = ""
        if without:
            said = f"The paths of {', '.join(without)} are not known yet: press Find paths."
        self._say(said, self._tested)  # evidence is of the circuit that was tested
        self._fill(self._chosen, "heads.html", names=names, total=scores.size)

    def _with_known_paths(self, circuit: Circuit) -> tuple[Circuit, list[str]]:
        """Return the circuit with paths for edges, and its heads whose paths are not known."""
        if not self._paths or len(circuit.nodes) < 2:
            return circuit, []
        names = _names(circuit)
        pairs = possible_paths(circuit)
        known = [(a, b) for a, b in pairs if (names[a], names[b]) in self._paths]
        weights = np.array([self._paths[names[a], names[b]] for a, b in known])
        there = {names[a] for a, _ in known}
        return with_paths(circuit, known, weights), [n for n in names[:-1] if n not in there]

    @traitlets.validate("selected")
    def _checked(self, proposal: Any) -> tuple[tuple[int, int], ...]:
        """Take one head or several; refuse what is none, and keep what was selected."""
        value = proposal.value
        one = len(value) == 2 and not any(isinstance(each, tuple | list) for each in value)
        return checked_heads(self.model, [value] if one else value)

    @traitlets.observe("selected")
    def _show(self, change: Any) -> None:
        self.view.selected = [list(each) for each in self.selected]
        self._guarded(self._look)

    def _look(self) -> None:
        """Show the heads that are selected on the prompt that is chosen."""
        for each in (self._codes, self._ranked):
            self._say("", each)
        if not self.selected:
            self._say("Click on heads of the map.", self._about, "quiet")
            self.view.show_patterns([], {})
            return
        sites = [Site("attn_pattern", layer) for layer in sorted({at for at, _ in self.selected})]
        names = [f"a{layer}.h{head}" for layer, head in self.selected]
        with self._busy(f"running the model for {', '.join(names)} …"):
            effect = None
            if self.task.metric is not None and self.task.corrupted:
                effect = heads_effect(self.model, self.task, self.selected, **_ABLATED)
            batch = self.model.tokenize([self.task.clean[int(self._prompt.value or 0)]])
            seen = run(self.model, batch, sites)
        patterns = {
            name: seen[Site("attn_pattern", layer)][0, head].float().cpu().numpy()
            for name, (layer, head) in zip(names, self.selected, strict=True)
        }
        self.view.show_patterns(self.model.words(batch)[0], patterns)
        ways = [_WAYS[way][0] for way in self.scores]
        ranks = [(name, self._ranks(*at)) for name, at in zip(names, self.selected, strict=True)]
        self._fill(self._about, "head.html", effect=effect, names=names)
        shown = {"ways": ways, "heads": ranks, "total": self.fit.scores.size}
        self._fill(self._ranked, "ranks.html", **shown)
        if len(self.selected) == 1:
            table = self.fit.code_table(*self.selected[0])
            only = np.count_nonzero((table["positives"] > 0) & (table["negatives"] == 0))
            shown = {"columns": list(table), "rows": table.head(8).to_numpy().tolist()}
            self._fill(self._codes, "codes.html", total=len(table), only=only, **shown)

    def _ranks(self, layer: int, head: int) -> list[tuple[float, int]]:
        """Score of a head in every way, and its rank."""
        row = self.fit.layers.index(layer)
        means = [each.mean(0) for each in self.scores.values()]
        return [(each[row, head], 1 + int((each > each[row, head]).sum())) for each in means]

    def _best(self, circuit: Circuit, most: int | None) -> list[tuple[int, int]]:
        """Return the heads of a circuit, the highest scores first."""
        order = np.argsort(-circuit.nodes["score"][:-1], kind="stable")[:most]
        heads = _heads(circuit)
        return [heads[i] for i in order.tolist()]

    def _from_view(self, change: Any) -> None:
        """Select what was clicked on the map."""
        if [list(each) for each in self.selected] != change.new:
            self.selected = tuple(tuple(each) for each in change.new)

    def _from_graph(self, change: Any) -> None:
        """Select what was clicked in the graph."""
        if not change.new or self.circuit is None or change.new in self.circuit.groups:
            return
        node = self.circuit.nodes[self.circuit.ids().index(change.new)]
        if node["site"] != TARGET:
            self.selected = ((Site.parse(str(node["site"])).layer, int(node["index"])),)

    def close(self) -> None:
        """Close all widgets of the panel, and let go of what it captured."""
        closed(self, "fit", "task", "scores", "known", "_captured", "_paths", "circuit")


def _heads(circuit: Circuit) -> list[tuple[int, int]]:
    nodes = circuit.nodes[:-1]
    pairs = zip(nodes["site"].tolist(), nodes["index"].tolist(), strict=True)
    return [(Site.parse(site).layer, int(index)) for site, index in pairs]


def _names(circuit: Circuit) -> list[str]:
    """Return the names of heads, and that of the target as the end of paths."""
    return [*circuit.nodes["label"][:-1].tolist(), TARGET]


def explore_heads(
    model: Model, task: Task | None = None, *, n: int = 128, codes: HeadCodes | None = None
) -> HeadExplorer:
    """Open the panel of heads: which ones a task needs, what each does, and whether it holds.

    Heads are ranked by the change of what they write towards the answer, by attribution patching,
    or by head codes (the published method, beside those of an untrained autoencoder). Edges are
    paths, by path patching on a few prompts. Of the heads that are selected the panel shows where
    they look on a prompt, and what the task loses without them, beside random heads. Test gives
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
        A widget; `panel.by`, `panel.threshold` and `panel.selected` (heads, such as
        `[(3, 0), (4, 1)]`) can be set, and these, `panel.circuit`, `panel.scores` and `panel.fit`
        (the head codes) read in the next cell. `panel.close()` lets go of all of it.

    Raises
    ------
    InputError
        If an argument is of the wrong kind.
    """
    expect(model, "model", "Model")
    check_objects(task=(task, "Task"), codes=(codes, "HeadCodes"))
    return HeadExplorer(model, task, whole(n, "n", 1), codes)

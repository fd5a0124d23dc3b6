"""The panel of heads: rank them, look at several, and test a circuit of them with its paths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import traitlets

from circuit_toolkit.arguments import expect, expect_known, whole
from circuit_toolkit.attribution.heads import TOWARDS
from circuit_toolkit.benchmark.heads.comparison import OURS
from circuit_toolkit.benchmark.heads.reference import KnownHeads, known_heads
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence import confirm_edges, draw_paths, evaluate, heads_effect
from circuit_toolkit.evidence.head_effect import HeadsEffect, checked_heads
from circuit_toolkit.evidence.head_paths import path_shares, possible_paths, with_paths
from circuit_toolkit.head_codes import HeadCodes, HeadCodesFit
from circuit_toolkit.models import Model, run
from circuit_toolkit.panels.asked import AskedWidget
from circuit_toolkit.panels.head_scoring import WAYS, ScoredHeads
from circuit_toolkit.panels.head_view import filled, map_of, offered, patterns_of, ranked
from circuit_toolkit.panels.live import module_of
from circuit_toolkit.panels.panel import check_objects
from circuit_toolkit.panels.quiet import Quiet
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import BUNDLED, Task
from circuit_toolkit.views.graph.header import verdict
from circuit_toolkit.views.graph.prompt_columns import Places
from circuit_toolkit.views.graph.scene import scene_of
from circuit_toolkit.views.graph.steady import Steady
from circuit_toolkit.views.graph.svg import graph_svg
from circuit_toolkit.views.rendering import stylesheet

_SHOWN = 20  # prompts in the menu
_TESTED = 32  # prompts on which paths are tested
_ABLATED: dict[str, int] = {"n_prompts": 16, "random_sets": 8}  # of the heads that are selected
_FIRST = 10  # heads, the best ones, between which paths are found at once, ...
_SOME = 8  # ... on so many prompts
_BEST = 3  # heads that are shown first
_SMALL = 1e9  # parameters times prompts up to which this is done before the panel opens
_WIDTHS = (360.0, 480.0, 620.0)  # px that the graph may take
_COLUMN = Places(["all tokens"], {"": 0}, 0, False)  # heads are ablated at all of them
_SCRIPTS = ("parts", "head_view", "heads")
_STYLES = ("views/static/graph.css", "panels/static/explorer.css", "panels/static/panel.css")
_STYLES += ("panels/static/heads.css",)
_REGIONS = ("_controls", "_map", "_patterns", "_scene", "_about", "_foot", "_busy")


class HeadExplorer(Quiet, AskedWidget):
    """Score the heads of a model on a task; `explore_heads` makes one.

    Attributes
    ----------
    circuit : Circuit
        Heads whose score is at least `threshold` of the highest, with the paths that are known.
    by, threshold, prompt, selected
        What the controls show. Assigning redraws; what cannot be raises and changes nothing.
    task, scores, known, fit
        The prompts; scores (S, L, H) by way, of the ways that were scored; the heads that the task
        is known to need; the head codes, once they were trained.
    """

    circuit: Any = traitlets.Instance(Circuit, allow_none=True)
    threshold = traitlets.Float(0.5, min=0.0, max=1.0)
    by = traitlets.Unicode(TOWARDS)
    prompt = traitlets.Int(0)
    selected: Any = traitlets.Tuple()
    _controls = traitlets.Dict().tag(sync=True)
    _map = traitlets.Dict().tag(sync=True)
    _patterns = traitlets.Dict().tag(sync=True)
    _scene = traitlets.Dict().tag(sync=True)
    _about = traitlets.Dict().tag(sync=True)
    _foot = traitlets.Dict().tag(sync=True)
    _picked = traitlets.List().tag(sync=True)

    def __init__(self, model: Model, task: Task | None, n: int, codes: HeadCodes | None) -> None:
        self._esm = module_of(*(f"panels/static/{name}.js" for name in _SCRIPTS))
        self._css = "\n".join(str(stylesheet(name)) for name in _STYLES)
        self.model, self.n, self.codes = model, n, codes or HeadCodes()
        self._tasks: dict[str, Any] = {task.name: task} if task else dict(BUNDLED)
        self.task: Task
        self.known: KnownHeads | None
        self._scored: ScoredHeads
        self._paths: dict[tuple[str, str], float] = {}  # share of the change that each carries
        self._effects: dict[tuple[tuple[int, int], ...], HeadsEffect] = {}
        super().__init__()
        self.score(next(iter(self._tasks)))

    def __repr__(self) -> str:
        """Return what is shown; the widget holds too much to print."""
        return f"HeadExplorer({self.model!r}, circuit={self.circuit!r}, selected={self.selected})"

    @property
    def scores(self) -> dict[str, np.ndarray]:
        """Scores (S, L, H) by way, of the ways that were scored so far; `compare` scores all."""
        return self._scored.scores

    @property
    def fit(self) -> HeadCodesFit | None:
        """The head codes; None before they were trained, as `by = "head codes"` does."""
        return self._scored.fit

    # ---- what buttons do ----

    def score(self, task: str | None = None) -> None:
        """Take the prompts of a task, and score its heads in the way that is chosen.

        Parameters
        ----------
        task : str, optional
            One of the menu; by default the same again.
        """
        name = self.task.name if task is None else task
        expect_known(name, self._tasks, f"There is no task {name!r}")
        with self._lock:
            self._tell("scoring the heads")
            prompts = self._prompts(name, n=self.n)
            scored = ScoredHeads(self.model, prompts, self.codes)
            by = self.by if self.by in scored.ways else scored.ways[0]
            scored.of(by)
            with self._quietly():
                self.task, self._scored = prompts, scored
                self.known = known_heads(self.model, name)
                self._paths, self._effects, self._about = {}, {}, {}
                self.by, self.prompt, self.selected = by, 0, ()
            self._draw()
            if self._is_small():
                self._find_first()
            self.selected = tuple(self._best(_BEST))

    def find_paths(self, most: int | None = None) -> None:
        """Patch the paths between the circuit's heads that are not known yet.

        Parameters
        ----------
        most : int, optional
            Between so many of its best heads; by default all.
        """
        names, heads = _names(self.circuit), _heads(self.circuit)
        within = {*self._best(most)}
        taken = [at in within for at in heads] + [True]
        missing = [
            (a, b)
            for a, b in possible_paths(self.circuit)
            if taken[a] and taken[b] and (names[a], names[b]) not in self._paths
        ]
        if not missing:
            return
        with self._lock:
            self._tell(f"patching {len(missing)} paths")
            given = self.circuit, self.model, self.task, missing
            shares = path_shares(*given, n_prompts=_SOME, progress=False).mean(1)
            ends = ((names[a], names[b]) for a, b in missing)
            self._paths |= dict(zip(ends, shares.tolist(), strict=True))
            self._draw()

    def test(self) -> None:
        """Give the circuit's heads, all others, random sets, and each path corrupted outputs."""
        with self._lock:
            circuit, limit = self.circuit, {"n_prompts": _TESTED, "progress": False}
            self._tell("replacing every path")
            note = "Paths that carry at least 1 % of the metric's change are drawn, and tested."
            others = self._prompts(self.task.name, n=64, seed=1, test=True)
            try:
                circuit = draw_paths(circuit, self.model, self.task, **limit)
                circuit = confirm_edges(circuit, self.model, None, others, **limit)
            except InputError as error:
                note = f"Paths were not tested: {error}"
            self._tell("replacing the heads, all others, 20 random sets")
            given = circuit, self.model, None, others, None
            self._show_circuit(evaluate(*given, n_prompts=64, progress=False), note)

    def compare(self) -> None:
        """Score the heads in every way, and hold each against those that are known."""
        with self._lock:
            for way in self._scored.ways:
                self._tell(f"scoring by {WAYS[way].title}")
                self._scored.of(way)
            self._show_controls()
            self._show_ranks()

    def train(self, n_train: int | None = None, n_features: int | None = None) -> None:
        """Train the head codes, and show them.

        Parameters
        ----------
        n_train : int, optional
            Prompts to train on; by default as before.
        n_features : int, optional
            Codes; by default as many as before.
        """
        now = self._scored.codes
        sizes = (
            whole(now.n_train if n_train is None else n_train, "n_train", 1),
            whole(now.n_features if n_features is None else n_features, "n_features", 1),
        )
        with self._lock:
            self._tell("training the codes")
            self._scored.retrain(replace(now, n_train=sizes[0], n_features=sizes[1]))
            self.codes = self._scored.codes
            if self.by == OURS:
                self._draw()
            self.by = OURS
            self._show_ranks()

    # ---- what is shown ----

    @traitlets.validate("by")
    def _scored_way(self, proposal: Any) -> str:
        """Score in another way; where that cannot be, nothing is changed."""
        if not self._quiet:
            self._tell(f"scoring by {WAYS[proposal.value].title if proposal.value in WAYS else ''}")
            self._scored.of(proposal.value)
        return proposal.value

    @traitlets.validate("prompt")
    def _listed_prompt(self, proposal: Any) -> int:
        most = min(len(self.task), _SHOWN) - 1
        if not 0 <= proposal.value <= most:
            raise InputError(f"prompt is a row of the menu, 0 to {most}; got {proposal.value}.")
        return proposal.value

    @traitlets.validate("selected")
    def _checked(self, proposal: Any) -> tuple[tuple[int, int], ...]:
        """Take one head or several; refuse what is none, and keep what was selected."""
        value = proposal.value
        one = len(value) == 2 and not any(isinstance(each, tuple | list) for each in value)
        return checked_heads(self.model, [value] if one else value)

    @traitlets.observe("threshold", "by")
    def _redraw(self, change: Any) -> None:
        if not self._quiet:
            with self._lock:
                self._draw()
                if change.name == "by":
                    self._show_ranks()

    @traitlets.observe("selected", "prompt")
    def _relook(self, change: Any) -> None:
        if not self._quiet:
            with self._lock:
                self._look()

    @traitlets.observe("circuit")
    def _given(self, change: Any) -> None:
        """Show a circuit that a user assigned."""
        if not self._quiet and change.new is not None:
            self._show_circuit(change.new, "")

    def _draw(self) -> None:
        """Read the circuit off the scores and the paths that are known: no model runs."""
        scores = self.scores[self.by].mean(0)
        known = None if self.known is None else self.known.mask
        self._map = map_of(scores, known, WAYS[self.by].unit)
        circuit, without = self._with_known_paths(self._scored.circuit(self.by, self.threshold))
        said = f"Paths of {', '.join(without)} are not known yet: Find paths" if without else ""
        self._show_circuit(circuit, said)
        self._show_controls()

    def _show_circuit(self, circuit: Circuit, note: str) -> None:
        tone, words = verdict(circuit)
        with self.hold_sync(), self._quietly():
            self.circuit = circuit
            self._scene = scene_of(circuit, Steady(_COLUMN, _WIDTHS))
            lines = circuit.summary()
            self._foot = {"tone": tone, "words": words, "lines": lines, "note": note}
        self._changed()

    def _show_controls(self) -> None:
        rings = "" if self.known is None else f" Rings: {self.known.source}."
        self._controls = {
            "tasks": [*self._tasks],
            "task": self.task.name,
            "by": self.by,
            "threshold": self.threshold,
            "prompts": list(self.task.clean[:_SHOWN]),
            "prompt": self.prompt,
            "said": f"{self.task!r}.{rings}",
            "kept": len(self.circuit.nodes) - 1,
            **offered(self._scored),
        }

    def _find_first(self) -> None:
        """Find the paths of the best heads; a model without inputs of heads has none."""
        try:
            self.find_paths(_FIRST)
        except InputError as error:
            self._foot = {**self._foot, "note": f"There are no paths: {error}"}

    def _with_known_paths(self, circuit: Circuit) -> tuple[Circuit, list[str]]:
        """Return the circuit with paths for edges, and its heads whose paths are not known."""
        if len(circuit.nodes) < 2:
            return circuit, []
        names = _names(circuit)
        pairs = possible_paths(circuit)
        known = [(a, b) for a, b in pairs if (names[a], names[b]) in self._paths]
        weights = np.array([self._paths[names[a], names[b]] for a, b in known])
        there = {names[a] for a, _ in known}
        return with_paths(circuit, known, weights), [n for n in names[:-1] if n not in there]

    def _look(self) -> None:
        """Show the heads that are selected on the prompt that is chosen."""
        self._picked = [list(each) for each in self.selected]
        names = [f"a{layer}.h{head}" for layer, head in self.selected]
        self._about = {"names": names, "ways": self._about.get("ways", "")}
        if self.selected:
            self._tell(f"running the model for {', '.join(names)}")
            sites = [Site("attn_pattern", layer) for layer in sorted({a for a, _ in self.selected})]
            batch = self.model.tokenize([self.task.clean[self.prompt]])
            seen = run(self.model, batch, sites)
            patterns = {
                name: seen[Site("attn_pattern", layer)][0, head].float().cpu().numpy()
                for name, (layer, head) in zip(names, self.selected, strict=True)
            }
            self._patterns = patterns_of(self.model.words(batch)[0], patterns)
        else:
            self._patterns = patterns_of([], {})
        self._show_controls()
        self._show_ranks()
        if self.selected:
            self._show_effect(names)

    def _show_effect(self, names: list[str]) -> None:
        """Say what the task loses without the heads that are selected."""
        effect = None
        if self.task.metric is not None and self.task.corrupted:
            if self.selected not in self._effects:
                given = self.model, self.task, self.selected
                self._effects[self.selected] = heads_effect(*given, **_ABLATED)
            effect = self._effects[self.selected]
        self._tell_about(effect=filled("head.html", effect=effect, names=names))

    def _show_ranks(self) -> None:
        """Say how the selected heads rank in each way, and how well the ways find known heads."""
        known = None if self.known is None else self.known.mask
        self._tell_about(**ranked(self._scored, self.selected, known))

    def _tell_about(self, **told: str) -> None:
        self._about = {**self._about, **told}

    def _best(self, most: int | None) -> list[tuple[int, int]]:
        """Return the heads of the circuit, the highest scores first."""
        order = np.argsort(-self.circuit.nodes["score"][:-1], kind="stable")[:most]
        heads = _heads(self.circuit)
        return [heads[i] for i in order.tolist()]

    def _prompts(self, name: str, **options: Any) -> Task:
        """Return prompts of a task; of the user's, those that there are."""
        made = self._tasks[name]
        return made if isinstance(made, Task) else made(self.model, **options)

    def _is_small(self) -> bool:
        """Tell whether paths are found before the panel opens."""
        return len(self.task) * sum(p.numel() for p in self.model.hf.parameters()) < _SMALL

    def _picture(self) -> str:
        return graph_svg(self.circuit) if self.circuit else ""

    def close(self) -> None:
        """Close the panel, and let go of all that it holds."""
        super().close()
        self.unobserve_all()
        for name in ("_scored", "task", "known", "_paths", "_effects"):
            vars(self).pop(name, None)
        with self._quietly():
            for region in _REGIONS:  # a notebook's `Out` may hold the panel for long
                setattr(self, region, {})
            self.circuit = None


def _select(panel: HeadExplorer, content: dict[str, Any]) -> None:
    panel.selected = tuple(tuple(each) for each in content["heads"])


HeadExplorer.requests = {
    "task": lambda panel, content: panel.score(str(content["value"])),
    "by": lambda panel, content: setattr(panel, "by", content["value"]),
    "threshold": lambda panel, content: setattr(panel, "threshold", content["value"]),
    "prompt": lambda panel, content: setattr(panel, "prompt", content["value"]),
    "select": _select,
    "paths": lambda panel, content: panel.find_paths(),
    "test": lambda panel, content: panel.test(),
    "compare": lambda panel, content: panel.compare(),
    "train": lambda panel, content: panel.train(content["n_train"], content["n_features"]),
}


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

    It opens with the heads scored in one way, the change of what they write towards the answer,
    with the paths between the best ones, by path patching on a few prompts. Attribution patching,
    head codes (the published method) and those of an untrained autoencoder are scored when they
    are asked for. Of the heads that are selected the panel shows where they look on a prompt, and
    what the task loses without them, beside random heads. Test gives the heads, all others, random
    sets and each path between heads their corrupted outputs.

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
        A widget; `panel.by`, `panel.threshold`, `panel.prompt` (a row of the menu) and
        `panel.selected` (heads, such as `[(3, 0), (4, 1)]`) can be set, and these,
        `panel.circuit`, `panel.scores` and `panel.fit` (the head codes, None until they are asked
        for) read in the next cell. `panel.compare()`, `panel.find_paths()` and `panel.test()` do
        what the buttons do; `panel.close()` lets go of all of it.

    Raises
    ------
    InputError
        If an argument is of the wrong kind, or the task has no corrupted prompts.
    """
    expect(model, "model", "Model")
    check_objects(task=(task, "Task"), codes=(codes, "HeadCodes"))
    return HeadExplorer(model, task, whole(n, "n", 1), codes)

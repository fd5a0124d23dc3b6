"""Where the explorer's circuits, names and cards come from; what was made is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.attribution.graph import attribution_graph
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit_lasso.estimator import CircuitLasso
from circuit_toolkit.circuit_lens import CircuitLens, FeatureCircuits
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.evidence import confirm_edges, confirm_nodes, evaluate, on_prompt
from circuit_toolkit.evidence.curves import faithfulness_by_size
from circuit_toolkit.features.card import FeatureCard, feature_card
from circuit_toolkit.features.descriptions.descriptions import FeatureDescriptions
from circuit_toolkit.models import Model
from circuit_toolkit.panels.explorer.learning import (
    Learnt,
    estimator_for,
    for_graphs,
    labels_for,
    learn,
)
from circuit_toolkit.panels.explorer.reading import Reading, read_prompt, understood
from circuit_toolkit.panels.explorer.view import GRAPH, View
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import BUNDLED, Task

EDGES = 3  # times the nodes: at most so many edges are shown
EXAMPLES = 96  # prompts from which examples and names are read
SMALL = 2e8  # parameters times prompts up to which examples are read at once
KEPT = 12  # graphs, fits and prompts that are kept
WIDEST = 60  # nodes for which a layout has room from the start
HELD_OUT = 64  # prompts that a circuit is tested on
SIZES = (5, 10, 20, 30, 40, 60, 80, 110, 150)  # at which a test measures faithfulness


class Source:
    """A model with its dictionaries and prompts, and what was made of them."""

    def __init__(
        self,
        model: Model,
        dictionaries: Mapping[Site, Dictionary],
        task: Task | None,
        n: int,
        estimator: CircuitLasso,
        descriptions: FeatureDescriptions | None,
        tell: Callable[[str], None],
    ) -> None:
        self.model, self.dictionaries, self.n = model, dict(dictionaries), n
        self.estimator, self.descriptions, self.tell = estimator, descriptions, tell
        self.tasks: dict[str, Any] = {task.name: task} if task else dict(BUNDLED)
        self.of_graphs = for_graphs(model, self.dictionaries)
        self.known = {**self.of_graphs, **self.dictionaries}
        self.examples: tuple[Activations, Mapping[Site, Sequence[str]]] | None = None
        self._graphs: dict[Any, Circuit] = {}
        self._fits: dict[Any, Learnt] = {}
        self._tested: dict[Any, Circuit] = {}
        self._curves: dict[Any, np.ndarray] = {}  # F at SIZES
        self._readings: dict[Any, Reading] = {}
        self._acts: dict[str, Activations] = {}
        self._first: Task | None = None  # prompts of the first task, for examples
        self._analysed: dict[str, FeatureCircuits] = {}

    def close(self) -> None:
        """Let go of all that was made."""
        for kept in (self._graphs, self._fits, self._tested, self._curves):
            kept.clear()
        self._readings.clear()
        self._acts.clear()
        self._analysed.clear()
        self.examples = self._first = None

    def prompts(self, name: str, **options: Any) -> Task:
        """Return prompts of a task; of the user's own, those that there are."""
        made = self.tasks[name]
        return made if isinstance(made, Task) else made(self.model, **options)

    def opening(self, prompt: str | None) -> tuple[str, str]:
        """Return the prompt that a panel opens with, and the task in the menu."""
        name = next(iter(self.tasks))
        if prompt is not None:
            return understood(self.model, prompt)[0], name
        return self._example_prompts(name).clean[0], name

    def _example_prompts(self, name: str) -> Task:
        if self._first is None:
            self._first = self.prompts(name, n=EXAMPLES).subset(EXAMPLES)
        return self._first

    # ---- the prompt ----

    def reading(self, view: View) -> Reading:
        """Return what the model makes of the prompt."""
        key = (view.prompt, view.answers)
        if key not in self._readings:
            of_task = self._of_task(view)
            made = read_prompt(self.model, of_task or view.prompt, view.answers)
            _keep(self._readings, key, made)
        return self._readings[key]

    def _of_task(self, view: View) -> Task | None:
        """Return the prompt with the answers and positions of the task that it is of."""
        found, own = self._fits.get(view.fit), self.tasks[view.task]
        tasks = [self._first, own if isinstance(own, Task) else None, found and found.task]
        for task in filter(None, tasks):
            if view.prompt in task.clean:
                return task.select([task.clean.index(view.prompt)])
        return None

    def activation(self, view: View, site: Site, index: int) -> list[float]:
        """Return the activation of a feature at each token of the prompt."""
        if view.prompt not in self._acts:
            acts = capture(self.model, self.known, [view.prompt], progress=False)
            _keep(self._acts, view.prompt, acts)
        acts = self._acts[view.prompt]
        values = np.zeros(len(self.reading(view).tokens))
        values[acts.position] = acts.features[site][:, [index]].toarray()[:, 0]
        return np.round(values, 4).tolist()

    # ---- circuits ----

    def circuit(self, view: View) -> Circuit:
        """Return the circuit of a view."""
        if view.method == GRAPH:
            whole = self.graph(view)
            return whole.prune(view.size, EDGES * view.size).with_evidence(whole.evidence)
        found = self.learnt(view)
        circuit = found.fit.circuit(view.strength, max_features=view.size)
        if view.everywhere:
            drawn = replace(view, strength=float(circuit.settings["strength"])).drawn
            return self._tested.get(drawn, circuit)
        chosen = self.chosen(view)
        if circuit.settings.get("ablation") is None:  # the mean over tokens cannot be ablated
            acts = capture(self.model, chosen, [view.prompt], progress=False)
            own = found.fit.on(acts)
            return own.circuit(view.strength, prompt=0, max_features=view.size)
        self.tell("running the prompt without each feature")
        return on_prompt(circuit, self.model, chosen, self.reading(view).task, found.task)

    def widest(self, view: View) -> Circuit | None:
        """Return the circuit with the most nodes that the sliders lead to."""
        if view.method == GRAPH:
            most = max(view.size, WIDEST)
            return self.graph(view).prune(most, EDGES * most)
        found = self.found(view)
        if found is None or not view.everywhere:
            return None
        return found.fit.circuit(float(found.fit.strengths[-1]), max_features=view.size)

    def graph(self, view: View) -> Circuit:
        """Return the attribution graph of the prompt, drawn once."""
        key = self._graph_key(view)
        if key not in self._graphs:
            self.tell("drawing the attribution graph")
            task, labels = self.reading(view).task, self._labels()
            made = attribution_graph(
                self.model, self.of_graphs, task, labels=labels, progress=False
            )
            _keep(self._graphs, key, made)
        return self._graphs[key]

    def _graph_key(self, view: View) -> tuple:
        return (view.prompt, self.reading(view).answers)

    def found(self, view: View) -> Learnt | None:
        """Return the fit of a view, if there is one."""
        return self._fits.get(view.fit) if view.learns else None

    def learnt(self, view: View) -> Learnt:
        """Return the fit of a view, made once."""
        if view.fit not in self._fits:
            self.tell("capturing prompts, and fitting")
            task = self.prompts(view.task, n=self.n)
            how = estimator_for(self.estimator, view.method, task, view.positions)
            made = learn(self.model, self.chosen(view), task, how, self.descriptions)
            _keep(self._fits, view.fit, made)
        return self._fits[view.fit]

    def chosen(self, view: View) -> dict[Site, Dictionary]:
        """Return the dictionaries that a circuit is learnt on."""
        return {site: self.dictionaries[site] for site in view.sites}

    def test(self, view: View) -> None:
        """Test the circuit of a view in the running model; of one prompt of a fit it was."""
        if view.method == GRAPH:
            self.tell("setting the strongest features to 0, one by one")
            whole = self.graph(view)
            whole = confirm_nodes(whole, self.model, self.of_graphs, progress=False)
            _keep(self._graphs, self._graph_key(view), whole)
        elif view.learns and view.everywhere:
            _keep(self._tested, view.drawn, self._held_out(view))

    def _held_out(self, view: View) -> Circuit:
        """Return the circuit of a fit, tested on held-out prompts where there are any."""
        self.tell("ablating the circuit, and random sets of the same size")
        found, task = self.learnt(view), self.prompts(view.task, n=HELD_OUT, seed=1, test=True)
        circuit = found.fit.circuit(view.strength, max_features=view.size)
        placed = circuit.settings.get("ablation") is not None
        given = self.model, self.chosen(view), task
        rows = None if placed else found.fit.rows
        circuit = evaluate(circuit, *given, rows, n_prompts=HELD_OUT, progress=False)
        if not placed or not len(circuit.edges):
            return circuit
        self.tell("keeping so many features at a time")
        widest = found.fit.circuit(view.strength, max_features=SIZES[-1])
        curve = faithfulness_by_size(widest, *given, SIZES, n_prompts=HELD_OUT)
        _keep(self._curves, (view.fit, view.strength), curve)
        self.tell("ablating the source of each edge")
        return confirm_edges(circuit, *given, n_prompts=HELD_OUT, progress=False)

    def curve(self, view: View) -> np.ndarray | None:
        """Return F of the circuit by its size, from 1 on, if it was measured."""
        found = self._curves.get((view.fit, view.strength)) if view.learns else None
        return (
            None
            if found is None
            else np.interp(np.arange(1, SIZES[-1] + 1), (0, *SIZES), (0, *found))
        )

    def remember(self, view: View, circuit: Circuit) -> None:
        """Take over evidence that a session holds."""
        if view.method == GRAPH:
            whole = self.graph(view).with_evidence(circuit.evidence)
            _keep(self._graphs, self._graph_key(view), whole)
        elif view.everywhere:
            _keep(self._tested, view.drawn, circuit)

    # ---- names and cards ----

    def is_small(self) -> bool:
        """Tell whether examples are read before a panel opens."""
        return EXAMPLES * sum(p.numel() for p in self.model.hf.parameters()) < SMALL

    def gather(self, view: View) -> None:
        """Read the prompts from which examples and names come, once."""
        if self.examples is None:
            self.tell("reading examples")
            task = self._example_prompts(view.task)
            acts = capture(self.model, self.known, task, progress=False)
            self.examples = acts, labels_for(acts, self.descriptions)

    def _labels(self) -> Any:
        if self.examples is not None:
            return self.examples[1]
        return self.descriptions.labels() if self.descriptions is not None else None

    def _texts(self, view: View, site: Site) -> tuple[Activations, Task, Any] | None:
        """Return where a feature is looked at: the prompts of the fit, or those of the examples."""
        found = self.found(view)
        if found is not None and site in found.acts.features:
            return found.acts, found.task, found.fit.labels
        if self.examples is None:
            return None
        return self.examples[0], self._example_prompts(view.task), self.examples[1]

    def analyse(self, view: View, site: Site, index: int) -> FeatureCircuits:
        """Cluster the activating examples of a feature by circuit."""
        self.gather(view)
        self.tell("running the prompts on which it is active")
        texts = self._texts(view, site)
        assert texts is not None
        acts, task, _ = texts
        given = self.model, self.known, task, (site, index)
        told = {"acts": acts, "descriptions": self.descriptions, "progress": False}
        self._analysed[f"{site}/{index}"] = CircuitLens().analyse(*given, **told)
        return self._analysed[f"{site}/{index}"]

    def card(self, view: View, site: Site, index: int) -> FeatureCard | None:
        """Return what is known of a feature, once examples were read."""
        texts = self._texts(view, site)
        if texts is None:
            return None
        acts, _, labels = texts
        return feature_card(
            self.model,
            self.known,
            (site, index),
            acts,
            descriptions=self.descriptions,
            labels=labels,
            circuits=self._analysed.get(f"{site}/{index}"),
            n_neighbours=0,
        )


def _keep(store: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep what was used last."""
    store.pop(key, None)
    store[key] = value
    while len(store) > KEPT:
        store.pop(next(iter(store)))

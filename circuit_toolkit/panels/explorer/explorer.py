"""The explorer: a prompt, its circuit, and what each node does, on one screen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.arguments import described, expect, expect_known, number, one_of, whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit_lasso.estimator import CircuitLasso
from circuit_toolkit.circuit_lasso.fit import LassoFit
from circuit_toolkit.circuit_lens import FeatureCircuits
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.descriptions.descriptions import FeatureDescriptions
from circuit_toolkit.interventions.changes import Change
from circuit_toolkit.interventions.generation import generate
from circuit_toolkit.models import Model
from circuit_toolkit.panels.explorer import saving
from circuit_toolkit.panels.explorer.dial import Dial, changes_of, units_of
from circuit_toolkit.panels.explorer.learning import few_sites
from circuit_toolkit.panels.explorer.screen import REGIONS, Screen, feature_of
from circuit_toolkit.panels.explorer.source import Source
from circuit_toolkit.panels.explorer.view import GIVEN, GRAPH, METHODS, View
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

OF_PROMPTS = 60  # nodes of a circuit of many prompts, at first


class Explorer(Screen):
    """One screen for a prompt, its circuit and its nodes; `explore` makes one.

    Attributes
    ----------
    circuit : Circuit
        What is drawn. Assigning another one draws it.
    selected : tuple of str
        Ids of the selected nodes and names of selected supernodes; one text selects one node.
    prompt, answers, method, strength, size, groups
        What the controls show. Assigning redraws; what cannot be raises and changes nothing.
    fit, acts, task
        Once a circuit was learnt the fitted path of strengths, the activations and the prompts.
    card, changes, evidence
        Of the node selected last the card; what the dial does, for `intervene`; and how the
        circuit fared.
    """

    def __init__(
        self,
        model: Model,
        dictionaries: Mapping[Site, Dictionary],
        task: Task | str | None = None,
        n: int = 256,
        estimator: CircuitLasso | None = None,
        descriptions: FeatureDescriptions | None = None,
    ) -> None:
        estimator, own = estimator or CircuitLasso(), task if isinstance(task, Task) else None
        given = (dictionaries, own, n, estimator, descriptions, self._tell)
        super().__init__(Source(model, *given))
        prompt, name = self._source.opening(task if isinstance(task, str) else None)
        sites, positions = few_sites([*self.dictionaries]), estimator.positions
        self.view = View(prompt, task=name, sites=sites, positions=positions)
        if self._source.is_small():
            self._source.gather(self.view)
        self._draw(self.view)

    def __repr__(self) -> str:
        """Return what is shown; the widget holds too much to print."""
        drawn = self.circuit.summary()[:2] if self.circuit else None
        return f"Explorer({self.model!r}, circuit={drawn}, selected={self.selected!r})"

    # ---- what a user reads and sets ----

    @property
    def model(self) -> Model:
        """The model."""
        return self._source.model

    @property
    def dictionaries(self) -> dict[Site, Dictionary]:
        """The dictionaries that circuits of many prompts are learnt on."""
        return self._source.dictionaries

    @property
    def prompt(self) -> str:
        """The prompt; words are matched without regard to capitals where that is needed."""
        return self.view.prompt

    @prompt.setter
    def prompt(self, text: str) -> None:
        expect(text, "prompt", "str")
        self.change(prompt=text, answers=None)

    @property
    def answers(self) -> tuple[str, str]:
        """The answer and the wrong answer, whose difference of logits is the target."""
        return self.reading.answers

    @answers.setter
    def answers(self, words: Sequence[str] | None) -> None:
        if words is not None:
            pair = tuple(words) if isinstance(words, tuple | list) else ()
            if len(pair) != 2 or not all(isinstance(word, str) and word.strip() for word in pair):
                raise InputError(
                    "answers must be the answer and the wrong one, two texts, or None for the two "
                    f"likeliest; got {described(words)}."
                )
            words = pair
        self.change(answers=words)

    @property
    def method(self) -> str:
        """How the circuit is found: `graph`, `randomised`, `observational`, or `given`."""
        return self.view.method

    @method.setter
    def method(self, name: str) -> None:
        one_of(name, "method", *METHODS)
        learns = name != GRAPH
        size = (
            max(self.view.size, OF_PROMPTS) if learns and not self.view.learns else self.view.size
        )
        self.change(method=name, everywhere=learns, size=size)

    @property
    def strength(self) -> float:
        """The regularisation strength that is drawn, one of those that were fitted."""
        return self.view.strength

    @strength.setter
    def strength(self, value: float) -> None:
        self.change(strength=number(value, "strength", 0, 1, open_low=True))

    @property
    def size(self) -> int:
        """Nodes that are drawn at most."""
        return self.view.size

    @size.setter
    def size(self, value: int) -> None:
        self.change(size=whole(value, "size", 1))

    @property
    def groups(self) -> dict[str, list[str]]:
        """Supernodes: their names, and the ids of their nodes."""
        return {name: [*nodes] for name, nodes in self.view.groups.items()}

    @groups.setter
    def groups(self, groups: Mapping[str, Iterable[str]]) -> None:
        expect(groups, "groups", "dict")
        named = {name: tuple(nodes) for name, nodes in groups.items()}
        plain, drawn = replace(self.circuit, groups={}), {*self.circuit.ids()}
        hidden = {node for nodes in self.view.groups.values() for node in nodes} - drawn
        for name, nodes in named.items():
            here = [node for node in nodes if node not in hidden]
            if here or not nodes:
                plain = plain.group(name, here)  # refuses what cannot be
        self.change(groups=named)

    @property
    def fit(self) -> LassoFit | None:
        """The fitted path of strengths; None before a circuit of many prompts was learnt."""
        found = self._source.found(self.view)
        return found.fit if found else None

    @property
    def acts(self) -> Activations | None:
        """The activations that the fit is of, or from which examples are read."""
        found, examples = self._source.found(self.view), self._source.examples
        return found.acts if found else examples and examples[0]

    @property
    def task(self) -> Task | None:
        """The prompts that the fit is of."""
        found = self._source.found(self.view)
        return found.task if found else None

    @property
    def whole(self) -> Circuit | None:
        """The attribution graph before it was cut to a size."""
        return self._source.graph(self.view) if self.view.method == GRAPH else None

    @property
    def evidence(self) -> dict[str, Any]:
        """How the circuit that is drawn fared."""
        return self.circuit.evidence

    @property
    def changes(self) -> list[Change]:
        """What the dial does to the selected features, for `intervene(model, [prompt], ...)`."""
        return changes_of(units_of(self.circuit, self.selected, self.reading), self.dial)

    # ---- what buttons do ----

    def learn(self, method: str = "randomised", task: str | Task | None = None) -> None:
        """Find the circuit of many such prompts: capture them, fit the path, and test it.

        Parameters
        ----------
        method : {"randomised", "observational"}
            Regress on what random ablations change, or on how activations vary together.
        task : str or Task, optional
            One of the menu, or one's own; by default the one that is chosen.
        """
        one_of(method, "method", *[name for name in METHODS if name != GRAPH])
        with self._lock:
            if isinstance(task, Task):
                self._source.tasks[task.name] = task
            elif task is not None:
                expect_known(task, self._source.tasks, f"There is no task {described(task)}")
            name = task.name if isinstance(task, Task) else task or self.view.task
            size = self.view.size if self.view.learns else max(self.view.size, OF_PROMPTS)
            changes: dict[str, Any] = {"method": method, "everywhere": True, "size": size}
            if name != self.view.task or isinstance(task, Task):  # and a prompt that is of it
                first = self._source.prompts(name, n=self._source.n).clean[0]
                changes |= {"task": name, "prompt": first, "answers": None}
            self.change(**changes)
            self.test()

    def test(self) -> None:
        """Test what is drawn by ablation in the running model."""
        with self._lock:
            if self.view.method == GIVEN:
                raise InputError("This circuit was given: test it with evaluate, and assign it.")
            self._source.test(self.view)
            self._draw(self.view)

    def turn(self, how: str = "ablate", value: float = 0.0) -> None:
        """Turn the dial: do something to the selected features, and run the prompt.

        Parameters
        ----------
        how : {"off", "ablate", "scale", "set"}
            Leave them, set them to 0, multiply them, or set them.
        value : float
            From 0 to 4 to scale; in the units of the features to set.
        """
        dial = Dial(how, float(value))  # pyright: ignore[reportArgumentType]
        with self._lock:
            self.dial = dial
            self._show_effect()

    def analyse(self) -> FeatureCircuits:
        """Cluster the activating examples of the feature selected last by circuit (CircuitLens).

        Returns
        -------
        FeatureCircuits
            The card shows it too.

        Raises
        ------
        InputError
            If no feature is selected.
        """
        nodes = dict(zip(self.circuit.ids(), self.circuit.nodes["kind"], strict=True))
        if not self.selected or nodes.get(self.selected[-1]) != "feature":
            raise InputError("No feature is selected: click a node that is one.")
        with self._lock:
            found = self._source.analyse(self.view, *feature_of(self.selected[-1]))
            self._show_node()
        return found

    def steer(self, max_new_tokens: int = 12) -> tuple[str, str]:
        """Let the model go on from the prompt, as it is and with what the dial does.

        Parameters
        ----------
        max_new_tokens : int
            At most so many.

        Returns
        -------
        (str, str)
        """
        if not self.changes:
            raise InputError("Nothing is changed: select features and turn the dial.")
        most, known = whole(max_new_tokens, "max_new_tokens", 1), self._source.known
        given = self.model, self.prompt, self.changes
        said = generate(*given, dictionaries=known, max_new_tokens=most, progress=False)
        return said.before, said.after

    # ---- the session ----

    def save(self, path: str | Path) -> Path:
        """Write the session as JSON: what was chosen, and the circuit with its evidence.

        Parameters
        ----------
        path : str or Path
            `explore(session=path)` restores it.

        Returns
        -------
        Path
        """
        return saving.write_session(path, self.session())

    def session(self) -> saving.Session:
        """Return what a session holds."""
        own = self._source.tasks[self.view.task]
        return saving.Session(
            model=self.model.name,
            dictionaries={str(site): each.name for site, each in self.dictionaries.items()},
            view=self.view,
            task=own if isinstance(own, Task) else None,
            n=self._source.n,
            selected=(*self.selected,),
            dial=self.dial,
            circuit=self.circuit,
        )

    def restore(self, session: saving.Session) -> None:
        """Show what a session holds, with the evidence that it has."""
        view, saved = session.view, session.circuit
        if view.method == GIVEN:
            self.circuit = saved
        else:
            self._draw(view)
            if self.circuit.ids() == saved.ids():
                self._source.remember(self.view, saved)
                self._draw(self.view)
        self.dial = session.dial
        self.selected = session.selected

    def close(self) -> None:
        """Close the panel, and let go of all that it holds."""
        super().close()
        self.unobserve_all()
        self._source.close()
        self._steady.clear()
        self.card = None
        for region in (*REGIONS, "_busy"):  # a notebook's `Out` may hold the panel for long
            setattr(self, region, {})

"""`explore`: open the explorer, on a prompt or on a saved session."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from circuit_toolkit.arguments import expect, whole
from circuit_toolkit.circuit_lasso.estimator import CircuitLasso
from circuit_toolkit.dictionaries import Dictionary, load_dictionaries
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.descriptions.descriptions import FeatureDescriptions
from circuit_toolkit.models import Model, load_model
from circuit_toolkit.panels.explorer import saving
from circuit_toolkit.panels.explorer.explorer import Explorer
from circuit_toolkit.panels.panel import check_objects
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task


def explore(
    model: Model | None = None,
    dictionaries: Mapping[Site, Dictionary] | None = None,
    task: Task | str | None = None,
    *,
    n: int = 256,
    estimator: CircuitLasso | None = None,
    descriptions: FeatureDescriptions | None = None,
    session: str | Path | None = None,
) -> Explorer:
    """Open the explorer: a prompt, the circuit behind what the model says next, and its nodes.

    It opens on one prompt with its attribution graph. From there: type another prompt, turn
    features off and see what the model says, or learn the circuit of many such prompts with
    CircuitLasso and test it.

    Parameters
    ----------
    model : Model
        From `load_model`.
    dictionaries : dict of Site to Dictionary, optional
        From `load_dictionaries`, whose default is the default here. Attribution graphs use the
        transcoders among them, or where there are none those that belong to the model.
    task : Task or str, optional
        A prompt, or one's own prompts, of which the first is shown; by default the bundled tasks
        are in the menu.
    n : int
        Prompts of a bundled task to learn from.
    estimator : CircuitLasso, optional
        Settings of the fit.
    descriptions : FeatureDescriptions, optional
        From `WeightLens`, for names and cards of features.
    session : path, optional
        A file that `explorer.save` wrote: what it shows is shown again. Without a model the one
        that it names is loaded.

    Returns
    -------
    Explorer
        A widget. In the next cell `explorer.circuit` is what is drawn, `explorer.selected` the
        nodes that were clicked, `explorer.changes` what the dial does to them.

    Raises
    ------
    InputError
        If an argument is of the wrong kind, or the model does not know a word of the prompt.
    FileFormatError
        If the session is no session, or damaged.
    """
    found = None if session is None else saving.read_session(session)
    if model is None:
        if found is None:
            raise InputError("explore takes a model: explore(load_model('demo')), or a session.")
        model = load_model(found.model)
    expect(model, "model", "Model")
    if dictionaries is None:
        dictionaries = load_dictionaries(model)
    dictionaries = as_dictionaries(model, dictionaries)
    if task is not None:
        expect(task, "task", "Task", "str")
    check_objects(
        estimator=(estimator, "CircuitLasso"),
        descriptions=(descriptions, "FeatureDescriptions"),
    )
    if found is not None:
        found.check(model, dictionaries)
        task, n = found.task or found.view.prompt, found.n
    made = Explorer(model, dictionaries, task, whole(n, "n", 1), estimator, descriptions)
    if found is not None:
        made.restore(found)
    return made

"""What the explorer writes: its session, and the circuit in the forms that others read."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from circuit_toolkit.arguments import one_of
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import FileFormatError, MismatchError
from circuit_toolkit.files.documents import document, read_document, write_document
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

FORMAT, VERSION = "circuit_toolkit.session", 1
REMEDY = "Pass a file that explorer.save wrote."
FORMS = ("session", "html", "svg", "png", "json", "neuronpedia")
V = TypeVar("V")


def write_session(path: str | Path, content: dict[str, Any]) -> Path:
    """Write a session, whole or not at all."""
    return write_document(path, FORMAT, VERSION, content)


def read_session(path: str | Path) -> dict[str, Any]:
    """Read a session; FileFormatError where it is none."""
    content = read_document(path, FORMAT, VERSION, REMEDY)
    wanted = {"model", "dictionaries", "view", "task", "n", "selected", "dial", "circuit"}
    if missing := wanted - set(content):
        raise FileFormatError(f"{path} has no {', '.join(sorted(missing))}. {REMEDY}")
    return content


def check_session(
    session: Mapping[str, Any], model: Model, dictionaries: Mapping[Site, Dictionary]
) -> None:
    """Refuse a model and dictionaries that the session is not of."""
    if session["model"] != model.name:
        raise MismatchError(
            f"The session is of {session['model']!r}, the model is {model.name!r}. Pass the model "
            "of the session."
        )
    given = {str(site): each.name for site, each in dictionaries.items()}
    if lacking := set(session["dictionaries"].items()) - set(given.items()):
        raise MismatchError(
            f"The session has other dictionaries, such as {sorted(lacking)[0][1]!r} at "
            f"{sorted(lacking)[0][0]}. Pass those of the session."
        )


def view_of(session: Mapping[str, Any], kind: type[V]) -> V:
    """Return the view of a session."""
    given = dict(session["view"])
    given["sites"] = tuple(map(Site.parse, given["sites"]))
    given["groups"] = {name: tuple(nodes) for name, nodes in given["groups"].items()}
    given["pinned"] = tuple(given["pinned"])
    for name in ("answers", "positions"):
        if isinstance(given[name], list):
            given[name] = tuple(given[name])
    return kind(**given)


def content_of_circuit(circuit: Circuit) -> dict[str, Any]:
    """Return a circuit as its file holds it."""
    with tempfile.TemporaryDirectory() as folder:
        return json.loads(circuit.save(Path(folder) / "circuit.json").read_text("utf-8"))


def circuit_of(session: Mapping[str, Any]) -> Circuit:
    """Return the circuit of a session."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "circuit.json"
        path.write_text(json.dumps(session["circuit"]), "utf-8")
        return Circuit.load(path)


def content_of_task(task: Task) -> dict[str, Any]:
    """Return the prompts of a user's own task as a session holds them."""
    return {each.name: getattr(task, each.name) for each in fields(task)}


def task_of(session: Mapping[str, Any]) -> Task | None:
    """Return the user's own task of a session."""
    given = session["task"]
    if given is None:
        return None
    named = {
        name: {k: tuple(v) for k, v in given[name].items()} for name in ("labels", "positions")
    }
    rows = {name: tuple(map(tuple, given[name])) for name in ("answers", "wrong")}
    lists = {name: tuple(given[name]) for name in ("clean", "corrupted", "directions")}
    return Task(**given | named | rows | lists)


def exported(
    circuit: Circuit, form: str, session: dict[str, Any], pinned: Sequence[str]
) -> tuple[str, bytes]:
    """Return the name and the content of a file."""
    one_of(form, "form", *FORMS)
    if form == "session":
        whole = document(FORMAT, VERSION, session)
        return "session.json", json.dumps(whole, indent=1, ensure_ascii=False).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"circuit.{'json' if form == 'neuronpedia' else form}"
        if form == "neuronpedia":
            known = [name for name in pinned if name in circuit.ids()]
            circuit.to_neuronpedia(path, pinned=known or None)
            return "circuit-neuronpedia.json", path.read_bytes()
        write: Any = {
            "html": circuit.to_html,
            "svg": circuit.to_svg,
            "png": circuit.to_png,
            "json": circuit.save,
        }[form]
        write(path)
        return path.name, path.read_bytes()

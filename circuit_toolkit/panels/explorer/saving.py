"""What the explorer writes: its session, and the circuit in the forms that others read."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from circuit_toolkit.arguments import one_of
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.file import document_of, parsed
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import FileFormatError, MismatchError
from circuit_toolkit.files.documents import document, read_document, write_document
from circuit_toolkit.files.schema import closed, record, schema_fault
from circuit_toolkit.models import Model
from circuit_toolkit.panels.explorer.dial import Dial
from circuit_toolkit.panels.explorer.view import GIVEN, METHODS, View
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

FORMAT, VERSION = "circuit_toolkit.session", 1
REMEDY = "Pass a file that explorer.save wrote."
FORMS = ("session", "html", "svg", "png", "json", "neuronpedia")
_TEXT, _TEXTS = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
_NAMES = {"type": "object", "additionalProperties": _TEXT}
_TOKENS = {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}
_TASK = record(
    {
        "name": _TEXT,
        "clean": _TEXTS,
        "corrupted": _TEXTS,
        "answers": _TOKENS,
        "wrong": _TOKENS,
        "labels": {"type": "object", "additionalProperties": _TEXTS},
        "positions": {"type": "object", "additionalProperties": _TOKENS["items"]},
        "directions": _TOKENS["items"],
    }
)
_VIEW = record(
    {
        "prompt": _TEXT,
        "answers": {"type": ["array", "null"], "items": _TEXT, "minItems": 2, "maxItems": 2},
        "method": {"enum": [*METHODS, GIVEN]},
        "task": _TEXT,
        "everywhere": {"type": "boolean"},
        "strength": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "size": {"type": "integer", "minimum": 1},
        "sites": _TEXTS,
        "positions": {"type": ["string", "array"], "items": _TEXT, "minItems": 1},
        "groups": {"type": "object", "additionalProperties": _TEXTS},
        "names": _NAMES,
        "pinned": _TEXTS,
    }
)
_SCHEMA = record(
    {
        "model": _TEXT,
        "dictionaries": _NAMES,
        "view": closed(_VIEW),
        "task": _TASK | {"type": ["object", "null"]},
        "n": {"type": "integer", "minimum": 1},
        "selected": _TEXTS,
        "dial": closed(record({"how": _TEXT, "value": {"type": "number"}})),
        "circuit": {"type": "object"},
    }
)


@dataclass(frozen=True)
class Session:
    """What an explorer showed, and of what."""

    model: str
    dictionaries: Mapping[str, str]
    view: View
    task: Task | None  # of a user's own
    n: int
    selected: tuple[str, ...]
    dial: Dial
    circuit: Circuit

    def check(self, model: Model, dictionaries: Mapping[Site, Dictionary]) -> None:
        """Refuse a model and dictionaries that the session is not of."""
        if self.model != model.name:
            raise MismatchError(
                f"The session is of {self.model!r}, the model is {model.name!r}. Pass the model "
                "of the session."
            )
        given = {str(site): each.name for site, each in dictionaries.items()}
        if lacking := set(self.dictionaries.items()) - set(given.items()):
            raise MismatchError(
                f"The session has other dictionaries, such as {sorted(lacking)[0][1]!r} at "
                f"{sorted(lacking)[0][0]}. Pass those of the session."
            )


def write_session(path: str | Path, session: Session) -> Path:
    """Write a session, whole or not at all."""
    return write_document(path, FORMAT, VERSION, content_of(session))


def read_session(path: str | Path) -> Session:
    """Read a session; FileFormatError where it is none."""
    content = read_document(path, FORMAT, VERSION, REMEDY)
    if wrong := schema_fault(content, _SCHEMA):
        raise FileFormatError(f"{path} is damaged at {wrong}. {REMEDY}")
    circuit = parsed(Circuit, content["circuit"], f"The circuit of {path}")
    try:
        made: dict[str, Any] = {
            "view": _view_of(content["view"]),
            "task": _task_of(content["task"]),
            "selected": tuple(content["selected"]),
            "dial": Dial(**content["dial"]),
            "circuit": circuit,
        }
        return Session(**content | made)
    except (TypeError, ValueError) as error:  # InputError is one
        raise FileFormatError(f"{path} is damaged: {error} {REMEDY}") from error


def content_of(session: Session) -> dict[str, Any]:
    """Return a session as its file holds it."""
    view = session.view.chosen()
    whole = {each.name: getattr(session, each.name) for each in fields(session)}
    return whole | {
        "dictionaries": dict(session.dictionaries),
        "view": view | {"sites": [str(site) for site in view["sites"]]},
        "task": None if session.task is None else content_of_task(session.task),
        "selected": [*session.selected],
        "dial": asdict(session.dial),
        "circuit": document_of(session.circuit),
    }


def _view_of(given: dict[str, Any]) -> View:
    made = dict(given)
    made["sites"] = tuple(map(Site.parse, given["sites"]))
    made["groups"] = {name: tuple(nodes) for name, nodes in given["groups"].items()}
    made["pinned"] = tuple(given["pinned"])
    for name in ("answers", "positions"):
        if isinstance(given[name], list):
            made[name] = tuple(given[name])
    return View(**made)


def content_of_task(task: Task) -> dict[str, Any]:
    """Return the prompts of a user's own task as a session holds them."""
    return {each.name: getattr(task, each.name) for each in fields(task)}


def _task_of(given: dict[str, Any] | None) -> Task | None:
    if given is None:
        return None
    made = dict(given)
    for name in ("labels", "positions"):
        made[name] = {key: tuple(values) for key, values in given[name].items()}
    for name in ("answers", "wrong"):
        made[name] = tuple(map(tuple, given[name]))
    for name in ("clean", "corrupted", "directions"):
        made[name] = tuple(given[name])
    return Task(**made)


def exported(
    circuit: Circuit, form: str, session: Session, pinned: Sequence[str]
) -> tuple[str, bytes]:
    """Return the name and the content of a file."""
    one_of(form, "form", *FORMS)
    if form == "session":
        whole = document(FORMAT, VERSION, content_of(session))
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

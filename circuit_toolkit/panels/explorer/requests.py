"""What the browser may ask of the explorer: by name what is done with a message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from circuit_toolkit.errors import InputError
from circuit_toolkit.panels.explorer import saving
from circuit_toolkit.panels.explorer.learning import pasted_pairs, position_choices
from circuit_toolkit.panels.explorer.reading import understood, unknown_words
from circuit_toolkit.panels.explorer.view import GRAPH

Content = dict[str, Any]
Panel = Any  # an Explorer, which imports this file


def _prompt(panel: Panel, content: Content) -> None:
    text = str(content["text"])
    spelled, _ = understood(panel.model, text)
    if unknown := unknown_words(panel.model, spelled):
        panel.mark_unknown(text, unknown)
        words = ", ".join(f"“{word}”" for word in unknown)
        raise InputError(f"{panel.model.name} does not know {words}: the words in red.")
    panel.prompt = text


def _method(panel: Panel, content: Content) -> None:
    if content["method"] == GRAPH:
        panel.method = GRAPH
    else:
        panel.learn(content["method"], content.get("task"))


def _pairs(panel: Panel, content: Content) -> None:
    task = pasted_pairs(panel.model, str(content["text"]))
    if len(task) > 1:
        panel.learn("randomised", task)
        return
    words = [str(panel.model.tokenizer.decode(each[0][:1])) for each in (task.answers, task.wrong)]
    panel.change(prompt=task.clean[0], answers=tuple(words), method=GRAPH, everywhere=False)


def _select(panel: Panel, content: Content) -> None:
    panel.selected = tuple(content["ids"])
    panel.gather()


def _sites(panel: Panel, content: Content) -> None:
    wanted = {*content["sites"]}
    sites = tuple(site for site in panel.dictionaries if site.short in wanted)
    if not sites:
        raise InputError("Choose at least one site.")
    panel.change(sites=sites)
    _test_fit(panel)


def _positions(panel: Panel, content: Content) -> None:
    panel.change(
        positions=dict(position_choices(panel.task, panel.view.positions))[content["name"]]
    )
    _test_fit(panel)


def _test_fit(panel: Panel) -> None:
    if panel.view.learns:
        panel.test()


def _group(panel: Panel, content: Content) -> None:
    name, taken = str(content["name"]), panel.groups
    panel.groups = {**taken, name: [each for each in content["ids"] if each not in taken]}
    panel.selected = name


def _ungroup(panel: Panel, content: Content) -> None:
    panel.groups = {name: ids for name, ids in panel.groups.items() if name != content["name"]}


def _name(panel: Panel, content: Content) -> None:
    node, text = str(content["id"]), str(content["text"]).strip()
    if node in panel.groups:
        panel.groups = {text if name == node else name: ids for name, ids in panel.groups.items()}
    else:
        panel.change(names={**panel.view.names, node: text})


def _pin(panel: Panel, content: Content) -> None:
    pins, ids = panel.view.pinned, content["ids"]
    added = tuple(each for each in ids if each not in pins)
    panel.change(pinned=pins + added if added else tuple(each for each in pins if each not in ids))


def _save(panel: Panel, content: Content) -> None:
    pins = [*panel.view.pinned]
    name, data = saving.exported(panel.circuit, str(content["form"]), panel.session(), pins)
    panel.send({"file": name}, buffers=[data])


def _set(name: str) -> Callable[[Panel, Content], None]:
    return lambda panel, content: setattr(panel, name, content["value"])


REQUESTS: dict[str, Callable[[Panel, Content], Any]] = {
    "prompt": _prompt,
    "answers": _set("answers"),
    "method": _method,
    "strength": _set("strength"),
    "size": _set("size"),
    "scope": lambda panel, content: panel.change(everywhere=bool(content["value"])),
    "sites": _sites,
    "positions": _positions,
    "pairs": _pairs,
    "select": _select,
    "group": _group,
    "ungroup": _ungroup,
    "name": _name,
    "pin": _pin,
    "dial": lambda panel, content: panel.turn(content["how"], content["value"]),
    "analyse": lambda panel, content: panel.analyse(),
    "steer": lambda panel, content: panel.send({"said": panel.steer()}),
    "test": lambda panel, content: panel.test(),
    "undo": lambda panel, content: panel.undo(),
    "redo": lambda panel, content: panel.redo(),
    "save": _save,
}

"""The table has a row for every public method that runs a model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import circuit_toolkit as ct
from tests.methods.table import METHODS, RUNS_NOTHING


def with_model(name: str, thing: object) -> Iterator[str]:
    """Name a function that takes a model, or the methods of a class that do."""
    if inspect.isclass(thing):
        members = inspect.getmembers(thing, inspect.isroutine)
        for member, function in members:
            if not member.startswith("_") and takes_a_model(function):
                yield f"{name}.{member}"
    elif inspect.isfunction(thing) and takes_a_model(thing):
        yield name


def takes_a_model(function: object) -> bool:
    try:
        return "model" in inspect.signature(function).parameters  # pyright: ignore
    except (TypeError, ValueError):  # a property, or a builtin
        return False


def public() -> Iterator[str]:
    seen: set[int] = set()
    things = [(name, getattr(ct, name)) for name in ct.__all__]
    rooms = [(name, room) for name, room in things if inspect.ismodule(room)]
    inside = [
        (f"{room}.{name}", getattr(module, name))
        for room, module in rooms
        for name in getattr(module, "__all__", ())
    ]
    for name, thing in [*things, *inside]:
        if id(thing) not in seen:
            seen.add(id(thing))
            yield from with_model(name, thing)


def test_every_public_method_that_takes_a_model_has_a_row():
    rows = {method.name for method in METHODS}
    assert len(set(map(str, METHODS))) == len(METHODS) and not rows & RUNS_NOTHING
    missing = set(public()) - rows - RUNS_NOTHING
    assert not missing, f"add a row to tests/methods/table.py: {sorted(missing)}"
    gone = (rows | RUNS_NOTHING) - set(public()) - {"HeadCodes.fit"}
    assert not gone, f"no such public method: {sorted(gone)}"

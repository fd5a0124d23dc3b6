"""Arguments of the wrong kind, refused where a user passes them, with the way out.

Kinds are told by the names of classes, so that nothing is imported for the check.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from circuit_toolkit.errors import InputError

# What an argument should be -> how to come by it.
_REMEDIES = {
    "Model": "Pass what load_model(...) returns",
    "Task": "Pass a task, such as ct.tasks.ioi(model)",
    "Circuit": "Pass a circuit, such as fit.circuit(strength=0.1) or Circuit.load(path)",
    "LassoFit": "Pass what CircuitLasso().fit(...) returns",
    "Activations": "Pass what capture(...) returns",
    "ActivationStore": "Pass what capture(..., store=folder) returns",
    "Dictionary": "Pass what load_dictionaries(model) returns",
    "FeatureDescriptions": "Pass what WeightLens().describe(...) returns",
    "Change": "Make one with ct.zero, ct.put, ct.add, ct.scale or ct.resample",
}


def described(value: Any) -> str:
    """Return a value in a few words, for an error: its class, and a short text or number itself."""
    if isinstance(value, str | int | float | bool | None) and len(repr(value)) <= 60:
        return repr(value)
    name = type(value).__name__
    return f"a {name} of {len(value)}" if isinstance(value, list | tuple | dict) else f"a {name}"


def is_a(value: Any, *kinds: str) -> bool:
    """Return whether a value is of a class of one of these names, or of one derived from it."""
    return any(cls.__name__ in kinds for cls in type(value).__mro__)


def expect(value: Any, name: str, *kinds: str) -> None:
    """Refuse a value that is of none of these classes; the first one says what to pass."""
    if is_a(value, *kinds):
        return
    swapped = " Are the arguments in another order?" if is_a(value, *_REMEDIES) else ""
    raise InputError(
        f"{name} must be a {' or '.join(kinds)}, got {described(value)}.{swapped} "
        f"{_REMEDIES.get(kinds[0], f'Pass a {kinds[0]}')}."
    )


def settings_alone(first: Any, call: str) -> None:
    """Refuse an object of the toolkit where a method's settings stand; `call` is what takes it."""
    if is_a(first, *_REMEDIES) or isinstance(first, Mapping):
        raise InputError(
            f"{call.partition('(')[0]} takes settings alone, got {described(first)}: pass it to "
            f"{call}."
        )


def whole(value: Any, name: str, least: int | None = None) -> int:
    """Return a whole number as int: Python's, numpy's or torch's, also in an array of one."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name} must be a whole number, got {described(value)}.")
    if least is not None and value < least:
        raise InputError(f"{name} must be at least {least}, got {value}.")
    return int(value)


def number(value: Any, name: str, low: float, high: float, *, open_low: bool = False) -> float:
    """Return a finite number in [low, high] as float, or (low, high] with `open_low`."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    given = float(value) if is_number else math.nan
    if not (math.isfinite(given) and low <= given <= high) or (open_low and given == low):
        wanted = f"in {'(' if open_low else '['}{low:g}, {high:g}]"
        if math.isinf(high):
            wanted = "a number" if math.isinf(low) else f"a number, at least {low:g}"
        raise InputError(f"{name} must be {wanted}, got {described(value)}.")
    return given


def one_of(value: Any, name: str, *options: Any) -> None:
    """Refuse a value that is none of some texts, or None among them."""
    if not isinstance(value, str | None) or value not in options:
        known = ", ".join(map(repr, options))
        raise InputError(f"{name} must be one of {known}, got {described(value)}.")


def expect_known(value: Any, known: Iterable[Any], problem: str) -> None:
    """Refuse what is not there; `problem` begins the sentence that ends in what is."""
    there = list(known)
    if value not in there:
        raise InputError(f"{problem}, only {', '.join(map(str, there)) or 'none'}.")


def as_prompts(prompts: Any, name: str = "prompts") -> Any:
    """Return a task as it is, and texts or token ids as a list; refuse what is neither.

    Refused are one text, a table or mapping (its keys would be run), an object of the toolkit that
    is no task, and nothing at all. A column of a table or of a data set is fine.
    """
    if hasattr(prompts, "texts") and hasattr(prompts, "score"):  # a Task, or what acts as one
        return prompts
    if isinstance(prompts, str | bytes | os.PathLike):
        raise InputError(f"{name} must be a list of texts or a task, not one text: write [text].")
    if (keys := _columns(prompts)) is not None:
        path, table = "data", prompts
        while columns := _columns(table):  # a DatasetDict holds tables
            key = next(
                (key for key in ("text", "input_ids", "train") if key in columns), columns[0]
            )
            path, table = f"{path}[{key!r}]", table[key]
        raise InputError(
            f"{name} must be texts or a task, got a {type(prompts).__name__} with "
            f"{', '.join(map(repr, keys[:5])) or 'nothing in it'}. Pass one column of it: {path}."
        )
    is_list = isinstance(prompts, Iterable) and not isinstance(prompts, Mapping)
    if is_a(prompts, *_REMEDIES) or not is_list:
        raise InputError(
            f"{name} must be a task or a list of texts, got {described(prompts)}. Pass a task, "
            "such as ct.tasks.ioi(model), or a list of str or of token ids."
        )
    given = [each.tolist() if hasattr(each, "tolist") else each for each in prompts]
    if not given:
        raise InputError("No prompts were given. Pass a task or a list of texts.")
    for i, each in enumerate(given):
        if not isinstance(each, str | list | tuple) or is_a(each, *_REMEDIES):
            raise InputError(
                f"{name}[{i}] must be a text or a list of token ids, got {described(each)}."
            )
    return given


def _columns(value: Any) -> list[str] | None:
    """Names of the columns of a table, or of a mapping of these; None for what is neither."""
    if isinstance(value, Mapping):
        return [*value] if all(isinstance(key, str) for key in value) else None
    names = getattr(value, "columns", getattr(value, "column_names", None))
    return None if names is None or callable(names) else [str(each) for each in names]

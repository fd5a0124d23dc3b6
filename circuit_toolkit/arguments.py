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


def refuse_surrogates(text: str, name: str) -> None:
    """Refuse a text with half a character in it, which no file and no tokenizer takes."""
    if not text.isascii() and (
        found := [i for i, x in enumerate(text) if "\ud800" <= x < "\ue000"]
    ):
        raise InputError(
            f"{name} holds half a character, {text[found[0]]!r} at {found[0]}: {text!r:.80}. "
            "Replace it: text.encode('utf-8', 'replace').decode()."
        )


def expect_known(value: Any, known: Iterable[Any], problem: str) -> None:
    """Refuse what is not there; `problem` begins the sentence that ends in what is."""
    there = list(known)
    if value not in there:
        raise InputError(f"{problem}, only {', '.join(map(str, there)) or 'none'}.")


def as_prompts(prompts: Any, model: Any = None) -> Any:
    """Return a task as it is, and texts or token ids as a list; refuse what is neither.

    Refused are one text, a table or mapping (its keys would be run), an object of the toolkit that
    is no task, and nothing at all. A column of a table or of a data set is fine. A chat, a list of
    messages, becomes the text that the model's template makes of it.
    """
    if hasattr(prompts, "texts") and hasattr(prompts, "score"):  # a Task, or what acts as one
        return prompts
    if isinstance(prompts, os.PathLike):
        raise InputError(f"prompts must be texts or a task, got {described(prompts)}. {_READ_IT}")
    if isinstance(prompts, str | bytes):
        raise InputError("prompts must be a list of texts or a task, not one text: write [text].")
    if (keys := _columns(prompts)) is not None:
        raise InputError(
            f"prompts must be texts or a task, got a {type(prompts).__name__} with "
            f"{', '.join(map(repr, keys[:5])) or 'nothing in it'}. {_column_of(prompts)}"
        )
    is_list = isinstance(prompts, Iterable) and not isinstance(prompts, Mapping)
    if is_a(prompts, *_REMEDIES) or not is_list:
        raise InputError(
            f"prompts must be a task or a list of texts, got {described(prompts)}. Pass a task, "
            "such as ct.tasks.ioi(model), or a list of str or of token ids."
        )
    given: list[Any] = []
    for each in prompts:
        prompt = each.tolist() if hasattr(each, "tolist") else each
        is_prompt = isinstance(prompt, str | list | tuple) and not is_a(prompt, *_REMEDIES)
        if not is_prompt and not _is_message(prompt):  # at once: a stream may have no end
            raise InputError(
                f"prompts[{len(given)}] must be a text or a list of token ids, got "
                f"{described(prompt)}.{_way_out(prompt)}"
            )
        given.append(prompt)
    if not given:
        raise InputError("No prompts were given. Pass a task or a list of texts.")
    if is_chat(given):  # one conversation
        given = [given]
    if stray := [i for i, each in enumerate(given) if _is_message(each)]:
        raise InputError(
            f"prompts[{stray[0]}] is one message, beside prompts of other kinds. Pass a chat as a "
            "list of messages: [{'role': 'user', 'content': '...'}]."
        )
    if model is None:
        return given
    return [model.chat_text(each) if is_chat(each) else each for each in given]


_READ_IT = "Pass what the file holds, such as path.read_text().splitlines()."


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and {"role", "content"} <= value.keys()


def is_chat(value: Any) -> bool:
    """Return whether a value is a chat: messages, each with `role` and `content`."""
    return isinstance(value, list | tuple) and len(value) > 0 and all(map(_is_message, value))


def _way_out(prompt: Any) -> str:
    """Say what to pass in place of something that is no prompt."""
    if isinstance(prompt, os.PathLike):
        return f" {_READ_IT}"
    if isinstance(prompt, bytes):
        return " Pass text: data.decode()."
    if isinstance(prompt, Integral) and not isinstance(prompt, bool):
        return " One prompt of token ids is a list in a list: [[5, 7, 9]]."
    if (keys := _columns(prompt)) and (key := _likely(keys)):
        return f" Pass one field of each: [row[{key!r}] for row in data]."
    return ""


def _column_of(table: Any) -> str:
    """Say which column of a table, of tables by name, or of what a tokenizer returned to pass."""
    masks = table.get("attention_mask") if isinstance(table, Mapping) else None
    if masks is not None and any(0 in list(mask) for mask in masks if isinstance(mask, Iterable)):
        return "It holds padding, which would be run too: pass the texts themselves."
    path = "data"
    while columns := _columns(table):  # a DatasetDict holds tables
        key = _likely(columns)
        path, table = f"{path}[{key!r}]", table[key]
    return f"Pass one column of it: {path}."


def _likely(columns: list[str]) -> str:
    """Return the column that holds texts, by its name, or the first."""
    return next((key for key in ("text", "input_ids", "train") if key in columns), columns[0])


def _columns(value: Any) -> list[str] | None:
    """Names of the columns of a table, or of a mapping of these; None for what is neither."""
    if isinstance(value, Mapping):
        return [*value] if all(isinstance(key, str) for key in value) else None
    names = getattr(value, "columns", getattr(value, "column_names", None))
    return None if names is None or callable(names) else [str(each) for each in names]

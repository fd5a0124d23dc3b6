"""Edits of sites as plain hooks of torch, on a module that is called by whoever has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from circuit_toolkit.errors import InputError
from circuit_toolkit.models.model import Batch, Model
from circuit_toolkit.models.ports import PLAIN, Edit, Form, Port, at_port, forms
from circuit_toolkit.models.tracing import port_edits
from circuit_toolkit.sites import Site


@contextmanager
def module_hooks(
    model: Model, module: nn.Module, write: Callable[[Batch], Mapping[Site, Edit]]
) -> Iterator[None]:
    """Let every call of a module write at sites; `write` is asked for the tokens of each call."""
    held: list[Any] = []

    takes = signature(module.forward).parameters

    def begin(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        end()  # what a call that failed left
        batch = _batch_of(args, kwargs)
        edits = port_edits(model, write(batch))
        known = forms(model, (batch.ids.shape[0], batch.ids.shape[1]))
        for port, each in edits.items():
            held.append(_at(module, port, at_port(each, batch.ids.device), known.get(port, PLAIN)))
        if "position_ids" in takes and kwargs.get("position_ids") is None:
            # As runs of the toolkit count: the first token after the padding is the first.
            kwargs = {**kwargs, "position_ids": (batch.mask.cumsum(1) - 1).clamp(min=0)}
        return args, kwargs

    def end(*_: Any) -> None:
        while held:
            held.pop().remove()

    outer = [
        module.register_forward_pre_hook(begin, with_kwargs=True),
        module.register_forward_hook(end, always_call=True),
    ]
    try:
        yield
    finally:
        end()
        for each in outer:
            each.remove()


def _batch_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Batch:
    """Return the tokens that a module is called with, padded on the left."""
    ids = kwargs.get("input_ids", args[0] if args else None)
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        raise InputError("With hooks on it, the module wants input_ids of shape (B, T).")
    mask = kwargs.get("attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask
    if mask.shape != ids.shape:
        raise InputError(
            "With hooks on it, the module wants all tokens of a prompt at once: pass "
            "use_cache=False, and an attention_mask of the shape of input_ids."
        )
    if not mask[:, -1].all():
        raise InputError("Prompts must be padded on the left: tokenizer.padding_side = 'left'.")
    return Batch(ids, mask)


def _at(module: nn.Module, port: Port, edit: Edit | None, form: Form) -> Any:
    """Put an edit on one port."""
    path, side = port
    if edit is None or side == "pattern":
        raise InputError("Attention patterns are written in runs of the toolkit alone: intervene.")
    place = module.get_submodule(path) if path else module
    pair, shape, factor = form

    def edited(whole: Any) -> Any:
        value = whole[0] if pair else whole
        value = (value.unflatten(0, shape) if shape else value) * factor
        value = edit(value) / factor
        value = value.flatten(0, 1) if shape else value
        return (value, *whole[1:]) if pair else value

    def of_input(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
        if args:
            return (edited(args[0]), *args[1:]), kwargs
        first = next(iter(kwargs))
        return args, {**kwargs, first: edited(kwargs[first])}

    def of_logits(_: nn.Module, __: tuple, out: Any) -> Any:
        out.logits = edited(out.logits)
        return out

    if side == "input":
        return place.register_forward_pre_hook(of_input, with_kwargs=True)
    if side == "logits":
        return place.register_forward_hook(of_logits)
    return place.register_forward_hook(lambda _, __, out: edited(out))

"""Edits of ports as plain hooks of torch, on a module that is called by whoever has it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from circuit_toolkit.errors import InputError
from circuit_toolkit.models.model import Batch, Model
from circuit_toolkit.models.ports import PLAIN, Edit, Form, Port, at_port, forms, without_groups

WritePorts = Callable[[Batch], Mapping[Port, Sequence[Edit]]]  # from the tokens of a call


@contextmanager
def module_hooks(
    model: Model, module: nn.Module, write: WritePorts, ungrouped_at: Collection[int] = ()
) -> Iterator[None]:
    """Let every call of a module write at ports; `write` is asked for the tokens of each call."""
    held = ExitStack()  # what is undone when a call ends
    asking = False  # `write` may run the module itself, without hooks
    takes = signature(module.forward).parameters

    def begin(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        nonlocal asking
        if asking:
            return args, kwargs
        held.close()  # what a call that failed left
        batch = _batch_of(args, kwargs)
        asking = True
        try:
            edits = write(batch)
        finally:
            asking = False
        known = forms(model, (batch.ids.shape[0], batch.ids.shape[1]))
        held.enter_context(without_groups(model, module, ungrouped_at))
        for port, each in edits.items():
            edit = at_port(each, batch.ids.device)
            held.callback(_at(module, port, edit, known.get(port, PLAIN)).remove)
        if "position_ids" in takes and kwargs.get("position_ids") is None:
            # As runs of the toolkit count: the first token after the padding is the first.
            kwargs = {**kwargs, "position_ids": (batch.mask.cumsum(1) - 1).clamp(min=0)}
        return args, kwargs

    def end(*_: Any) -> None:
        if not asking:
            held.close()

    with held, ExitStack() as outer:
        begun = module.register_forward_pre_hook(begin, with_kwargs=True)
        ended = module.register_forward_hook(end, always_call=True)
        outer.callback(begun.remove)
        outer.callback(ended.remove)
        yield


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

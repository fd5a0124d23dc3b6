"""The one place where a trace is opened: values go in and out of modules through ports.

A port is a raw input or output of a module. A trace walks through ports in the order in which
they are reached and holds nothing but plain reads and the edits that it was given, so that one
without edits can run on another machine.

The model computes in its own type and where its blocks are; what comes out of a port, and what an
edit is given, is of full precision and where the model's inputs are. This is the only place that
goes between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from operator import attrgetter
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

from circuit_toolkit.models.devices import plain
from circuit_toolkit.models.model import Batch, Model
from circuit_toolkit.models.weights import expect_weights, factor_of

Edit = Callable[[Tensor], Tensor]  # an activation -> what replaces it, of the same shape
Port = tuple[str, str]  # path of a module; "input", "output", "pattern" or "logits"
LOGITS_PORT = ("", "logits")
# How a raw value holds the activation: first of a tuple, tokens of (B, T) in one row, without a
# factor that follows outside of modules.
Form = tuple[bool, tuple[int, int] | None, float]
PLAIN: Form = (False, None, 1.0)
ONE_RUN = RLock()  # nnsight traces one model at a time, whichever: runs of other threads wait

# The ports of a block in the order in which they are reached.
_ORDER = [
    ("", "input"),
    ("queries", "output"),
    ("keys", "output"),
    ("values", "output"),
    ("attention", "pattern"),
    ("pattern", "output"),
    ("out_proj", "input"),
    ("out_proj", "output"),
    ("attn_out", "output"),
    ("mlp", "input"),
    ("mlp_norm", "input"),
    ("mlp_norm", "output"),
    ("mlp_out", "output"),
    ("", "output"),
]


@contextmanager
def alone(model: Model) -> Iterator[None]:
    """Let no other thread run a model, and let it drop nothing: modes are put back."""
    with ONE_RUN:
        training = [each for each in model.hf.modules() if each.training]
        try:
            for each in training:
                each.training = False
            yield
        finally:
            for each in training:
                each.training = True


def run_ports(
    model: Model,
    batch: Batch,
    edits: Mapping[Port, Sequence[Edit]],
    keep: Collection[Port],
    *,
    last_logits: bool = False,
    skip: tuple[int, Tensor] | None = None,
    remote: bool | str = False,
    grad: bool = False,
    ungrouped_at: Collection[int] = (),
) -> dict[Port, Any]:
    """Run the model once, editing and keeping what goes through ports.

    In blocks of `ungrouped_at` the edits give attention keys and values of every head.
    """
    if not remote or remote == "local":
        expect_weights(model)
    ports = _in_order(model, {*edits, *keep})
    # Plain lists, since a remote trace sends along all that its body names.
    modules = [attrgetter(path)(model.nn) if path else model.nn for path, _ in ports]
    shapes = forms(model, (batch.ids.shape[0], batch.ids.shape[1]))
    steps = [
        (
            *(module, port[1], number, at_port(edits.get(port, ()), model.device), port in keep),
            *shapes.get(port, PLAIN),
        )
        for number, (module, port) in enumerate(zip(modules, ports, strict=True))
    ]
    stop = bool(keep) and ports[-1] != LOGITS_PORT
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    can = "logits_to_keep" in signature(model.hf.forward).parameters
    options = {"logits_to_keep": 1} if last_logits and can else {}
    skipped = [_skipped(model, layer, skip[1]) for layer in range(skip[0])] if skip else []
    with alone(model), torch.set_grad_enabled(grad), without_groups(model, model.hf, ungrouped_at):
        values = _trace(model.nn, inputs, skipped, steps, stop, remote, options)
        return {
            port: plain(values[number], model.device)
            for number, port in enumerate(ports)
            if number in values
        }


def _skipped(model: Model, layer: int, value: Tensor) -> tuple[Any, Any]:
    """Return a block and what it is to put out without being computed."""
    path, _ = block_port(model, "", "output", layer)
    value = value.to(_device_of(model, path), model.dtype)
    pair = "blocks" in model.architecture.pairs
    return attrgetter(path)(model.nn), (value, None) if pair else value


def _device_of(model: Model, path: str) -> torch.device:
    """Return where a module is."""
    return next(model.hf.get_submodule(path).parameters()).device


def at_port(edits: Sequence[Edit], device: torch.device) -> Edit | None:
    """Let edits see plain values, and put what the last returns back as the model has it."""
    if not edits:
        return None

    def edit(value: Tensor) -> Tensor:
        new = plain(value, device)
        for each in edits:
            new = each(new)
        return new.to(value)

    return edit


@contextmanager
def without_groups(model: Model, module: nn.Module, layers: Collection[int]) -> Iterator[None]:
    """Let attention take keys and values as they come, and repeat none for the heads of a group."""
    found: list[Any] = []
    for layer in layers:
        path = model.architecture.in_block(model.architecture.attention, layer)
        found.append(module.get_submodule(path))
    alone = {"num_key_value_groups": 1, "num_key_value_heads": model.n_heads}
    before = [
        (each, name, getattr(each, name)) for each in found for name in alone if hasattr(each, name)
    ]
    try:
        for each, name, _ in before:
            setattr(each, name, alone[name])
        yield
    finally:
        for each, name, value in before:
            setattr(each, name, value)


def forms(model: Model, shape: tuple[int, int]) -> dict[Port, Form]:
    """Return the ports whose raw value is not the activation, (B, T, D), itself."""
    row = model.architecture
    added = factor_of(model, row.added_factor)
    found: dict[Port, Form] = {
        (row.embed, "output"): (False, None, factor_of(model, row.embed_factor))
    }
    for layer in range(model.n_layers):
        flat = shape if row.flat else None
        found[block_port(model, "attn_out", "output", layer)] = (False, None, added)
        for side in ("input", "output") if row.flat else ():
            found[block_port(model, "mlp_norm", side, layer)] = (False, flat, 1.0)
        pair = "mlp_out" in row.pairs
        found[block_port(model, "mlp_out", "output", layer)] = (pair, flat, added)
        found[block_port(model, "", "output", layer)] = ("blocks" in row.pairs, None, 1.0)
    return found


def _trace(
    nn: Any,
    inputs: dict,
    skipped: list,
    steps: list,
    stop: bool,
    remote: bool | str,
    options: dict[str, Any],
) -> dict[int, Any]:
    """Walk through the ports: get a value, edit it, put it back, keep it."""
    from nnsight import save

    with nn.trace(inputs, remote=remote, **options) as tracer:
        values = save({})
        for module, value in skipped:
            module.skip(value)
        for module, side, number, edit, keep, pair, shape, factor in steps:
            if side == "pattern":
                call = module.source.attention_interface_1  # the call; _0 is the lookup
                heads = call.inputs[0][3]  # values, (B, key-value heads, T, d_head)
                value = call.output[1]
            elif side == "logits":
                value = module.output.logits
            else:
                whole = getattr(module, side)
                value = whole[0] if pair else whole
                value = value.unflatten(0, shape) if shape else value
                value = value if factor == 1 else value * factor
            if edit:
                value = edit(value)
                if side == "pattern":
                    shared = value.shape[1] // heads.shape[1]
                    z = value @ heads.repeat_interleave(shared, dim=1)  # (B, H, T, d_head)
                    call.output = (z.transpose(1, 2).contiguous(), value)
                elif side == "logits":
                    module.output.logits = value
                else:
                    part = value if factor == 1 else value / factor
                    part = part.flatten(0, 1) if shape else part
                    setattr(module, side, (part, *whole[1:]) if pair else part)
            if keep:
                values[number] = value
        if stop:
            tracer.stop()
    return values


def block_port(model: Model, name: str, side: str, layer: int) -> Port:
    """Return a port of a block."""
    row = model.architecture
    return row.in_block(getattr(row, name) if name else "", layer), side


def _in_order(model: Model, ports: set[Port]) -> list[Port]:
    """Sort ports into the order in which a run reaches them."""
    row, layers = model.architecture, range(model.n_layers)
    order = [place for place in _ORDER if not place[0] or getattr(row, place[0]) is not None]
    blocks = [block_port(model, *place, layer) for layer in layers for place in order]
    last = [(row.final_norm, side) for side in ("input", "output")]
    everything = [(row.embed, "output"), *blocks, *last, LOGITS_PORT]
    return [port for port in dict.fromkeys(everything) if port in ports]

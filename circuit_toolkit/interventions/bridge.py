"""Changes, and circuits by themselves, as the hooks that TransformerLens runs with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.arguments import described, is_a
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions.circuit_changes import Ablate
from circuit_toolkit.interventions.writing import What, Writing, writing
from circuit_toolkit.models import Batch, Model
from circuit_toolkit.models.logits import logits_are_changed_late
from circuit_toolkit.models.ports import LOGITS_PORT, PLAIN, Edit, Port, at_port, block_port, forms
from circuit_toolkit.models.wrapped import expect_unprocessed
from circuit_toolkit.tasks import Task

Hook = Callable[[Tensor, Any], Tensor | None]
TOKENS = "embed.hook_in"  # sees the tokens of a call before anything is computed


def bridge_hooks(
    model: Model,
    changes: What,
    bridge: Any,
    *,
    dictionaries: Any = None,
    task: Task | None = None,
    acts: Activations | None = None,
    ablate: Ablate = "others",
) -> list[tuple[str, Hook]]:
    """Return changes or a circuit as hooks of TransformerLens, for `run_with_hooks`.

    Parameters
    ----------
    model : Model
        What `load_model(bridge)` returns.
    changes, dictionaries, task, acts, ablate
        As for `hooked`; a circuit of features or of heads.
    bridge : TransformerBridge
        What will run, not in compatibility mode. It may be called with tokens (B, T) or texts of
        one length, or padded on the left by its tokenizer and with their attention mask; without a
        cache.

    Returns
    -------
    list of (str, callable)
        Names of hooks and functions, as `run_with_hooks(fwd_hooks=...)` takes them; for any number
        of calls.

    Raises
    ------
    InputError
        As `hooked`; or if the bridge has no hook at a site, or the circuit is of edges between
        components, which are ablated at inputs that a bridge has no hooks for.

    Examples
    --------
    With a `bridge` of `TransformerBridge.boot_transformers("gpt2")`:

    >>> model = ct.load_model(bridge)  # doctest: +SKIP
    >>> hooks = bridge_hooks(model, circuit, bridge, task=task)  # doctest: +SKIP
    >>> logits = bridge.run_with_hooks(task.clean[0], fwd_hooks=hooks)  # doctest: +SKIP
    """
    if not is_a(bridge, "TransformerBridge"):
        raise InputError(
            f"bridge must be a TransformerBridge of TransformerLens, got {described(bridge)}. For "
            "a module of transformers call hooked."
        )
    expect_unprocessed(bridge)
    write = writing(model, changes, dictionaries, task, acts, ablate)
    if write.edges is not None:
        raise InputError(
            "A circuit of edges gives every component an input of its own, for which a bridge has "
            "no hooks: hooked(model, circuit, task=task) computes with it in a module of "
            "transformers, such as model.hf."
        )
    if LOGITS_PORT in write.ports() and logits_are_changed_late(model):
        raise InputError(
            f"{model.name} caps or scales logits behind the last hook of a bridge, so that they "
            "cannot be written there: hooked(model, changes) does it in a module of transformers."
        )
    names = {port: _name_of(model, port) for port in write.ports()}
    missing = [name for name in (TOKENS, *names.values()) if name not in bridge.hook_dict]
    if missing:  # run_with_hooks would pass over it in silence
        raise InputError(
            f"This bridge has no hook {missing[0]}, at which the changes write. hooked(model, "
            "changes) computes with them in a module of transformers, such as model.hf."
        )
    call = _Call(write)
    return [(TOKENS, call.begin), *((name, call.at(port)) for port, name in names.items())]


def _name_of(model: Model, port: Port) -> str:
    """Return TransformerLens's name of a port."""
    row = model.architecture
    first, second = "attn.o", "mlp"  # what attention and MLP add to the stream comes out of these
    if row.attn_out != row.out_proj:  # norms stand behind them, alone (OLMo-2) or with others
        first, second = ("ln1", "ln2") if row.mlp_norm is None else ("ln1_post", "ln2_post")
    inside = {
        ("", "input"): "hook_in",
        ("attention", "pattern"): "attn.hook_pattern",
        ("pattern", "output"): "attn.hook_pattern",
        ("out_proj", "input"): "attn.o.hook_in",
        ("attn_out", "output"): f"{first}.hook_out",
        ("out_proj", "output"): "attn.o.hook_out",
        ("mlp", "input"): "mlp.hook_in",
        ("mlp_norm", "input"): "ln2.hook_in",
        ("mlp_norm", "output"): "ln2.hook_out",
        ("mlp_out", "output"): f"{second}.hook_out",
        ("", "output"): "hook_out",
    }
    names = {LOGITS_PORT: "unembed.hook_out", (row.embed, "output"): "embed.hook_out"}
    for layer in range(model.n_layers):
        for (role, side), name in inside.items():
            if not role or getattr(row, role) is not None:
                names[block_port(model, role, side, layer)] = f"blocks.{layer}.{name}"
    return names[port]


class _Call:
    """What the hooks of one call hand on: the first sees the tokens, the others write."""

    def __init__(self, write: Writing):
        self.write = write
        self.edits: dict[Port, Edit] = {}

    def begin(self, ids: Tensor, hook: Any) -> None:
        """Take the tokens of a call."""
        model = self.write.model
        batch = _batch_of(model, ids)
        known = forms(model, (ids.shape[0], ids.shape[1]))
        for port, each in self.write(batch).items():
            edit = at_port(each, ids.device)
            assert edit is not None
            self.edits[port] = _scaled(edit, known.get(port, PLAIN)[2])

    def at(self, port: Port) -> Hook:
        """Return the hook of a port."""
        heads = port in {
            block_port(self.write.model, "out_proj", "input", layer)
            for layer in range(self.write.model.n_layers)
        }

        def edited(value: Tensor, hook: Any) -> Tensor:
            edit = self.edits[port]
            if heads:  # (B, T, H, d_head) there
                return edit(value.flatten(2)).view_as(value)
            return edit(value)

        return edited


def _scaled(edit: Edit, factor: float) -> Edit:
    return edit if factor == 1 else lambda x: edit(x * factor) / factor


def _batch_of(model: Model, ids: Tensor) -> Batch:
    """Return tokens with the mask of their padding, which stands on the left."""
    padding: Any = model.tokenizer.pad_token_id
    if padding is None:
        return Batch(ids, torch.ones_like(ids))
    real = ids.ne(padding).long().cumsum(1) > 0
    if padding == model.bos_id:  # the last of a run of these begins the text
        first = real.float().argmax(1)
        rows = torch.arange(len(ids), device=ids.device)
        real[rows, (first - 1).clamp(min=0)] = True
    if ids[:, -1].eq(padding).any():
        raise InputError("Prompts must be padded on the left: tokenizer.padding_side = 'left'.")
    return Batch(ids, real.long())

"""Changes, and circuits by themselves, as plain hooks of torch on a module that others run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.arguments import described
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions.circuit_changes import Ablate
from circuit_toolkit.interventions.writing import What, writing
from circuit_toolkit.models import Model
from circuit_toolkit.models.module_hooks import module_hooks
from circuit_toolkit.models.weights import expect_weights
from circuit_toolkit.models.wrapped import bridges_in
from circuit_toolkit.tasks import Task


@contextmanager
def hooked(
    model: Model,
    changes: What,
    module: nn.Module | None = None,
    *,
    dictionaries: Any = None,
    task: Task | None = None,
    acts: Activations | None = None,
    ablate: Ablate = "others",
) -> Iterator[nn.Module]:
    """Put changes or a circuit as hooks of torch on a module of transformers, for your own code.

    Inside, every call of the module computes with the changes, as `intervene` does, or with a
    circuit alone, as `evaluate` does: of a circuit of heads or of edges between components all
    others carry what they have on the corrupted prompts of `task`; of one of features, or of
    heads where `acts` are passed, all others are set to the means of `acts`.

    Parameters
    ----------
    model, dictionaries
        As for `intervene`.
    changes : Circuit, Change or sequence of Change
        What the module is to compute with.
    module : torch.nn.Module, optional
        A module of transformers of the layout of the model, called with `input_ids` of shape
        (B, T), padded on the left, and their `attention_mask`; all of a prompt at once, without a
        cache. Where no `position_ids` are passed, they count from the first token after the
        padding. By default that of the model.
    task : Task, optional
        Where something is resampled or a position is named: its clean prompts are what may be
        called, in any order, with or without the beginning-of-sequence token. They are known by
        their tokens.
    acts : Activations, optional
        Where the means of a circuit's features come from, of `capture(model, dictionaries, task)`;
        or of heads, `capture(model, "head_out", task)`.
    ablate : {"others", "circuit"}
        Of a circuit, what is ablated: everything but it, or it alone.

    Yields
    ------
    torch.nn.Module
        The module.

    Raises
    ------
    InputError
        If a change fits neither model nor dictionaries, what is resampled has no task or a call is
        of other prompts; TransformerLens's bridge is around the module (`bridge_hooks`); or the
        module is called otherwise.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> model = ct.load_model("demo")
    >>> inputs = model.tokenizer(["the boys near the cabinet"], return_tensors="pt")
    >>> with hooked(model, ct.zero("attn_out 0")) as module:
    ...     module(**inputs).logits.shape[0]
    1
    """
    if module is None:
        expect_weights(model)
        module = model.hf
    if not isinstance(module, nn.Module) or bridges_in(module):
        raise InputError(
            f"module must be a module of transformers, got {described(module)}. Of another tool's "
            "model pass what is inside; of TransformerLens's bridge, load_model(bridge).hf, or "
            "call bridge_hooks."
        )
    write = writing(model, changes, dictionaries, task, acts, ablate)
    with module_hooks(model, module, write, write.ungrouped_at):
        yield module

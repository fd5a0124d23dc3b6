"""Changes as plain hooks of torch, on a module that code of others runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from circuit_toolkit.arguments import described
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions.changes import Change
from circuit_toolkit.interventions.runs import intervened
from circuit_toolkit.models import Model
from circuit_toolkit.models.module_hooks import module_hooks
from circuit_toolkit.models.wrapped import bridges_in


@contextmanager
def hooked(
    model: Model,
    changes: Change | Iterable[Change],
    module: nn.Module | None = None,
    *,
    dictionaries: Any = None,
) -> Iterator[nn.Module]:
    """Put changes as hooks of torch on a module of transformers, for code of your own.

    Inside, every call of the module computes with the changes, as `intervene` does. A circuit of
    features by itself is `hooked(model, mean_ablation(acts, circuit.features(), complement=True),
    module, dictionaries=saes)`: the ablation that `evaluate` measures with the same `acts`.

    Parameters
    ----------
    model, dictionaries
        As for `intervene`.
    changes : Change or sequence of Change
        At positions that need no task; none resamples.
    module : torch.nn.Module, optional
        A module of transformers of the layout of the model, called with `input_ids` of shape
        (B, T), padded on the left, and their `attention_mask`; all of a prompt at once, without a
        cache. Where no `position_ids` are passed, they count from the first token after the
        padding. By default that of the model.

    Yields
    ------
    torch.nn.Module
        The module.

    Raises
    ------
    InputError
        If a change fits neither model nor dictionaries, or resamples; TransformerLens's bridge is
        around the module; or the module is called otherwise.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> model = ct.load_model("demo")
    >>> inputs = model.tokenizer(["the boys near the cabinet"], return_tensors="pt")
    >>> with hooked(model, ct.zero("attn_out 0")) as module:
    ...     module(**inputs).logits.shape[0]
    1
    """
    module = model.hf if module is None else module
    if not isinstance(module, nn.Module) or bridges_in(module):
        raise InputError(
            f"module must be a module of transformers, got {described(module)}. Of another tool's "
            "model pass what is inside; of TransformerLens's bridge, load_model(bridge).hf."
        )
    with intervened(model, changes, dictionaries=dictionaries) as changed:
        assert changed.edits is not None
        with module_hooks(model, module, changed.edits):
            yield module

"""Models of other tools, taken out of what these put around a module of transformers."""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
from torch import nn

from circuit_toolkit.arguments import is_a
from circuit_toolkit.errors import InputError

_PROCESSED = (
    "computes with processed weights. Load the model it was made from: load_model({name!r}); "
    "dictionaries that were trained on it are corrected for what was processed."
)


def unwrapped(given: Any, tokenizer: Any = None) -> tuple[Any, Any]:
    """Return the module inside a model of another tool, and the tokenizer that it carries.

    TransformerLens's bridge and nnsight's models hold a module; of a model with an adapter a copy
    is merged. Whatever else is given comes back as it is.
    """
    if is_a(given, "Envoy"):  # nnsight's LanguageModel and its like
        module = given._module
        if isinstance(module, nn.Module) and any(each.is_meta for each in module.parameters()):
            raise InputError(
                "This model of nnsight has no weights yet. Make it with dispatch=True, or pass its "
                "name: load_model(name)."
            )
        return unwrapped(module, tokenizer or getattr(given, "tokenizer", None))
    if is_a(given, "TransformerBridge"):
        expect_unprocessed(given)
        return unwrapped(given.original_model, tokenizer or given.tokenizer)
    if hasattr(given, "cfg") and hasattr(given, "W_E"):
        name = given.cfg.model_name
        raise InputError(f"A HookedTransformer {_PROCESSED.format(name=name)}")
    if is_a(given, "PeftModel"):
        if not hasattr(given, "merge_and_unload"):
            raise InputError(
                "This adapter cannot be merged into the weights, so its model is none of a known "
                "family. Pass the model beneath it: module.get_base_model()."
            )
        return copy.deepcopy(given).merge_and_unload(), tokenizer
    return given, tokenizer


def expect_unprocessed(bridge: Any) -> None:
    """Refuse a bridge of TransformerLens that computes with other weights than its module."""
    if bridge.compatibility_mode:
        name = bridge.cfg.model_name
        raise InputError(f"A bridge in compatibility mode {_PROCESSED.format(name=name)}")


def bridges_in(module: nn.Module) -> list[Any]:
    """Return the components that TransformerLens's bridge put into a module, the inner ones first.

    They stay in the module that it was booted on, also where one goes on with that module alone;
    each holds what it replaced as `original_component`.
    """
    return [each for each in reversed([*module.modules()]) if is_a(each, "GeneralizedComponent")]


def check_same_logits(module: Any, copied: Any, name: str) -> None:
    """Refuse a bridge that computes with other weights than those of what it replaced."""
    training = [each for each in module.modules() if each.training]
    ids = torch.arange(3, device=next(module.parameters()).device)[None]
    try:
        with torch.no_grad():
            expected, found = module.eval()(ids).logits, copied.eval()(ids).logits
    finally:
        for each in training:
            each.training = True
    off, size = (found - expected).abs().max(), expected.abs().max()
    if not off <= 64 * torch.finfo(found.dtype).eps * size:  # two kernels of attention round so
        raise InputError(f"The bridge around this module {_PROCESSED.format(name=name)}")


def load_beartype() -> None:
    """Import beartype, which sae_lens needs, also after nnsight.

    nnsight puts `.save` on every object, and beartype, when it is first imported, fails at that.
    """
    if "beartype" in sys.modules or "save" not in object.__dict__:
        import beartype  # noqa: F401

        return
    from nnsight import save
    from nnsight._c import mount, unmount

    unmount("save")  # pyright: ignore[reportOptionalCall]  # it is there: it put `save` there
    try:
        import beartype  # noqa: F401
    finally:
        mount(save, "save")  # pyright: ignore[reportOptionalCall]

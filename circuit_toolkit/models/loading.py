"""Load a language model: the bundled one, a folder, a name of the hub, or a module."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from circuit_toolkit.arguments import described
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.models.architectures import Architecture, architecture_of
from circuit_toolkit.models.model import Model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEMO_FOLDER = Path(__file__).parents[1] / "demo" / "model"


def load_model(
    name: str | os.PathLike | PreTrainedModel = "demo",
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    architecture: Architecture | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    device_map: str | dict | None = None,
    remote: bool = False,
) -> Model:
    """Load a language model.

    Parameters
    ----------
    name : str, path or PreTrainedModel
        `demo` for the model that ships with the package, a folder or a name of the Hugging Face
        hub, or a module that is already loaded.
    tokenizer : PreTrainedTokenizerBase, optional
        Needed with a module; otherwise read from where the model comes from.
    architecture : Architecture, optional
        Layout of a family that the toolkit does not know.
    device : str or torch.device
        Where to put it.
    dtype : torch.dtype
        Precision of the weights of what is loaded by name. Features are float32 in any case.
    device_map : str or dict, optional
        How accelerate spreads a model over devices, such as `"auto"`; `device` is not used then.
    remote : bool
        Fetch the layout and the tokenizer only: the weights stay on NDIF, for
        `capture(..., remote=True)`.

    Returns
    -------
    Model

    Raises
    ------
    InputError
        If there is no such folder or model, or its family is unknown.
    MismatchError
        If tokenizer and model do not belong together, or a path of the layout does not exist.
    """
    import beartype  # noqa: F401  # before nnsight, which puts .save on every object: else it fails
    from nnsight import TransformersModel

    if tokenizer is not None and not hasattr(tokenizer, "pad_token"):
        raise InputError(
            f"tokenizer must be one of transformers, got {described(tokenizer)}. Other settings go "
            "by name: load_model(name, device='cuda')."
        )
    module: Any  # transformers wraps `to` in a way that type checkers misread
    wrapped: Any = None
    kept: Any = tokenizer
    if isinstance(name, (str, os.PathLike)):
        label = os.fspath(name)
        source = str(DEMO_FOLDER if name == "demo" else resolved(name))
        kept = kept or _loaded(source, "AutoTokenizer")
        if remote:
            wrapped = _layout(source, kept)
            module = wrapped._module
        else:
            module = _loaded(source, "AutoModelForCausalLM", dtype=dtype, device_map=device_map)
    elif not hasattr(name, "config") or not hasattr(name, "get_submodule"):
        raise InputError(
            f"name must be a name or folder of a model, or a module of transformers with its "
            f"tokenizer, got {described(name)}. What load_model returned is loaded already."
        )
    else:
        module, label = name, getattr(name.config, "_name_or_path", "") or type(name).__name__
        if kept is None:
            raise InputError("A module needs its tokenizer: load_model(module, tokenizer).")
        if remote:
            raise InputError("remote=True wants the name of a model that NDIF hosts, no module.")
    if wrapped is None:
        module = module.eval().requires_grad_(False)
        if not hasattr(module, "hf_device_map"):
            module = module.to(device)
        wrapped = TransformersModel(module, tokenizer=_prepared(kept), task="text-generation")
    if len(kept) > module.config.vocab_size:
        raise MismatchError(
            f"The tokenizer has {len(kept)} tokens, the model {module.config.vocab_size}. "
            "Load both from the same place."
        )
    architecture = architecture or architecture_of(module.config.model_type)
    _check_paths(module, architecture)
    return Model(wrapped, label, architecture)


def _prepared(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def _loaded(source: str, what: str, **options: Any) -> Any:
    """Read module or tokenizer, without a progress bar where nothing is downloaded."""
    import transformers
    from transformers.utils import logging

    quiet = os.path.isdir(source) and logging.is_progress_bar_enabled()
    if quiet:
        logging.disable_progress_bar()
    try:
        return getattr(transformers, what).from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        raise InputError(
            f"No model could be loaded from {source!r}. Pass 'demo', a folder with "
            "config.json and weights, or a name of the Hugging Face hub (which needs the "
            f"network). Cause: {error}"
        ) from error
    finally:
        if quiet:
            logging.enable_progress_bar()


def _layout(source: str, tokenizer: PreTrainedTokenizerBase) -> Any:
    """Build a model without weights, which nnsight knows by the name that NDIF knows."""
    from nnsight import TransformersModel

    try:
        return TransformersModel(source, tokenizer=_prepared(tokenizer), task="text-generation")
    except (OSError, ValueError) as error:
        raise InputError(f"No layout could be read of {source!r}. Cause: {error}") from error


def _check_paths(module: torch.nn.Module, row: Architecture) -> None:
    """Name the first path of the layout that the module lacks."""
    settings = {"value_rows", "layer_norm", "norm_offset", "parallel"}
    paths = [each.name for each in fields(row) if each.name not in settings]
    whole = {name: getattr(row, name) for name in ("blocks", "embed", "final_norm")}
    inside = {name: row.in_block(getattr(row, name), 0) for name in paths if name not in whole}
    for name, path in {**whole, **inside}.items():
        try:
            module.get_submodule(path)
        except AttributeError as error:
            raise MismatchError(
                f"The layout puts {name} at {path!r}, which {type(module).__name__} does not "
                "have. Pass a fitting architecture=Architecture(...)."
            ) from error
    if row.parallel is not None and not hasattr(module.config, row.parallel):
        raise MismatchError(
            f"The layout says that {row.parallel!r} in the configuration tells whether blocks are "
            f"parallel, but {type(module.config).__name__} has no such entry."
        )

"""Load a language model: the bundled one, a folder, a file, a name of the hub, or a module."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

from circuit_toolkit.arguments import described
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.architectures import Architecture, architecture_of
from circuit_toolkit.models.devices import best_device
from circuit_toolkit.models.load_checks import (
    check_beginning,
    check_finite,
    check_linear_maps,
    check_paths,
    check_unpacked,
    check_vocabulary,
)
from circuit_toolkit.models.model import Model
from circuit_toolkit.models.sources import (
    from_name,
    given_module,
    label_of,
    layout_of,
    prepared,
    tokenizer_copy,
)
from circuit_toolkit.models.wrapped import load_beartype, unwrapped

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_model(
    name: str | os.PathLike | PreTrainedModel = "demo",
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    architecture: Architecture | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    device_map: str | dict | None = None,
    remote: bool = False,
    gguf_file: str | None = None,
    **options: Any,
) -> Model:
    """Load a language model.

    Parameters
    ----------
    name : str, path or PreTrainedModel
        `demo` for the model that ships with the package; `smollm2` or `gemma3-270m` for a real one
        from a package that is installed, or from the hub; a folder, a GGUF file, the folder of an
        adapter (with `peft` installed; it is merged), a name of the Hugging Face hub; or a module
        that is already loaded, also inside TransformerLens's `TransformerBridge`, a `LanguageModel`
        of nnsight, or with an adapter of PEFT, of which a copy is merged. The toolkit works on a
        copy of a module that shares its weights: the module keeps its mode, its gradients and its
        device, and its tokenizer its padding.
    tokenizer : PreTrainedTokenizerBase, optional
        Needed with a module, unless what is around it carries one; otherwise read from where the
        model comes from.
    architecture : Architecture, optional
        Layout of a family that the toolkit does not know.
    device : str or torch.device
        Where to put it; `"auto"` for CUDA, else MPS, else the CPU: the model's repr says which.
    dtype : torch.dtype
        Precision of the weights of what is loaded by name. Features are float32 in any case.
    device_map : str or dict, optional
        How accelerate spreads a model over devices, such as `"auto"`; `device` is not used then.
    remote : bool
        Fetch the layout and the tokenizer only: the weights stay on NDIF, for
        `capture(..., remote=True)`.
    gguf_file : str, optional
        Name of a GGUF file in the folder, or in the repository of the hub. Such a file is
        converted once, into float32, and kept in the cache (`$CIRCUIT_TOOLKIT_CACHE`, else
        `~/.cache/circuit_toolkit`).
    **options
        Whatever else `from_pretrained` of transformers takes: `revision`, `attn_implementation`,
        `token`, ...

    Returns
    -------
    Model

    Raises
    ------
    InputError
        If there is no such folder, file or model, its family is unknown, an option is, a weight is
        not finite, or weights are quantised or carry an adapter that is not merged: such modules
        compute something else than their weight says.
    FileFormatError
        If a file of a folder is damaged, holds a pickle or lacks weights; it is named.
    MismatchError
        If a path of the layout does not exist in the model.

    Warns
    -----
    UserWarning
        If the family was trained with a beginning-of-sequence token that the tokenizer leaves out.
    """
    load_beartype()  # before nnsight
    from nnsight import TransformersModel

    if tokenizer is not None and not hasattr(tokenizer, "pad_token"):
        raise InputError(
            f"tokenizer must be one of transformers, got {described(tokenizer)}. Other settings go "
            "by name: load_model(name, device='cuda')."
        )
    module: Any  # transformers wraps `to` in a way that type checkers misread
    wrapped: Any = None
    kept: Any = None if tokenizer is None else tokenizer_copy(tokenizer)
    if isinstance(name, (str, os.PathLike)):
        source = os.fspath(name)
        label = label_of(source)
        options |= {"dtype": dtype, "device_map": device_map, "gguf_file": gguf_file}
        module, kept = (layout_of if remote else from_name)(source, kept, options)
        if remote:
            wrapped, module = module, module._module
    else:
        options |= {"device_map": device_map, "gguf_file": gguf_file}
        inside, carried = unwrapped(name, tokenizer)
        kept = kept or (None if carried is None else tokenizer_copy(carried))
        module, label = given_module(inside, remote, options)
        if kept is None:
            raise InputError("A module needs its tokenizer: load_model(module, tokenizer).")
    architecture = architecture or architecture_of(module.config.model_type)
    check_paths(module, architecture)
    check_vocabulary(module, architecture, kept)
    if wrapped is None:
        check_unpacked(module, architecture, label)
    if device == "auto":
        device = best_device()
    if wrapped is None:
        module = module.eval().requires_grad_(False)
        place = {}  # without one, nnsight's pipeline moves a model to the first accelerator
        if not hasattr(module, "hf_device_map"):
            module = module.to(device)
            place["device"] = module.device
        check_finite(module, label)
        if head := module.get_output_embeddings():
            head.register_forward_pre_hook(_contiguous)
        given = {"tokenizer": prepared(kept), "task": "text-generation", **place}
        wrapped = TransformersModel(module, **given)
    model = Model(wrapped, label, architecture)
    if not remote:
        check_linear_maps(model)
    check_beginning(model)
    return model


def _contiguous(_: torch.nn.Module, args: tuple) -> tuple:
    """Lay out what the unembedding reads.

    Rows of the last token alone are strided, for which torch's product in bfloat16 on a CPU takes a
    hundred times as long (2.13: 1.66 s in place of .01 s for 8 prompts of SmolLM2).
    """
    return (args[0].contiguous(), *args[1:])

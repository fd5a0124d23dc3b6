"""What is checked when a model is loaded: its layout, its weights, how its prompts begin."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.models.architectures import Architecture
from circuit_toolkit.models.devices import plain
from circuit_toolkit.models.model import Model
from circuit_toolkit.models.weights import in_block, linear_map

# How far a map may be from weight and bias, as a share of the largest output, in units of the
# precision of the weights: rounding grows with the root of the number of inputs.
ROUNDING = 64.0


def check_paths(module: Any, row: Architecture) -> None:
    """Name the first path of the layout that the module lacks."""
    for entry, wanted, otherwise in row.needs:
        if getattr(module.config, entry, wanted) != wanted:
            raise InputError(
                f"{type(module).__name__} with {entry} other than {wanted!r} is not supported: "
                f"{otherwise}. Use another model of the family."
            )
    settings = {"value_rows", "layer_norm", "norm_offset", "parallel", "bos", "sinks", "pairs"}
    settings |= {"flat", "embed_factor", "added_factor", "logit_divisor", "needs"}
    paths = [each.name for each in fields(row) if each.name not in settings]
    paths = [name for name in paths if getattr(row, name) is not None]
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


def check_vocabulary(module: Any, row: Architecture, tokenizer: Any) -> None:
    """Refuse a tokenizer with words that the model lacks; tokens added to it may lack a row.

    Gemma-3's has one for pictures that the text model lacks, and whoever adds one to pad with has
    the same: only a prompt that holds such a token is refused.
    """
    size, added = module.config.get_text_config().vocab_size, len(tokenizer.get_added_vocab())
    for table in (module.get_submodule(row.embed), module.get_output_embeddings()):
        rows = getattr(getattr(table, "weight", None), "shape", (size,))[0]
        if rows < size:
            raise MismatchError(
                f"The configuration speaks of {size} tokens, {type(table).__name__} has {rows} "
                "rows. Load weights and config.json from the same place."
            )
    if len(tokenizer) - added > size:
        raise MismatchError(
            f"The tokenizer has {len(tokenizer)} tokens, the model {size}. Load both from the same "
            "place."
        )


def check_finite(module: nn.Module, name: str) -> None:
    """Name the first weight that holds NaN or infinity."""
    for path, weight in module.named_parameters():
        if not weight.is_floating_point() or weight.is_meta:
            continue
        # A sum is quick, and not finite where one of its terms is not.
        if not weight.sum(dtype=torch.float32).isfinite() and not weight.isfinite().all():
            bad = int((~weight.isfinite()).sum())
            raise InputError(
                f"{path} of {name} holds NaN or infinity in {bad} of {weight.numel()} places. "
                "Load intact weights: nothing that it computes would be a number."
            )


def check_unpacked(module: Any, row: Architecture, name: str) -> None:
    """Refuse packed weights where weights are read: maps of attention, embedding, unembedding.

    Before anything is done to the module: quantised ones do not even move as others do.
    """
    layers = range(module.config.get_text_config().num_hidden_layers)
    paths = [row.in_block(path, layer) for layer in layers for path in _maps(row)]
    maps = {path: module.get_submodule(path) for path in [row.embed, *paths]}
    if (head := module.get_output_embeddings()) is not None:
        maps["the unembedding"] = head
    for path, each in maps.items():
        weight = getattr(each, "weight", None)
        if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.ndim != 2:
            raise InputError(_wrapped(name, each, path))


def _maps(row: Architecture) -> list[str]:
    """Paths of the linear maps of attention in a block."""
    return sorted({row.queries, row.keys, row.values, row.out_proj})


def check_linear_maps(model: Model) -> None:
    """Refuse maps of attention that do not compute what their weight and bias say.

    An adapter adds to what the weight beneath it computes: read as it stands, every decomposition
    into heads would be off without a word.
    """
    row, seen = model.architecture, dict[tuple[int, str], tuple[Tensor, Tensor]]()
    paths = [(layer, path) for layer in range(model.n_layers) for path in _maps(row)]
    hooks = [
        in_block(model, path, layer).register_forward_hook(
            lambda _, args, out, at=(layer, path): seen.update({at: (args[0], out)})
        )
        for layer, path in paths
    ]
    first = model.tokenizer.all_special_ids or [0]
    ids = torch.tensor([[min(first[0], model.d_vocab - 1), 0, model.d_vocab - 1]])
    try:
        with torch.no_grad():
            model.hf(ids.to(model.device))
    finally:
        for hook in hooks:
            hook.remove()
    for (layer, path), (x, y) in sorted(seen.items()):
        module = in_block(model, path, layer)
        matrix, bias = linear_map(model, module)
        eps, x, y = torch.finfo(y.dtype).eps, plain(x, model.device), plain(y, model.device)
        off = (x @ matrix + bias - y).abs().max()
        size = y.abs().max() + x.abs().max() * matrix.abs().max()
        if not off <= ROUNDING * eps * size:
            raise InputError(_wrapped(model.name, module, row.in_block(path, layer)))


def check_beginning(model: Model) -> None:
    """Warn where a family wants a token to begin with and the tokenizer leaves it out."""
    if not model.architecture.bos:
        return
    ids: Any = model.tokenizer("a", verbose=False)["input_ids"]
    if ids[:1] != [model.bos_id]:
        warnings.warn(
            f"{model.name} was trained with {model.tokenizer.bos_token!r} at the beginning, which "
            "its tokenizer leaves out: it says other things without. Set "
            "tokenizer.add_bos_token = True and pass it: load_model(..., tokenizer).",
            stacklevel=3,
        )


def _wrapped(name: str, module: nn.Module, path: str) -> str:
    return (
        f"{path} of {name} is a {type(module).__name__} "
        "that computes something else than its weight and bias say: it is quantised, or carries "
        "an adapter. Load it dequantised (module.dequantize()), or merge the adapter "
        "(module.merge_and_unload())."
    )

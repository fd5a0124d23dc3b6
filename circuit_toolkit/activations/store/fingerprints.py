"""What activations depend on, so that they are gone on with for the same inputs only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from circuit_toolkit.activations.capture_plan import CapturePlan
from circuit_toolkit.dictionaries import Coordinates, Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model

_LABELS = ("_name_or_path", "name_or_path", "transformers_version")  # say where from, not what
_OF_USE = ("device", "dtype", "metadata")  # in the configuration of a dictionary


def inputs_of(source: CapturePlan, shard_size: int) -> dict[str, Any]:
    """Describe a capture: with the same description it gives the same shards."""
    task = source.task
    content = task and {each.name: getattr(task, each.name) for each in fields(task)}
    return {
        **model_inputs(source.model),
        "positions": source.positions,
        "bos": source.bos,
        "task": task.name if task else None,
        "task_content": _of_json(content),
        "n_prompts": len(source.prompts),
        "prompts": _of_json(source.prompts),
        "batch_size": source.batch_size,
        "shard_size": shard_size,
        "dictionaries": {
            str(site): {
                "name": each.name,
                "out": str(each.out),
                "conventions": asdict(each.conventions),
                "weights": dictionary_fingerprint(each),
            }
            for site, each in source.dictionaries.items()
        },
    }


def model_inputs(model: Model) -> dict[str, Any]:
    """Describe all of a model that decides what it computes; weights that are far by shapes."""
    config = model.hf.config
    tensors = chain(model.hf.named_parameters(), model.hf.named_buffers())
    kept = {name: value for name, value in config.to_dict().items() if name not in _LABELS}
    kept["attention"] = getattr(config, "_attn_implementation", None)
    return {
        "model": model.name,
        "model_weights": fingerprint_of_tensors(tensors),
        "model_modules": _of_json([*map(_described, model.hf.named_modules())]),
        "configuration": json.loads(json.dumps(kept, sort_keys=True, default=str)),
        "tokenizer": _tokenizer_fingerprint(model),
        "edits": edits_of(model),
    }


def edits_of(model: Model) -> dict[str, Any]:
    """Describe the interventions of a model; refuse what cannot be described."""
    edits: Any = model.edits
    if edits is not None and not hasattr(edits, "described"):
        raise InputError(
            f"{model.name} has edits that no file can describe. Leave store= out, or make them "
            "by interventions.intervened."
        )
    return {} if edits is None else edits.described()


def dictionary_fingerprint(dictionary: Dictionary | Coordinates) -> str:
    """Return a checksum of a dictionary: weights, configuration, modules and conventions."""
    if isinstance(dictionary, Coordinates):
        return "none"
    sae = dictionary.sae
    kept = {name: value for name, value in sae.cfg.to_dict().items() if name not in _OF_USE}
    text = json.dumps(kept, sort_keys=True, default=str)
    text += str([[name, type(each).__qualname__] for name, each in sae.named_modules()])
    text += str(dictionary.conventions)
    return fingerprint_of_tensors(sorted(sae.state_dict().items()), text)


def fingerprint_of_tensors(tensors: Iterable[tuple[str, Tensor]], text: str = "") -> str:
    """Return a checksum of a text and of all bytes of some tensors; of shapes, if they are far."""
    found = hashlib.sha256(text.encode())
    for name, tensor in tensors:
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if not tensor.is_meta:
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            found.update(flat.view(torch.uint8).numpy().data)
    return found.hexdigest()


def _described(named: tuple[str, torch.nn.Module]) -> list[Any]:
    """Name, class and plain attributes of a module, such as eps, scaling and whether it trains."""
    name, module = named
    said = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, str | int | float) and key[0] != "_" and key not in _LABELS
    }
    return [name, type(module).__qualname__, said]


def _of_json(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _tokenizer_fingerprint(model: Model) -> str:
    """Return a checksum of what turns a text into tokens."""
    tokenizer: Any = model.tokenizer
    fast = getattr(tokenizer, "backend_tokenizer", None)
    state = json.loads(fast.to_str()) if fast else {"vocabulary": tokenizer.get_vocab()}
    for name in ("padding", "truncation"):  # of the last call
        state.pop(name, None)
    return _of_json([state, type(tokenizer).__name__, model.bos_id, tokenizer.unk_token_id])

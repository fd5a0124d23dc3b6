"""What a capture depends on, so that it is resumed on the same inputs only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from circuit_toolkit.activations.capture_plan import Reader, Scored
from circuit_toolkit.dictionaries import Coordinates, Dictionary
from circuit_toolkit.models import Model

SAMPLED = 64  # weights of each parameter of the model that its fingerprint looks at


def inputs_of(source: Reader, batch_size: int, shard_size: int) -> dict[str, Any]:
    """Describe a capture: with the same description it gives the same shards."""
    task = source.task
    return {
        "model": source.model.name,
        "model_weights": model_fingerprint(source.model),
        "positions": source.positions,
        "task": task.name if task else None,
        "task_content": _of_json(_content(task)),
        "n_prompts": len(source.prompts),
        "prompts": _of_json([_plain(prompt) for prompt in source.prompts]),
        "batch_size": batch_size,
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


def dictionary_fingerprint(dictionary: Dictionary | Coordinates) -> str:
    """Checksum of the weights of a dictionary and of its configuration."""
    if isinstance(dictionary, Coordinates):
        return "none"
    config = dictionary.sae.cfg.to_dict()
    kept = {name: config[name] for name in config if name not in ("device", "dtype", "metadata")}
    weights = sorted(dictionary.sae.state_dict().items())
    return _of_tensors(weights, json.dumps(kept, sort_keys=True, default=str))


def model_fingerprint(model: Model) -> str:
    """Checksum of some weights of every parameter of a model; of shapes, if it is far away."""
    sample = []
    for name, weights in model.hf.named_parameters():
        flat = weights.detach().reshape(-1)
        some = torch.linspace(0, len(flat) - 1, min(len(flat), SAMPLED)).long()
        name = f"{name} {tuple(weights.shape)}"
        sample.append((name, flat[:0].new_empty(0, device="cpu") if flat.is_meta else flat[some]))
    return _of_tensors(sample, "")


def _of_tensors(tensors: Iterable[tuple[str, Tensor]], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().reshape(-1).contiguous()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _of_json(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _content(task: Scored | None) -> Any:
    """Return what a task says and scores by; of one that is no dataclass, what all have."""
    if task is None:
        return None
    if is_dataclass(task):
        return {each.name: getattr(task, each.name) for each in fields(task)}
    return [task.labels, task.positions, task.directions, task.groups]


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value

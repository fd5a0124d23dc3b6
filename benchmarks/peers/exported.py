"""A GPT-2 with its transcoders in a folder that a peer without circuit_toolkit can read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.models import Model, load_model


def with_positions(model: Model, n: int) -> Model:
    """Return a GPT-2 with n positions, whose embeddings repeat those that it has."""
    from transformers import GPT2Config, GPT2LMHeadModel

    if n == model.context:
        return model
    weights: dict[str, Tensor] = dict(model.hf.state_dict())
    table = weights["transformer.wpe.weight"]
    weights["transformer.wpe.weight"] = table.repeat(-(-n // len(table)), 1)[:n]
    module = GPT2LMHeadModel(GPT2Config.from_dict(model.hf.config.to_dict() | {"n_positions": n}))
    module.load_state_dict(weights)
    return load_model(module.float().eval(), model.tokenizer)


def export(model: Model, transcoders: Iterable[Dictionary], folder: Path) -> None:
    """Write a model's weights, its tokenizer and its jump-ReLU transcoders, all in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: x.float().contiguous() for name, x in model.hf.state_dict().items()}
    weights.pop("lm_head.weight")  # tied to the embedding
    save_file(weights, folder / "model.safetensors")
    model.hf.config.to_json_file(folder / "config.json", use_diff=False)
    model.tokenizer.save_pretrained(folder)
    for each in transcoders:
        parts = {
            "W_enc": each.sae.W_enc.T,  # (F, D)
            "b_enc": each.sae.b_enc,
            "W_dec": each.sae.W_dec,  # (F, D)
            "b_dec": each.sae.b_dec,
            "activation_function.threshold": each.sae.threshold,
        }
        save_file(
            {name: x.detach().float().contiguous() for name, x in parts.items()},
            folder / f"transcoder-{each.out.layer}.safetensors",
        )
        site = {"reads": str(each.site), "writes": str(each.out)}
        places = {key: name.split(".", 2)[2] for key, name in site.items()}
        (folder / "sites.json").write_text(json.dumps(places))  # the same in every layer

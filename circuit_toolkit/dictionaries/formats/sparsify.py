"""EleutherAI's sparsify: `cfg.json` and `sae.safetensors` in a folder named after its module.

Encoder: the k largest of relu(W (x - b_dec) + b), of a transcoder relu(W x + b). Decoder: features
times W_dec, plus b_dec, plus W_skip x where there is a skip connection
(https://github.com/EleutherAI/sparsify, sparse_coder.py).
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from circuit_toolkit.dictionaries.entry import Entry, Said
from circuit_toolkit.dictionaries.formats.build import (
    Config,
    entry,
    refused,
    settings_of,
    tensor,
    whole,
)
from circuit_toolkit.dictionaries.intact import AGAIN
from circuit_toolkit.files.reading import read_tensors

_CHANGED = ("signed", "embed_skip", "gram_lookup")  # each changes what is encoded


def entries(file: Path, name: str, said: Said) -> list[Entry]:
    """Return the one dictionary of a folder."""
    return [entry(name, file, lambda: _config(file, name), lambda: _weights(file))]


def _config(file: Path, name: str) -> Config:
    given = settings_of(file.parent / "cfg.json")
    if given.get("activation", "topk") != "topk":
        raise refused(name, f"chooses features by {given['activation']!r}, not by topk.")
    if changed := [key for key in _CHANGED if given.get(key)]:
        raise refused(name, f"was trained with {changed[0]}, which is not read.")
    d_in = whole(given, "d_in", file.parent / "cfg.json")
    d_sae = given.get("num_latents") or d_in * whole(
        given, "expansion_factor", file.parent / "cfg.json", 32
    )
    config = {"d_in": d_in, "d_sae": d_sae, "k": given.get("k", 32)}
    about = {"model_name": _model_name(file.parent.parent), **_places(file.parent, given)}
    config["metadata"] = {key: value for key, value in about.items() if value}
    if given.get("transcode"):
        config |= {"architecture": "topk_transcoder", "d_out": d_in, "apply_b_dec_to_input": False}
        return config
    if given.get("skip_connection"):
        raise refused(name, "is an autoencoder with a skip connection, which is not read.")
    return config | {"architecture": "topk", "apply_b_dec_to_input": True}


def _places(folder: Path, given: Config) -> Config:
    """Name the module whose output it rebuilds, and of a transcoder the input that it reads."""
    module = folder.parent.name if folder.name.startswith("seed") else folder.name
    reads = f"{module}.input" if given.get("transcode") else module
    return {
        "hook_name": reads,
        "hook_name_out": module,
        "model_class_name": "AutoModelForCausalLM",
    }


def _model_name(folder: Path) -> str | None:
    """Return the model that the settings of the training beside the dictionaries name."""
    file = folder / "config.json"
    name = settings_of(file).get("model") if file.is_file() else None
    return name if isinstance(name, str) else None


def _weights(file: Path) -> dict[str, Tensor]:
    found = read_tensors(file, AGAIN)
    weights = {
        "W_enc": tensor(found, "encoder.weight", file=file).T,  # (D, F)
        "b_enc": tensor(found, "encoder.bias", file=file),
        "W_dec": tensor(found, "W_dec", file=file),  # (F, D)
        "b_dec": tensor(found, "b_dec", file=file),
    }
    if settings_of(file.parent / "cfg.json").get("transcode"):
        d = len(weights["b_dec"])
        skip = found.get("W_skip")  # (D, D), from what is read to what is rebuilt
        weights["W_skip"] = weights["b_dec"].new_zeros(d, d) if skip is None else skip
    return weights

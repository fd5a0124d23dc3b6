"""`dictionary_learning` of Marks, Karvonen and Mueller: `ae.pt` with `config.json` beside it.

What each class computes is in https://github.com/saprmarks/dictionary_learning, dictionary.py and
trainers. Two of them scale features by the norms of decoder rows; the norms are folded into the
encoder here, which gives the same features.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuit_toolkit.dictionaries.entry import Entry, Said
from circuit_toolkit.dictionaries.formats.build import (
    RAW,
    Config,
    entry,
    metadata_at,
    read_pickled_weights,
    refused,
    settings_of,
    tensor,
    whole,
)
from circuit_toolkit.dictionaries.intact import AGAIN
from circuit_toolkit.errors import FileFormatError
from circuit_toolkit.sites import Site

_PLACE = re.compile(
    r"(resid_pre|resid_post|resid_out|mlp_out|attn_out|attention_out)(?:_?layer)?_?(\d+)"
)
_KINDS = {"resid_out": "resid_post", "attention_out": "attn_out"}


@dataclass(frozen=True)
class _Class:
    """How a class of theirs is one of sae_lens."""

    architecture: str
    centred: bool  # whether b_dec is taken from what is read
    threshold: bool = False
    folded: bool = False  # whether features are scaled by the norms of decoder rows


_CLASSES = {
    "AutoEncoder": _Class("standard", centred=True),
    "AutoEncoderNew": _Class("standard", centred=False),
    "GatedAutoEncoder": _Class("gated", centred=True, folded=True),
    "JumpReluAutoEncoder": _Class("jumprelu", centred=False, threshold=True, folded=True),
    "AutoEncoderTopK": _Class("topk", centred=True),
    "BatchTopKSAE": _Class("jumprelu", centred=True, threshold=True),
    "MatryoshkaBatchTopKSAE": _Class("jumprelu", centred=True, threshold=True),
}


def entries(file: Path, name: str, said: Said) -> list[Entry]:
    """Return the one dictionary of a folder."""
    return [entry(name, file, lambda: _config(file, name, said), lambda: _weights(file, name))]


def _trainer(file: Path) -> tuple[Config, Config]:
    """Return what `config.json` says of the trainer, and all that it says."""
    path = file.with_name("config.json")
    given = settings_of(path)
    trainer = given.get("trainer")
    if not isinstance(trainer, dict):
        raise FileFormatError(f"{path} does not say how {file.name} was trained. {AGAIN}")
    return trainer, given


def _class_of(trainer: Config, name: str) -> _Class:
    known = trainer.get("dict_class")
    if known in ("CrossCoder", "BatchTopKCrossCoder"):
        raise refused(
            name,
            f"is a crosscoder ({known}): its features read several layers or models at once, and "
            "the toolkit's read one site. Load an autoencoder of one layer.",
        )
    if known not in _CLASSES:
        raise refused(name, f"is of the class {known!r}. Known: {', '.join(_CLASSES)}.")
    return _CLASSES[known]


def _config(file: Path, name: str, said: Said) -> Config:
    trainer, given = _trainer(file)
    known = _class_of(trainer, name)
    path = file.with_name("config.json")
    config: Config = {
        "architecture": known.architecture,
        "d_in": whole(trainer, "activation_dim", path),
        "d_sae": whole(trainer, "dict_size", path),
        "apply_b_dec_to_input": known.centred,
        "metadata": _metadata(file, name, trainer, given, said),
    }
    if known.architecture == "topk":
        config["k"] = whole(trainer, "k", path)
    return config


def _metadata(file: Path, name: str, trainer: Config, given: Config, said: Said) -> Config:
    buffer = given.get("buffer")
    side = buffer.get("io", "out") if isinstance(buffer, dict) else "out"
    if side != "out":
        raise refused(name, f"reads {side!r} of a module, not its output, which alone is read.")
    site = _site(file, trainer)
    hooks = metadata_at(said, file) if site is None else {"hook_name": str(site), **RAW}
    model = trainer.get("lm_name")
    return {**hooks, "model_name": model} if isinstance(model, str) and model else hooks


def _site(file: Path, trainer: Config) -> Site | None:
    """Return the site that the trainer, or a folder on the way, is named after."""
    for text in (trainer.get("submodule_name"), *reversed(file.parent.parts[-4:])):
        if isinstance(text, str) and (match := _PLACE.search(text)):
            return Site(_KINDS.get(match[1], match[1]), int(match[2]))
    return None


def _weights(file: Path, name: str) -> dict[str, Tensor]:
    trainer, _ = _trainer(file)
    known = _class_of(trainer, name)
    found = {
        key.removeprefix("_orig_mod."): value  # of a module that was compiled
        for key, value in read_pickled_weights(file).items()
    }

    def one(*names: str) -> Tensor:
        return tensor(found, *names, file=file)

    weights = {
        "W_enc": one("W_enc") if "W_enc" in found else one("encoder.weight").T,  # (D, F)
        "W_dec": one("W_dec") if "W_dec" in found else one("decoder.weight").T,  # (F, D)
        "b_dec": one("b_dec", "bias", "decoder_bias", "decoder.bias"),
    }
    if known.architecture == "gated":
        weights |= {"b_gate": one("gate_bias"), "b_mag": one("mag_bias"), "r_mag": one("r_mag")}
    else:
        weights["b_enc"] = one("b_enc", "encoder.bias")
    if known.threshold:
        weights["threshold"] = one("threshold").expand(weights["W_dec"].shape[0])
    if known.architecture == "topk" and "k" in found and int(found["k"]) != trainer.get("k"):
        raise FileFormatError(
            f"{file} was trained with k = {int(found['k'])}, its config.json says "
            f"{trainer.get('k')}. {AGAIN}"
        )
    return _folded(weights) if known.folded else weights


def _folded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the norms of decoder rows to the encoder, whose features they scale."""
    norms = weights["W_dec"].float().norm(dim=1)
    scaled: dict[str, Callable[[Tensor], Any]] = {
        **dict.fromkeys(("W_enc", "b_enc", "b_gate", "b_mag", "threshold"), lambda w: w * norms),
        "W_dec": lambda w: w / torch.where(norms > 0, norms, 1)[:, None],
    }
    return {key: scaled.get(key, lambda w: w)(weight) for key, weight in weights.items()}

"""Gemma Scope: `params.npz`, whose folders alone say where it belongs, and Gemma Scope 2.

Features are z where z = x W_enc + b_enc is above its threshold, else 0; they rebuild
z W_dec + b_dec (Lieberum et al. 2024). The second has `params.safetensors` with a `config.json`
that names modules, and of transcoders an `affine_skip_connection`, x times which is added.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from circuit_toolkit.dictionaries.entry import Entry, Said
from circuit_toolkit.dictionaries.formats.build import (
    RAW,
    Config,
    entry,
    metadata_at,
    refused,
    settings_of,
    tensor,
)
from circuit_toolkit.dictionaries.intact import AGAIN
from circuit_toolkit.errors import FileFormatError
from circuit_toolkit.files.reading import npz_shapes, read_npz, read_tensors, tensor_shapes
from circuit_toolkit.sites import Site

LARGEST = 2**36  # bytes of weights: a million features of Gemma-2-2B are 19 GB
_RELEASE = re.compile(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp|att|transcoders)")
_LAYER = re.compile(r"(?:^|/)layer_(\d+)(?:/|$)")
_KINDS = {"res": "resid_post", "mlp": "mlp_out", "att": "attn_z", "transcoders": "mlp_in"}


def entries(file: Path, name: str, said: Said) -> list[Entry]:
    """Return the one dictionary of a folder of the first Gemma Scope."""
    return [entry(name, file, lambda: _config(file, name, said), lambda: _weights(file))]


def entries_2(file: Path, name: str, said: Said) -> list[Entry]:
    """Return the one dictionary of a folder of Gemma Scope 2."""
    return [entry(name, file, lambda: _config_2(file, name, said), lambda: _weights_2(file))]


def _config(file: Path, name: str, said: Said) -> Config:
    if "embedding" in file.parent.as_posix().split("/")[-3:]:
        raise refused(
            name,
            "reads embeddings before Gemma scales them. Load it by its release of sae_lens, "
            "gemma-scope-2b-pt-res, with ids=[...], which corrects for that.",
        )
    return _settings(npz_shapes(file, AGAIN, largest=LARGEST), file, _metadata(file, said))


def _metadata(file: Path, said: Said) -> Config:
    """Read the folders: gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71."""
    path = file.absolute().parent.as_posix()
    release, layer = _RELEASE.search(path), _LAYER.search(path)
    if release is None or layer is None:
        return {**metadata_at(said, file), "prepend_bos": True}
    size, version, kind = release.groups()
    site = Site(_KINDS[kind], int(layer[1]))
    out = Site("mlp_out", site.layer) if kind == "transcoders" else site
    tail = "-it" if version == "it" else ""
    return {
        "model_name": f"google/gemma-2-{size}{tail}",
        "hook_name": str(site),
        "hook_name_out": str(out),
        "prepend_bos": True,
        **RAW,
    }


def _settings(shapes: dict[str, tuple[int, ...]], file: Path, about: Config) -> Config:
    """Return settings by the shapes of the weights: `W_enc` (D_in, F), `W_dec` (F, D_out)."""
    by_name = {key.lower(): shape for key, shape in shapes.items()}
    reads, writes = by_name.get("w_enc", ()), by_name.get("w_dec", ())
    if len(reads) != 2 or len(writes) != 2 or "threshold" not in by_name:
        raise FileFormatError(
            f"{file} does not hold W_enc, W_dec and threshold of one layer, but {shapes}. {AGAIN}"
        )
    config: Config = {
        "architecture": "jumprelu",
        "d_in": reads[0],
        "d_sae": reads[1],
        "apply_b_dec_to_input": False,
        "metadata": about,
    }
    if about["hook_name_out"] != about["hook_name"]:
        skip = "skip_" if "affine_skip_connection" in by_name else ""
        config |= {"architecture": f"jumprelu_{skip}transcoder", "d_out": writes[1]}
    return config


def _weights(file: Path) -> dict[str, Tensor]:
    arrays = read_npz(file, AGAIN, largest=LARGEST)
    return _named({key: torch.from_numpy(value) for key, value in arrays.items()}, file)


def _named(found: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Return weights under the names of sae_lens; a threshold below 0 would let z itself below."""
    weights = {
        key: tensor(found, key, key.lower(), file=file)
        for key in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
    }
    if (weights["threshold"] < 0).any():
        raise FileFormatError(f"{file} has thresholds below 0. {AGAIN}")
    if "affine_skip_connection" in found:
        weights["W_skip"] = found["affine_skip_connection"].T  # (D_out, D_in)
    return weights


def _config_2(file: Path, name: str, said: Said) -> Config:
    path = file.with_name("config.json")
    given = settings_of(path) if path.is_file() else {}
    if given.get("architecture", "jump_relu") != "jump_relu":
        raise refused(name, f"is of the architecture {given['architecture']!r}, not jump_relu.")
    shapes = tensor_shapes(file, AGAIN)
    reads = given.get("hf_hook_point_in")
    if not isinstance(reads, str):
        return _settings(shapes, file, {**metadata_at(said, file), "prepend_bos": True})
    about: Config = {
        "hook_name": reads,
        "hook_name_out": given.get("hf_hook_point_out") or reads,
        "model_class_name": "AutoModelForCausalLM",
        "prepend_bos": True,
    }
    if isinstance(model := given.get("model_name"), str):
        model = model.replace("gemma-v3", "gemma-3")
        about["model_name"] = model.removesuffix("-pt") if "270m" in model else model
    return _settings(shapes, file, about)


def _weights_2(file: Path) -> dict[str, Tensor]:
    return _named(read_tensors(file, AGAIN), file)

"""circuit-tracer's sets of transcoders: `config.yaml` beside `layer_0.safetensors` and so on.

Features are relu(W_enc x + b_enc), or where there is a threshold what is above it; they rebuild
features W_dec + b_dec, plus W_skip x where there is one
(https://github.com/safety-research/circuit-tracer, transcoder/single_layer_transcoder.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from circuit_toolkit.dictionaries.entry import Entry, Said
from circuit_toolkit.dictionaries.formats.build import RAW, Config, entry, refused, tensor
from circuit_toolkit.dictionaries.intact import AGAIN
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.reading import first_line, read_bytes, read_tensors, tensor_shapes

_LAYER = re.compile(r"layer_(\d+)\.safetensors")
_THRESHOLD = "activation_function.threshold"
_MODULES = {"mlp.hook_out": "layers.{}.mlp"}  # hooks that are no site's, by the module they are at
_LARGEST = 2**20  # bytes of settings


def entries(file: Path, name: str, said: Said) -> list[Entry]:
    """Return the transcoders of a set, a file for each layer."""
    given = _settings(file)
    if given.get("model_kind") == "cross_layer_transcoder":
        raise refused(
            name,
            "is a cross-layer transcoder: its features write to all layers above, and the "
            "toolkit's to one site. Load a set of transcoders of one layer each.",
        )
    if given.get("model_kind") != "transcoder_set":
        raise refused(name, f"is of the kind {given.get('model_kind')!r}, not transcoder_set.")
    if given.get("activation") not in (None, "relu", "jump_relu"):
        raise refused(
            name,
            f"has the activation {given['activation']!r}, under which features may be negative. "
            "Load a set with relu or jump_relu.",
        )
    files = {
        int(m[1]): each for each in file.parent.iterdir() if (m := _LAYER.fullmatch(each.name))
    }
    if not files:
        raise InputError(
            f"{file} lies beside no layer_0.safetensors. Get the files that it names, one for each "
            "layer, and put them there under such names."
        )
    return [_of_layer(given, files[layer], layer) for layer in sorted(files)]


def _settings(file: Path) -> Config:
    import yaml

    try:
        given = yaml.safe_load(read_bytes(file, AGAIN, largest=_LARGEST))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise FileFormatError(f"{file} is no YAML ({first_line(error)}). {AGAIN}") from error
    if not isinstance(given, dict):
        raise FileFormatError(f"{file} holds no settings but {given!r:.60}. {AGAIN}")
    return given


def _of_layer(given: Config, file: Path, layer: int) -> Entry:
    return entry(file.stem, file, lambda: _config(given, file, layer), lambda: _weights(file))


def _config(given: Config, file: Path, layer: int) -> Config:
    shapes = tensor_shapes(file, AGAIN)
    reads, writes = shapes.get("W_enc", ()), shapes.get("W_dec", ())
    if len(reads) != 2 or len(writes) != 2:
        raise FileFormatError(
            f"{file} does not hold W_enc and W_dec of one layer, but {shapes}. {AGAIN}"
        )
    jump, skip = _THRESHOLD in shapes, "W_skip" in shapes
    about: dict[str, Any] = {"prepend_bos": True, **RAW}  # it begins each prompt with such a token
    for key, suffix in (("feature_input_hook", ""), ("feature_output_hook", "_out")):
        hook = given.get(key)
        if not isinstance(hook, str):
            raise FileFormatError(f"{file.parent / 'config.yaml'} does not say {key}. {AGAIN}")
        about[f"hook_name{suffix}"] = f"blocks.{layer}.{hook}"
        if hook in _MODULES:
            about[f"hf_hook_name{suffix}"] = _MODULES[hook].format(layer)
    if isinstance(given.get("model_name"), str):
        about["model_name"] = given["model_name"]
    return {
        "architecture": f"{'jumprelu_' * jump}{'skip_' * skip}transcoder",
        "d_in": reads[1],
        "d_sae": reads[0],
        "d_out": writes[1],
        "apply_b_dec_to_input": False,
        "metadata": about,
    }


def _weights(file: Path) -> dict[str, Tensor]:
    found = read_tensors(file, AGAIN)
    weights = {key: tensor(found, key, file=file) for key in ("W_enc", "W_dec", "b_enc", "b_dec")}
    weights["W_enc"] = weights["W_enc"].T  # theirs is (F, D)
    if _THRESHOLD in found:
        weights["threshold"] = found[_THRESHOLD].flatten()
        if (weights["threshold"] < 0).any():
            raise FileFormatError(f"{file} has thresholds below 0. {AGAIN}")
    if "W_skip" in found:
        weights["W_skip"] = found["W_skip"]  # (D_out, D_in)
    return weights

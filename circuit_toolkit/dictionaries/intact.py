"""Whether the files of a dictionary are whole: settings of the right kinds, and weights.

What the toolkit writes has the checksums of its files beside it; files of others have none.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuit_toolkit.errors import FileFormatError
from circuit_toolkit.files.documents import read_document, sha256_of, write_document
from circuit_toolkit.files.schema import schema_fault

CHECKSUMS = "checksums.json"
_FORM, _VERSION = "circuit_toolkit.checksums", 1
_DELETE = f"If you changed its files on purpose, delete {CHECKSUMS} beside them."
AGAIN = "Get it again from where it came from."
_SIZE = {"type": "integer", "minimum": 1}
_TEXT, _TRUTH = {"type": ["string", "null"]}, {"type": ["boolean", "null"]}
_CONFIG = {
    "type": "object",
    "required": ["d_in", "d_sae"],
    "properties": {
        **dict.fromkeys(("d_in", "d_sae", "d_out", "k"), _SIZE),
        **dict.fromkeys(("apply_b_dec_to_input", "rescale_acts_by_decoder_norm"), _TRUTH),
        **dict.fromkeys(("architecture", "normalize_activations", "reshape_activations"), _TEXT),
        "metadata": {
            "type": ["object", "null"],
            "properties": {
                **dict.fromkeys(("model_name", "model_class_name", "sae_lens_version"), _TEXT),
                **dict.fromkeys(("hook_name", "hook_name_out"), _TEXT),
                **dict.fromkeys(("hf_hook_name", "hf_hook_name_out"), _TEXT),
                "prepend_bos": _TRUTH,
                "model_from_pretrained_kwargs": {"type": ["object", "null"]},
            },
        },
    },
}


def check_config(config: dict[str, Any], name: str) -> None:
    """Refuse settings that lack a size, or hold one of another kind."""
    if wrong := schema_fault(config, _CONFIG):
        raise FileFormatError(f"{name} is damaged at {wrong}. {AGAIN}")
    if "topk" in str(config.get("architecture")) and not 0 < config.get("k", 0) <= config["d_sae"]:
        raise FileFormatError(
            f"{name} has k = {config.get('k')}: a dictionary of topk says how many of its "
            f"{config['d_sae']} features are active. {AGAIN}"
        )


def check_weights(weights: Iterable[tuple[str, Tensor]], name: str) -> None:
    """Refuse weights that are no numbers, and maps that are all zero."""
    for key, weight in weights:
        # A sum is quick, and not finite where one of its terms is not.
        if not weight.sum(dtype=torch.float32).isfinite() and not weight.isfinite().all():
            bad = int((~weight.isfinite()).sum())
            raise FileFormatError(
                f"{key} of {name} holds NaN or infinity in {bad} of {weight.numel()} places. "
                f"{AGAIN}"
            )
        if key in ("W_enc", "W_dec") and not weight.any():
            raise FileFormatError(f"{key} of {name} is 0 everywhere. {AGAIN}")


def seal(folder: Path) -> None:
    """Write the checksums of the files of a dictionary beside them."""
    files = {each.name: sha256_of(each) for each in sorted(folder.iterdir())}
    write_document(folder / CHECKSUMS, _FORM, _VERSION, {"files": files})


def check_seal(folder: Path, name: str) -> None:
    """Refuse a file that was sealed and is another one now."""
    if not (folder / CHECKSUMS).exists():
        return
    files = read_document(folder / CHECKSUMS, _FORM, _VERSION, _DELETE).get("files")
    if not isinstance(files, dict) or name not in files:
        raise FileFormatError(f"{folder / CHECKSUMS} has no checksum of {name}. {_DELETE}")
    if files[name] != sha256_of(folder / name):
        raise FileFormatError(
            f"{folder / name} is damaged, or was changed: its checksum differs. {AGAIN} {_DELETE}"
        )

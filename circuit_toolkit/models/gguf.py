"""GGUF files, the form of llama.cpp: converted once into a Hugging Face folder of the cache.

Reading a GGUF file takes half a minute for 135 million weights and more for a large vocabulary; the
folder that is made of it opens in a second. Weights are dequantised to float32, exactly.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from circuit_toolkit.errors import InputError
from circuit_toolkit.extras import needed
from circuit_toolkit.files.cache import cache_folder
from circuit_toolkit.files.documents import sha256_of
from circuit_toolkit.files.folder import LOCK, replacing

_VERSION = 1  # of what is written; a new one converts again
_DONE = "converted.json"


def converted(file: Path) -> Path:
    """Return the folder that a GGUF file was converted to, converting it if it is not there."""
    with file.open("rb") as start:
        if start.read(4) != b"GGUF":
            raise InputError(f"{file} is no GGUF file: it does not begin with GGUF.")
    folder = cache_folder("gguf", f"{file.stem}-{sha256_of(file)[:16]}-v{_VERSION}")
    if (folder / _DONE).is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + LOCK)):  # another process may convert it now
            if (folder / _DONE).is_file():
                return folder
            if folder.exists():
                raise InputError(f"{folder} is damaged. Delete it: it is made again from {file}.")
            with replacing(folder) as new:
                _convert(file, new)
    except OSError as error:
        raise InputError(
            f"{file} could not be converted into {folder}. Set CIRCUIT_TOOLKIT_CACHE to a folder "
            f"with room for its weights in float32. Cause: {error}"
        ) from error
    return folder


def _convert(file: Path, folder: Path) -> None:
    import transformers

    needed("gguf")  # transformers reads the file with it
    place: dict[str, Any] = {"gguf_file": file.name}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **place)
        module = transformers.AutoModelForCausalLM.from_pretrained(
            file.parent, dtype=torch.float32, **place
        )
    except (ValueError, LookupError, TypeError, NotImplementedError, struct.error) as error:
        raise InputError(
            f"transformers cannot read {file}: {error}. Pass the Hugging Face form of the model."
        ) from error
    begins = _field(file, "tokenizer.ggml.add_bos_token")
    if begins is not None:  # transformers leaves it out
        tokenizer.add_bos_token = bool(begins)
    tokenizer.save_pretrained(folder)
    loaded: Any = module  # its weights are plain by now
    loaded.hf_quantizer = None
    module.config.__dict__.pop("quantization_config", None)
    module.save_pretrained(folder)
    (folder / _DONE).write_text(json.dumps({"from": file.name, "sha256": sha256_of(file)}))


def _field(file: Path, name: str) -> Any:
    found = needed("gguf").GGUFReader(str(file)).fields.get(name)
    return None if found is None else found.contents()

"""Which file of a model's folder is damaged, said before or in place of what transformers says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuit_toolkit.errors import FileFormatError
from circuit_toolkit.files.reading import check_tensor_file, read_json

_AGAIN = "Get the model again from where it came from."
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_NAMED = 3  # weights that an error names


def check_folder_of_model(folder: Path) -> None:
    """Name the file of a folder that is damaged, if one is; for a folder that did not load."""
    for path in sorted(folder.glob("*.safetensors")):
        check_tensor_file(path, _AGAIN)
    for path in sorted(folder.glob("*.json")):
        if not isinstance(read_json(path, _AGAIN), dict):
            raise FileFormatError(f"{path} holds no settings. {_AGAIN}")
    pickles = [path for pattern in _PICKLES for path in sorted(folder.glob(pattern))]
    if pickles and not any(folder.glob("*.safetensors")):
        raise FileFormatError(
            f"{pickles[0]} is a pickle, or damaged: it could run code, and holds more than "
            "tensors, so it is not loaded. Get the model as safetensors."
        )


def check_nothing_missing(info: Mapping[str, Any], source: str) -> None:
    """Refuse a model some of whose weights are not in the files: they would be random."""
    missing = sorted(info.get("missing_keys", ()))
    wrong = sorted(map(str, info.get("mismatched_keys", ())))
    for names, what in ((missing, "lacks"), (wrong, "has in other shapes")):
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            raise FileFormatError(
                f"{source} {what} {', '.join(names[:_NAMED])}{more}. {_AGAIN} Or its config.json "
                "is of another model."
            )

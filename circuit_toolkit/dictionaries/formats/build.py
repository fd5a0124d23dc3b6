"""From the settings and weights of a format, under the names of sae_lens, to one of its objects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuit_toolkit.dictionaries.entry import Entry, Said
from circuit_toolkit.dictionaries.intact import AGAIN, check_config, check_weights
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.reading import first_line, read_json
from circuit_toolkit.sites import Site

Config = dict[str, Any]
RAW = {"model_from_pretrained_kwargs": {}}  # metadata: trained on what Hugging Face modules compute


def entry(
    name: str,
    file: Path,
    config: Callable[[], Config],
    weights: Callable[[], dict[str, Tensor]],
) -> Entry:
    """Return a dictionary that is read when it is asked for; `file` is named in errors."""

    def checked() -> Config:
        found = config()
        check_config(found, f"{file}")
        return found

    return Entry(name, checked, lambda device: _built(checked(), weights(), file, device))


def _built(config: Config, weights: dict[str, Tensor], file: Path, device: str) -> Any:
    from sae_lens.registry import get_sae_class

    from circuit_toolkit.dictionaries.topk_transcoder import register

    register()
    kind, config_kind = get_sae_class(config["architecture"])
    settings = config_kind.from_dict({**config, "device": device, "dtype": "float32"})
    sae: Any = kind(settings)
    state = {key: value.to(torch.float32).contiguous() for key, value in weights.items()}
    try:
        sae.load_state_dict(state)
    except RuntimeError as error:  # its first line says no more than that it failed
        cause = " ".join(str(error).split()[:60])
        raise FileFormatError(f"{file}: weights and settings differ ({cause}). {AGAIN}") from error
    check_weights(sae.named_parameters(), f"{file}")
    return sae


def settings_of(file: Path) -> Config:
    """Read a JSON file that is an object."""
    found = read_json(file, AGAIN)
    if not isinstance(found, dict):
        raise FileFormatError(f"{file} holds no settings but {found!r:.60}. {AGAIN}")
    return found


def whole(config: Any, key: str, file: Path, default: int | None = None) -> int:
    """Return a size that settings must have."""
    value = config.get(key, default) if isinstance(config, dict) else None
    if type(value) is not int or value < 1:
        raise FileFormatError(f"{file} has no size {key!r} above 0, but {value!r:.40}. {AGAIN}")
    return value


def tensor(weights: dict[str, Any], *names: str, file: Path) -> Tensor:
    """Return the weight that has one of these names."""
    for name in names:
        if isinstance(found := weights.get(name), Tensor):
            return found
    raise FileFormatError(
        f"{file} has no weight {' or '.join(names)}, only {', '.join(map(str, weights))}. {AGAIN}"
    )


def read_pickled_weights(file: Path) -> dict[str, Any]:
    """Return the tensors that `torch.save` wrote; nothing else of a pickle is made."""
    import pickle

    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise FileFormatError(
            f"{file} is damaged, or holds more than weights, which could run code and is not "
            f"loaded ({first_line(error)}). {AGAIN}"
        ) from error
    if not isinstance(found, dict):
        raise FileFormatError(f"{file} holds no weights by name. {AGAIN}")
    return found


def metadata_at(said: Said, file: Path) -> Config:
    """Return where a dictionary belongs by the site that was asked for, where files do not tell."""
    if said.site is None:
        raise InputError(
            f"Nothing tells where {file} belongs. Say it: load_dictionaries(model, source, "
            "sites=['resid_post 3']), of a transcoder sites=['mlp_in 3'], kind='transcoder'."
        )
    out = Site("mlp_out", said.site.layer) if said.kind == "transcoder" else said.site
    return {"hook_name": str(said.site), "hook_name_out": str(out), **RAW}


def refused(name: str, why: str) -> InputError:
    """Return the error of a dictionary that cannot be read as features of one site."""
    return InputError(f"{name!r} {why}")

"""Where dictionaries lie: folders, single files, releases of sae_lens; each seen before loaded."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from circuit_toolkit.dictionaries.entry import Entry, Said
from circuit_toolkit.dictionaries.formats.table import FORMATS, found_in, refuse_cross_layer
from circuit_toolkit.dictionaries.intact import AGAIN, check_config, check_seal, check_weights
from circuit_toolkit.dictionaries.topk_transcoder import register
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.reading import check_tensor_file, read_json
from circuit_toolkit.models.hub import at_once
from circuit_toolkit.sites import Site

_LAYER = re.compile(r"(?:blocks\.|layers?[_.]?|\bl)(\d+)")  # in the ids of sae_lens's registry
SPARSIFY = "sae.safetensors"
_OURS_TO_SAY = r"\s*This SAE has non-empty model_from_pretrained|norm_scaling_factor not found"

_UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError)


def folder_entries(path: Path, said: Said) -> list[Entry]:
    """List the dictionaries of a folder, of the folders in it, or of a single file."""
    if path.is_file() and path.name == "cfg.json":
        path = path.parent
    config = path.parent / "cfg.json"
    is_weights = path.suffix == ".safetensors" and path.name != SPARSIFY
    if path.is_file() and is_weights and config.is_file():
        return [_of_disk(path.parent, path)]
    if path.is_file():
        if found := found_in(path, said):
            return found
        raise InputError(
            f"{str(path)!r} cannot be loaded by itself: pass a .safetensors file with its "
            "cfg.json beside it, or a folder in one of these formats: sae_lens, "
            f"{', '.join(each.name for each in FORMATS)}. Files that would run code (.pkl) are not "
            "read."
        )
    folders = [path] if _is_ours(path) else sorted(path.glob("*/"))
    found = [_of_disk(each, None) for each in folders if _is_ours(each)] or found_in(path, said)
    if not found:
        refuse_cross_layer(path)
        known = "; ".join(f"{each.file} ({each.name})" for each in FORMATS)
        raise InputError(
            f"No dictionary lies in {str(path)!r}: expected cfg.json and sae_weights.safetensors "
            f"(sae_lens) there or one folder below, or {known}."
        )
    return found


def _is_ours(folder: Path) -> bool:
    """Whether a folder is in the format of sae_lens; sparsify's settings have the same name."""
    return (folder / "cfg.json").is_file() and not (folder / SPARSIFY).is_file()


def _of_disk(folder: Path, file: Path | None) -> Entry:
    return Entry(folder.name, partial(_disk_config, folder), partial(_from_disk, folder, file))


def _disk_config(folder: Path) -> dict[str, Any]:
    from sae_lens.loading import pretrained_sae_loaders as loaders

    register()
    path = folder / "cfg.json"
    written = read_json(path, AGAIN)
    if not isinstance(written, dict):
        raise FileFormatError(f"{path} holds no settings but {written!r:.60}. {AGAIN}")
    check_seal(folder, path.name)
    try:
        if written.get("architecture") in ("batchtopk", "matryoshka_batchtopk", "temporal"):
            return written  # not for inference, and refused with a reason
        config = loaders.handle_config_defaulting(dict(written))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileFormatError(f"{path}: sae_lens cannot read it ({error}). {AGAIN}") from error
    check_config({**config, "metadata": written.get("metadata")}, f"{path}")
    # sae_lens drops metadata where a file does not say which version wrote it.
    about = {**(config.get("metadata") or {}), **(written.get("metadata") or {})}
    return {**config, "metadata": about}


def _from_disk(folder: Path, file: Path | None, device: str) -> Any:
    from sae_lens import SAE
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.saes.sae import SAEMetadata
    from safetensors import SafetensorError

    def read(path: Any, device: str, cfg_overrides: Any) -> Any:
        config = loaders.get_sae_lens_config_from_disk(path, device, cfg_overrides)
        return loaders.read_sae_components_from_disk(config, file or "", device)

    converter = loaders.sae_lens_disk_loader if file is None else read
    register()
    weights = file or folder / "sae_weights.safetensors"
    if not weights.is_file():
        raise FileFormatError(f"{weights} is missing, or no file. {AGAIN}")
    check_tensor_file(weights, AGAIN)
    if file is None:
        check_seal(folder, weights.name)
    try:
        with _quiet():
            sae = SAE.load_from_disk(folder, device=device, dtype="float32", converter=converter)
    except (*_UNREADABLE, SafetensorError) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileFormatError(f"{folder.name!r} in {folder.parent}: {cause} {AGAIN}") from error
    check_weights(sae.named_parameters(), f"{weights}")
    sae.cfg.metadata = SAEMetadata(**_disk_config(folder)["metadata"])
    scaler = folder / "activation_scaler.json"  # beside a checkpoint whose training went on
    if sae.cfg.normalize_activations == "expected_average_only_in" and scaler.is_file():
        found = read_json(scaler, AGAIN)
        factor = found.get("scaling_factor") if isinstance(found, dict) else found
        if factor is not None:
            if type(factor) not in (int, float) or factor <= 0:
                raise FileFormatError(
                    f"{scaler} has no scaling factor above 0, but {factor!r:.40}. {AGAIN}"
                )
            sae.fold_activation_norm_scaling_factor(factor)
    return sae


def release_entries(name: str, ids: Sequence[str] | None) -> list[Entry]:
    """List the dictionaries of a release that sae_lens knows, or of a repository of the hub."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    directory = get_pretrained_saes_directory()
    if name in directory:
        ids = [*directory[name].saes_map]
    elif name.count("/") != 1 or not ids:
        hint = " Of a repository of the hub, name the folders: ids=[...]." if "/" in name else ""
        raise InputError(
            f"{name!r} is no folder, no file and no release that sae_lens knows. Nearest: "
            f"{nearest(name, directory)}.{hint}"
        )
    return [Entry(i, partial(_hub_config, name, i), partial(_from_hub, name, i)) for i in ids]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known names that are likest one, or the first of them."""
    return ", ".join(get_close_matches(name, known, n=5, cutoff=0.5) or [*known][:5])


def _hub_config(release: str, sae_id: str) -> dict[str, Any]:
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface

    with _reaching(release, sae_id):
        config = load_sae_config_from_huggingface(release, sae_id)
    check_config(config, f"The cfg.json of {sae_id!r}")
    return config


def _from_hub(release: str, sae_id: str, device: str) -> Any:
    from sae_lens import SAE

    with _reaching(release, sae_id), _quiet():
        sae = SAE.from_pretrained(release, sae_id, device=device, dtype="float32")
    check_weights(sae.named_parameters(), f"{sae_id!r}")
    return sae


@contextmanager
def _reaching(release: str, sae_id: str) -> Iterator[None]:
    """Refuse with what to do where the hub cannot be reached."""
    try:
        with at_once():
            yield
    except (OSError, ValueError, KeyError) as error:
        cause = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{sae_id!r} of {release!r} could not be fetched from the Hugging Face hub. It needs "
            "the network once, and a token where the repository is gated (HF_TOKEN). Cause: "
            f"{cause[0]}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back sae_lens's advice on what this package does, or says in its own words."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_OURS_TO_SAY)
        yield


def may_read(entry: Entry, sites: set[Site]) -> bool:
    """Whether an entry of a release can be of one of some sites, by its id alone."""
    match = _LAYER.search(entry.id)
    return match is None or int(match[1]) in {site.layer for site in sites}

"""Where the features of a dictionary have a page on Neuronpedia, as far as sae_lens knows it."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuit_toolkit.dictionaries.dictionary import Dictionary

SITE = "https://www.neuronpedia.org"
_ID = re.compile(r"[\w.-]{1,80}/[\w.-]{1,80}", re.ASCII)
_DOTS = re.compile(r"\.+/|/\.+$")  # which a path would take for a folder above
_FOLDER = "folder "


def neuronpedia_id(dictionary: Dictionary) -> str | None:
    """Return model and source on Neuronpedia, `gpt2-small/3-res-jb`, or None where not known."""
    said = dictionary.metadata.get("neuronpedia_id")
    if said is None:
        origin, _, name = dictionary.source.rpartition(": ")
        said = _registered(origin.removeprefix(_FOLDER), name) if origin else None
    fits = isinstance(said, str) and _ID.fullmatch(said) and not _DOTS.search(said)
    return said if fits else None


@cache
def _registered(origin: str, name: str) -> str | None:
    """Look a dictionary up in sae_lens's list: by release, or by repository and place in it.

    The list takes seconds to parse, so it is searched as text before.
    """
    spec = find_spec("sae_lens")
    listed = Path(spec.origin).with_name("pretrained_saes.yaml") if spec and spec.origin else None
    if not origin or listed is None or origin not in listed.read_text(encoding="utf-8"):
        return None
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    directory = get_pretrained_saes_directory()
    own = directory.get(origin)
    if own is not None and own.neuronpedia_id.get(name):
        return own.neuronpedia_id[name]
    place = own.saes_map.get(name, name) if own is not None else name
    for release in directory.values():  # the same weights may be in several, under other names
        here = release.repo_id == own.repo_id if own is not None else False
        if here or origin == PurePosixPath(release.repo_id).name:
            for each, path in release.saes_map.items():
                known = place in (path, path.removesuffix(".safetensors"))
                if known and release.neuronpedia_id.get(each):
                    return release.neuronpedia_id[each]
    return None

"""Labels of features from Neuronpedia, fetched when asked for and kept on the disk."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from circuit_toolkit.arguments import described, expect, number
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.neuronpedia import SITE
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.cache import cache_folder
from circuit_toolkit.files.documents import write_text
from circuit_toolkit.files.reading import parsed_json, read_json
from circuit_toolkit.models.hub import answers
from circuit_toolkit.progress import Bar
from circuit_toolkit.sites import Site
from circuit_toolkit.texts import printable

LARGEST = 2**24  # bytes of a feature's page: it brings its activating texts
LONGEST = 400  # characters of a label
_LOCAL = ("127.0.0.1", "localhost", "::1")
_AGAIN = "Call again later; what came so far is kept."
_FORGET = "Delete it: what it kept is fetched again."


def neuronpedia_labels(
    dictionaries: Dictionary | Mapping[Site, Dictionary] | Iterable[Dictionary],
    features: Mapping[Any, Sequence[int] | np.ndarray],
    *,
    refresh: bool = False,
    timeout: float = 10.0,
    server: str = SITE,
    progress: bool = True,
) -> dict[Site, list[str]]:
    """Fetch what Neuronpedia says of some features, where it has pages of them.

    This asks the network, nothing else here does: a page for each feature that was not asked for
    before. Answers are kept in `~/.cache/circuit_toolkit/neuronpedia`, also that there is none.

    Parameters
    ----------
    dictionaries : Dictionary, or dict of Site to Dictionary
        With a `neuronpedia_id`.
    features : dict of Site to sequence of int
        Which ones, such as `circuit.features()`.
    refresh : bool
        Whether to ask again for what is kept.
    timeout : float
        Seconds to wait for each answer.
    server : str
        Address of another Neuronpedia, `https` unless it is on this machine.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    dict of Site to list of str
        One label for each feature of a dictionary, as `feature_card` and `CircuitLasso.fit` take
        them: the first explanation, at most 400 characters; empty where there is none, and for
        features that were not asked for.

    Raises
    ------
    InputError
        If a dictionary has no known pages or no such feature, the server cannot be reached, or
        refuses.
    FileFormatError
        If an answer, or a file of the cache, is not what it should be.
    """
    timeout = number(timeout, "timeout", 0.01, 600)
    parts = urlsplit(server if isinstance(server, str) else "")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
        raise InputError(f"server must be an address that begins with https://, got {server!r}.")
    found: dict[Site, list[str]] = {}
    wanted = _wanted(dictionaries, features)
    for dictionary, _ in wanted:
        if dictionary.neuronpedia_id is None:
            raise InputError(
                f"{dictionary.name!r} has no pages on Neuronpedia that are known. Its metadata may "
                "say so: metadata.neuronpedia_id, such as 'gpt2-small/3-res-jb'."
            )
    for dictionary, units in wanted:
        kept = _kept(dictionary, units, refresh, timeout, server.rstrip("/"), progress)
        labels = [""] * dictionary.n_features
        for unit in units:
            labels[unit] = kept[str(unit)]
        found[dictionary.site] = labels
    return found


def _wanted(dictionaries: Any, features: Any) -> list[tuple[Dictionary, list[int]]]:
    """Return dictionaries with the features that are asked for, in order of computation."""
    one = isinstance(dictionaries, Dictionary)
    each: Any = [dictionaries] if one else dictionaries
    each = each.values() if isinstance(each, Mapping) else each
    if not isinstance(each, Iterable):
        raise InputError(f"dictionaries must be dictionaries, got {described(dictionaries)}.")
    known: dict[Site, Dictionary] = {}
    for item in each:
        expect(item, "dictionaries", "Dictionary")
        known[item.site] = item
    if not isinstance(features, Mapping):
        raise InputError(
            f"features must be a dict of sites to numbers, got {described(features)}. Of a circuit "
            "pass circuit.features()."
        )
    found = []
    for site, units in sorted((Site.parse(site), units) for site, units in features.items()):
        if site not in known:
            raise InputError(f"No dictionary was given for {site}.")
        numbers = np.atleast_1d(np.asarray(units))
        if numbers.ndim != 1 or (len(numbers) and numbers.dtype.kind not in "iu"):
            raise InputError(f"Features of {site} must be whole numbers, got {described(units)}.")
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < known[site].n_features:
            raise InputError(
                f"{site} has features 0 to {known[site].n_features - 1}, not {numbers.min()} to "
                f"{numbers.max()}."
            )
        found.append((known[site], np.unique(numbers).astype(int).tolist()))
    return found


def _kept(
    dictionary: Dictionary,
    units: Sequence[int],
    refresh: bool,
    timeout: float,
    server: str,
    progress: bool,
) -> dict[str, str]:
    """Return labels by feature, from the cache and from the server, and keep what came."""
    model, source = str(dictionary.neuronpedia_id).split("/")
    file = cache_folder("neuronpedia", model, f"{source}.json")
    kept = _read(file)
    missing = [unit for unit in units if refresh or str(unit) not in kept]
    if not missing:
        return kept
    if not answers(server):
        raise InputError(
            f"{server} is out of reach, so labels of {len(missing)} features of "
            f"{dictionary.name!r} cannot be fetched. Connect to the network, or leave them out."
        )
    new: dict[str, str] = {}
    try:
        for unit in Bar(missing, f"labels of {dictionary.site.short}", shown=progress):
            new[str(unit)] = _fetched(
                f"{server}/api/feature/{dictionary.neuronpedia_id}/{unit}", timeout
            )
    finally:
        kept |= new
        if new:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(kept, ensure_ascii=False))
    return kept


def _read(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    found = read_json(file, _FORGET, largest=LARGEST)
    fits = isinstance(found, dict) and all(isinstance(each, str) for each in found.values())
    if not fits:
        raise FileFormatError(f"{file} holds no labels by feature. {_FORGET}")
    return found


def _fetched(address: str, timeout: float) -> str:
    """Return the first explanation of a feature, empty where there is none or no such page."""
    request = urllib.request.Request(address, headers={"Accept": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            data = answer.read(LARGEST + 1)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return ""
        raise InputError(f"{address} was refused: {error.code} {error.reason}. {_AGAIN}") from error
    except (OSError, ValueError) as error:  # URLError, a time-out, an answer that is no HTTP
        cause = getattr(error, "reason", None) or error
        raise InputError(f"{address} could not be fetched: {cause}. {_AGAIN}") from error
    if len(data) > LARGEST:
        raise FileFormatError(f"{address} answered with more than {LARGEST:,} bytes. {_AGAIN}")
    found = parsed_json(data, address, _AGAIN)
    listed = found.get("explanations") if isinstance(found, dict) else None
    if isinstance(found, dict) and listed is None:
        return ""
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise FileFormatError(f"{address} answered with no explanations of a feature. {_AGAIN}")
    said = [text for each in listed if isinstance(text := each.get("description"), str)]
    return printable(" ".join(said[0].split()))[:LONGEST] if said else ""

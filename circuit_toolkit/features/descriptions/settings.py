"""Settings of descriptions in files: checked against what is known before anything shows them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.features.descriptions.words import check_language

PRESET_NAMES = ("code", "paper", "robust")
_NUMBER, _COUNT = (int, float), (int, type(None))
_OWN: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("theta_token", "theta_feature"), _NUMBER),
    **dict.fromkeys(("pool_tokens", "pool_features"), (str, *_COUNT)),
    "robust": (bool,),
    "upstream": (str,),
}
_TYPES = _OWN | {
    **dict.fromkeys(("model", "model_type", "preset"), (str,)),
    **dict.fromkeys(("n_tokens", "n_permuted", "seed"), (int,)),
    **dict.fromkeys(("begins_with", "ends_with"), _COUNT),
    **dict.fromkeys(("floors", "own", "largest_group", "dictionaries", "versions"), (dict,)),
    "slack": _NUMBER,
    "language": (str, type(None)),
}
_INSIDE = {
    "floors": dict.fromkeys(("theta_token", "theta_feature"), _NUMBER),
    "largest_group": dict.fromkeys(("tokens", "features"), _COUNT),
}
_CHOICES = {"preset": PRESET_NAMES, "upstream": ("first", "all")}
_CHOICES |= dict.fromkeys(("pool_tokens", "pool_features"), ("all",))


def check_settings(settings: Any, path: Path) -> None:
    """Refuse settings of a file that `WeightLens` cannot have written."""
    wrong = "settings" if not isinstance(settings, dict) else next(_faults(settings), None)
    if wrong is None:
        try:
            check_language(settings["language"])
        except InputError:
            wrong = "language"
    if wrong is not None:
        raise FileFormatError(
            f"{path} holds no descriptions of this toolkit: its {wrong} is not what WeightLens "
            "writes. Describe the features again, and save them."
        )


def _faults(settings: dict[str, Any]) -> Iterator[str]:
    """Names of what is missing, unknown or of another kind."""
    yield from _unlike(settings, _TYPES, "")
    own = {name: _OWN[name] for name in _OWN if name in settings["own"]}
    for name, types in (_INSIDE | {"own": own}).items():
        yield from _unlike(settings[name], types, name)
    for name in ("dictionaries", "versions"):
        yield from (name for each in settings[name].values() if not isinstance(each, str))


def _unlike(
    found: Mapping[str, Any], types: Mapping[str, tuple[type, ...]], where: str
) -> Iterator[str]:
    if found.keys() - types.keys():
        yield where or "settings"  # hold one that is not known
    for name, kinds in types.items():
        value = found.get(name)
        fits = name in found and isinstance(value, kinds)
        fits = fits and (bool in kinds or not isinstance(value, bool))
        if isinstance(value, float):
            fits = fits and math.isfinite(value)
        if isinstance(value, str) and name in _CHOICES:
            fits = fits and value in _CHOICES[name]
        if not fits:
            yield f"{where}.{name}" if where else name

"""Settings of descriptions in files: checked against what is known before anything shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.features.descriptions.words import check_language
from circuit_toolkit.files.documents import plain


def check_settings(settings: Any, path: Path) -> None:
    """Refuse settings of a file that `WeightLens` cannot have written."""
    wrong = next(_faults(settings), None)
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


def _faults(settings: Any) -> Iterator[str]:
    """Names of what is missing, unknown or of another kind; none that the file made up."""
    for error in _validator().iter_errors(plain(settings, "settings")):  # no number is infinite
        place = [*map(str, error.absolute_path)]
        if error.validator == "required":
            known: Any = error.validator_value
            place.append(next(name for name in known if name not in error.instance))
        elif place[:1] in (["dictionaries"], ["versions"]):
            place = place[:1]
        yield ".".join(place) or "settings"


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    text = Path(__file__).with_name("settings_schema.json").read_text(encoding="utf-8")
    return Draft202012Validator(json.loads(text))

"""Labelled texts from the Hugging Face hub, for targets that are classes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.tasks.tokens import encode


@dataclass(frozen=True)
class Source:
    """Where a known data set is, and what is in its columns."""

    path: str
    config: str | None
    text: str
    columns: Mapping[str, str]  # label -> column
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)  # label -> names by number


PROFESSIONS = """
accountant architect attorney chiropractor comedian composer dentist dietitian dj filmmaker
interior_designer journalist model nurse painter paralegal pastor personal_trainer photographer
physician poet professor psychologist rapper software_engineer surgeon teacher yoga_teacher
""".split()  # numbered from 0  # noqa: SIM905  # reads best as text
SOURCES = {
    # Warstadt et al., 2019, arXiv 1805.12471, as in GLUE: 1 is acceptable.
    "cola": Source(
        "nyu-mll/glue", "cola", "sentence", {"acceptable": "label"}, {"acceptable": ("no", "yes")}
    ),
    # De-Arteaga et al., 2019, arXiv 1901.09451; names from the data set's card.
    "bias_in_bios": Source(
        "LabHC/bias_in_bios",
        None,
        "hard_text",
        {"profession": "profession", "gender": "gender"},
        {
            "profession": PROFESSIONS,
            "gender": ("male", "female"),
        },
    ),
}


def task_parts(
    model: Model,
    name: str,
    *,
    data: Any,
    config: str | None,
    split: str,
    text: str | None,
    labels: Sequence[str],
    n: int,
    seed: int,
    max_tokens: int | None,
) -> dict[str, Any]:
    """Parts of a Task from a data set; warnings point at who called the caller."""
    if n < 1 or (max_tokens is not None and max_tokens < 1):
        raise InputError(f"n and max_tokens must be at least 1, got {n} and {max_tokens}.")
    known = SOURCES.get(name)
    if data is None:
        data = known.path if known else name
        config = config or (known.config if known else None)
    table = _table(name, data, config, split)
    source = _columns(name, table, known, text, labels)
    texts, rows, skipped = _drawn(model, table[source.text], n, seed, max_tokens)
    if skipped:
        warnings.warn(
            f"Texts of {name!r} that are empty or have more tokens than the model or max_tokens "
            f"allows were left out: {skipped}.",
            UserWarning,
            stacklevel=3,
        )
    return {
        "name": name,
        "clean": tuple(texts),
        "metric": None,
        "labels": {
            label: _classes(name, split, table, column, rows, source.classes.get(label))
            for label, column in source.columns.items()
        },
    }


def _table(name: str, data: Any, config: str | None, split: str) -> Any:
    """One split of a data set: in hand, in a folder, or from the hub."""
    import datasets

    if isinstance(data, (str, os.PathLike)):
        data = _read(name, os.fspath(data), config, split)
    if isinstance(data, Mapping):  # a DatasetDict
        if split not in data:
            raise InputError(f"{name!r} has no split {split!r}, only {', '.join(data)}.")
        data = data[split]
    if not isinstance(data, datasets.Dataset):
        raise InputError(f"data must be a data set or a folder, got {type(data).__name__}.")
    return data


def _read(name: str, path: str, config: str | None, split: str) -> Any:
    import datasets
    from datasets.exceptions import DatasetsError

    saved = ("state.json", "dataset_dict.json")
    try:
        if any((Path(path) / file).is_file() for file in saved):
            return datasets.load_from_disk(path)
        return datasets.load_dataset(path, config, split=split)
    # Unknown names, splits and configurations, and all that happens without a network.
    except (OSError, ValueError, DatasetsError) as error:
        cause = str(error).split("\n")[0][:200]
        raise InputError(
            f"Split {split!r} of {name!r} could not be loaded from {path!r}: {cause}. Check the "
            "name and the split, and that the hub can be reached; without a network pass data=, a "
            "datasets.Dataset or a folder that save_to_disk wrote where there is one."
        ) from error


def _columns(
    name: str, table: Any, known: Source | None, text: str | None, labels: Sequence[str]
) -> Source:
    """Which columns to read: those that are named, else those that are known or declared."""
    from datasets import ClassLabel

    features: dict[str, Any] = dict(table.features)
    if isinstance(labels, str):
        labels = [labels]
    declared = [each for each, kind in features.items() if isinstance(kind, ClassLabel)]
    if known is None and text is None:
        texts = [each for each, kind in features.items() if getattr(kind, "dtype", "") == "string"]
        if len(texts) != 1:
            raise InputError(f"Pass text=, the column of the texts in {name!r}: {[*features]}.")
        text = texts[0]
    columns = {each: each for each in (labels or declared)}
    if known and not labels:
        columns = dict(known.columns)
    if not columns:
        raise InputError(f"Pass labels=, the columns of classes in {name!r}: {[*features]}.")
    source = Source(
        name, None, text or (known.text if known else ""), columns, known.classes if known else {}
    )
    for column in (source.text, *source.columns.values()):
        if column not in features:
            raise InputError(f"{name!r} has no column {column!r} among {[*features]}.")
    return source


def _drawn(
    model: Model, column: Any, n: int, seed: int, max_tokens: int | None
) -> tuple[list[str], list[int], int]:
    """At most n texts in random order that are short enough, their rows, and how many were not."""
    longest = min(max_tokens or model.context, model.context) - 1  # a token to begin with
    texts: list[str] = []
    rows: list[int] = []
    skipped = 0
    for row in np.random.default_rng(seed).permutation(len(column)).tolist():
        if len(texts) == n:
            break
        text = str(column[row] or "").strip()
        if text and len(encode(model, [text])[0]) <= longest:
            texts.append(text)
            rows.append(row)
        else:
            skipped += 1
    if not texts:
        raise InputError(f"None of the {len(column)} texts has from 1 to {longest} tokens.")
    return texts, rows, skipped


def _classes(
    name: str, split: str, table: Any, column: str, rows: list[int], names: Sequence[str] | None
) -> tuple[str, ...]:
    """Classes of the drawn rows by name."""
    names = names or getattr(table.features[column], "names", None)
    values: list[Any] = [table[column][row] for row in rows]
    if any(value is None or (names and value == -1) for value in values):
        raise InputError(f"Split {split!r} of {name!r} has no {column!r}: use another.")
    if not names or isinstance(values[0], str):
        return tuple(map(str, values))
    if not all(0 <= value < len(names) for value in values):
        raise InputError(f"{column!r} of {name!r} must be from 0 to {len(names) - 1}.")
    return tuple(str(names[value]) for value in values)

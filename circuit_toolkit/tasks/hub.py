"""Labelled texts from the Hugging Face hub, for targets that are classes."""

from __future__ import annotations

import os
import tomllib
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from circuit_toolkit.arguments import described, expect, expect_known, whole
from circuit_toolkit.errors import InputError
from circuit_toolkit.extras import needed
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.models import Model
from circuit_toolkit.models.hub import at_once
from circuit_toolkit.tasks.tokens import encode

T = TypeVar("T")


# By name: `path` and `config` on the hub, the column `text`, `columns` of labels, and `classes`.
_KNOWN: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
)


def from_hub(
    cls: Callable[..., T],
    model: Model,
    name: str,
    *,
    data: Any = None,
    config: str | None = None,
    split: str = "train",
    text: str | None = None,
    labels: Sequence[str] = (),
    n: int = 512,
    seed: int = 0,
    max_tokens: int | None = None,
) -> T:
    """Take labelled texts from a data set of the Hugging Face hub.

    The task has labels and no answers: capture it, then explain `target="acceptable"` or
    `target="profession=nurse"`, best with `CircuitLasso(positions="mean")`.

    Parameters
    ----------
    model : Model
        Whose tokenizer decides which texts are too long.
    name : str
        `cola` (label `acceptable`: yes or no; Warstadt et al., 2019), `bias_in_bios` (labels
        `profession`, `gender`; De-Arteaga et al., 2019), or any data set's name on the hub.
    data : datasets.Dataset, datasets.DatasetDict, str or path, optional
        What to read in place of the hub: the data set itself, or a folder that
        `save_to_disk` wrote or `load_dataset` reads.
    config : str, optional
        Configuration of the data set, where it has several.
    split : str
        Part of the data set. CoLA's `test` has no labels: use `validation`.
    text : str, optional
        Column of the texts; known for the first two names.
    labels : sequence of str
        Columns of the labels; known for the first two names, else by default those that the
        data set declares as classes.
    n : int
        At most so many texts, drawn without replacement.
    seed : int
        Decides which.
    max_tokens : int, optional
        Texts that are longer are left out, which a warning counts; by default what fits the
        model, with a token to begin with.

    Returns
    -------
    Task
        With `metric=None`.

    Raises
    ------
    InputError
        If the data set cannot be reached, a column is not there, or texts have no labels.
    """
    expect(model, "model", "Model")
    if not isinstance(name, str):
        raise InputError(
            f"name must be that of a data set, got {described(name)}. One in hand goes by data=, "
            "a table of prompt pairs to Task.from_table."
        )
    n, seed = whole(n, "n", 1), whole(seed, "seed", 0)
    longest = model.context if max_tokens is None else whole(max_tokens, "max_tokens", 1)
    known = _KNOWN.get(name, {})
    if data is None:
        data, config = known.get("path", name), config or known.get("config")
    table = _dataset(name, data, config, split)
    text, columns = _text_and_labels(name, table, known, text, labels)
    texts, rows, skipped = _drawn(model, table[text], n, seed, min(longest, model.context) - 1)
    if skipped:
        warnings.warn(
            f"Texts of {name!r} that are empty or have more tokens than the model or max_tokens "
            f"allows were left out: {skipped}.",
            UserWarning,
            stacklevel=2,
        )
    return cls(
        name=name,
        clean=tuple(texts),
        metric=None,
        labels={
            label: _classes(name, split, table, column, rows, known.get("classes", {}).get(label))
            for label, column in columns.items()
        },
    )


def _dataset(name: str, data: Any, config: str | None, split: str) -> Any:
    """One split of a data set: in hand, in a folder, or from the hub."""
    datasets: Any = needed("datasets")
    needed("datasets.exceptions")

    if isinstance(data, str | os.PathLike):
        path = str(resolved(data))
        saved = ("state.json", "dataset_dict.json")
        try:
            if any((Path(path) / file).is_file() for file in saved):
                data = datasets.load_from_disk(path)
            else:
                with nullcontext() if Path(path).exists() else at_once():
                    data = datasets.load_dataset(path, config, split=split)
        # Unknown names, splits and configurations, and all that happens without a network.
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            cause = str(error).split("\n")[0][:200]
            raise InputError(
                f"Split {split!r} of {name!r} could not be loaded from {path!r}: {cause}. Check "
                "the name and the split, and that the hub can be reached; without a network pass "
                "data=, a datasets.Dataset or a folder that save_to_disk wrote where there is one."
            ) from error
    if isinstance(data, datasets.DatasetDict):
        expect_known(split, data, f"{name!r} has no split {split!r}")
        data = data[split]
    if not isinstance(data, datasets.Dataset):
        raise InputError(
            f"data must be a data set or a folder, got {described(data)}. Of a DataFrame make "
            "datasets.Dataset.from_pandas(frame)."
        )
    return data


def _text_and_labels(
    name: str, table: Any, known: Mapping[str, Any], text: str | None, labels: Sequence[str]
) -> tuple[str, Mapping[str, str]]:
    """Which columns to read: those that are named, else those that are known or declared."""
    from datasets import ClassLabel

    features: dict[str, Any] = dict(table.features)
    text = text or known.get("text")
    if text is None:
        texts = [each for each, kind in features.items() if getattr(kind, "dtype", "") == "string"]
        if len(texts) != 1:
            raise InputError(f"Pass text=, the column of the texts in {name!r}: {[*features]}.")
        text = texts[0]
    declared = [each for each, kind in features.items() if isinstance(kind, ClassLabel)]
    given = [labels] if isinstance(labels, str) else labels
    columns = {each: each for each in given} or known.get("columns")
    columns = columns or {each: each for each in declared}
    if not columns:
        raise InputError(f"Pass labels=, the columns of classes in {name!r}: {[*features]}.")
    for column in (text, *columns.values()):
        if column not in features:
            raise InputError(f"{name!r} has no column {column!r} among {[*features]}.")
    return text, columns


def _drawn(
    model: Model, column: Any, n: int, seed: int, longest: int
) -> tuple[list[str], list[int], int]:
    """At most n texts in random order that are short enough, their rows, and how many were not."""
    texts, rows = [], []
    for tried, row in enumerate(np.random.default_rng(seed).permutation(len(column)).tolist()):
        if len(texts) == n:
            return texts, rows, tried - n
        text = str(column[row] or "").strip()
        if text and len(encode(model, [text])[0]) <= longest:
            texts.append(text)
            rows.append(row)
    if not texts:
        raise InputError(f"None of the {len(column)} texts has from 1 to {longest} tokens.")
    return texts, rows, len(column) - len(texts)


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

"""Tasks from tables: the rows of a file, and which of its columns hold what."""

from __future__ import annotations

import csv
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.models import Model
from circuit_toolkit.tasks.answers import Pair, of_ids, of_start_years, of_words, says_start
from circuit_toolkit.tasks.tokens import unequal_twins

Row = Mapping[str, Any]

# Names under which published files keep the parts of a prompt pair, the likeliest first.
GUESSES = {
    "clean": ("clean", "clean_prefix", "clean_prompt", "prompt", "text"),
    "corrupted": ("corrupted", "patch_prefix", "corrupted_prompt", "corrupt", "counterfactual"),
    "wrong": ("wrong", "patch_answer", "incorrect", "wrong_answer", "incorrect_idx", "wrong_id"),
    "answer": ("answer", "clean_answer", "correct", "correct_answer", "correct_idx", "answer_id"),
}
YEAR_GUESSES = (*GUESSES["answer"], "start_year", "label")  # where there is no wrong answer


def csv_rows(path: str | os.PathLike) -> list[Row]:
    """Rows of a CSV or TSV file with a header."""
    path = _there(path)
    if path.suffix in (".json", ".jsonl"):
        raise InputError(f"{path.name} is JSON, not CSV: use Task.from_jsonl.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            rows: list[Row] = [*csv.DictReader(file, delimiter=delimiter, strict=True)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileFormatError(f"{path.name} is no CSV file in UTF-8: {error}.") from error
    for i, row in enumerate(rows, start=1):
        if None in row or None in row.values():  # how DictReader shows rows of another length
            raise FileFormatError(
                f"{path.name}, row {i}: it has not as many cells as the header. Texts with commas "
                "or line breaks belong in quotes."
            )
    return rows


def jsonl_rows(path: str | os.PathLike) -> list[Row]:
    """Rows of a file with one JSON object a line."""
    path = _there(path)
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path.name} is no text in UTF-8: {error}.") from error
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise FileFormatError(f"{path.name}, line {i} is no JSON: {error}.") from error
        if not isinstance(row, dict):
            raise FileFormatError(f"{path.name}, line {i} is no JSON object: {line[:60]}")
        rows.append(row)
    return rows


def _there(path: str | os.PathLike) -> Path:
    if not (path := Path(path)).is_file():
        raise InputError(f"There is no file {os.fspath(path)!r}.")
    return path


def task_parts(
    model: Model,
    rows: Sequence[Row],
    path: str | os.PathLike,
    *,
    clean: str | None = None,
    corrupted: str | None = None,
    answer: str | None = None,
    wrong: str | None = None,
    answers_as: str | None = None,
    labels: Sequence[str] = (),
    upwards: Callable[[Row], bool] | None = None,
    metric: str | None = None,
    name: str | None = None,
    bad_rows: str = "refuse",
) -> dict[str, Any]:
    """Parts of a Task from the rows of a file; warnings point at who called the caller."""
    file = Path(path).name
    if not rows:
        raise InputError(f"{file} has no rows.")
    _check_choice("bad_rows", bad_rows, ("refuse", "drop"))
    _check_choice("answers_as", answers_as, (None, "text", "ids", "start_year"))
    clean_of = _column(file, rows, "clean", clean)
    twin_of = _column(file, rows, "corrupted", corrupted, needed=False)
    wrong_of = _column(file, rows, "wrong", wrong, needed=False)
    answer_of = _column(file, rows, "answer", answer, guesses=None if wrong_of else YEAR_GUESSES)
    for label in labels:
        _column(file, rows, "labels", label)
    prompts = _texts(file, rows, clean_of)
    twins = _texts(file, rows, twin_of) if twin_of else []
    kind = answers_as or _kind(rows, prompts, answer_of, wrong_of)
    found, warning = _answers(model, file, rows, prompts, answer_of, wrong_of, kind, answers_as)
    if warning:
        warnings.warn(f"{file}: {warning}", UserWarning, stacklevel=3)
    uneven = unequal_twins(model, prompts, twins) if twins else []
    kept, warning = _kept(file, found, uneven, drop=bad_rows == "drop")
    if warning:
        warnings.warn(f"{file}: {warning}", UserWarning, stacklevel=3)
    pairs = [found[i] for i in kept]
    usual = "probability_difference" if kind == "start_year" else "logit_difference"
    return {
        "name": name or Path(path).stem,
        "clean": tuple(prompts[i] for i in kept),
        "corrupted": tuple(twins[i] for i in kept) if twins else (),
        "answers": tuple(right for right, _ in pairs),
        "wrong": tuple(others for _, others in pairs),
        "metric": metric or usual,
        "labels": {label: tuple(str(rows[i][label]) for i in kept) for label in labels},
        "directions": tuple(1 if upwards(rows[i]) else -1 for i in kept) if upwards else (),
    }


def _check_choice(what: str, given: str | None, choices: tuple[str | None, ...]) -> None:
    if given not in choices:
        raise InputError(f"{what} must be one of {', '.join(map(repr, choices))}, got {given!r}.")


def _column(
    file: str,
    rows: Sequence[Row],
    part: str,
    given: str | None,
    *,
    needed: bool = True,
    guesses: tuple[str, ...] | None = None,
) -> str:
    """Find the column of a part: as named, else by the first guess; empty if none is needed."""
    columns = list(rows[0])
    if given is None:
        known = [guess for guess in guesses or GUESSES[part] if guess in columns]
        if known or not needed:
            return known[0] if known else ""
        raise InputError(
            f"{file} has no column that is known as {part!r}: pass {part}=, one of {columns}."
        )
    for i, row in enumerate(rows, start=1):
        if given not in row:
            raise InputError(f"{file}, row {i}: there is no column {given!r} among {[*row]}.")
    return given


def _texts(file: str, rows: Sequence[Row], column: str) -> list[str]:
    """Prompts of a column, each a text with words in it and no space at its end."""
    for i, row in enumerate(rows, start=1):
        text = row.get(column)
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{file}, row {i}: {column!r} must be a text, got {text!r}.")
    return [row[column] for row in rows]


def _kind(rows: Sequence[Row], prompts: Sequence[str], answer: str, wrong: str) -> str:
    """Return what the column of answers holds, by its name and the prompts."""
    if not wrong:
        years = (str(row[answer]).strip().zfill(2) for row in rows)
        if any(says_start(prompt, year) for prompt, year in zip(prompts, years, strict=True)):
            return "start_year"
    return "ids" if answer.endswith(("_id", "_ids", "_idx")) else "text"


def _answers(
    model: Model,
    file: str,
    rows: Sequence[Row],
    prompts: Sequence[str],
    answer: str,
    wrong: str,
    kind: str,
    said: str | None,
) -> tuple[list[Pair], str | None]:
    """Tokens of every row, or why there are none; and what the user should know."""
    if kind == "start_year":
        return of_start_years(model, prompts, [row[answer] for row in rows]), None
    if not wrong:
        raise InputError(f"{file}: pass wrong=, the column of wrong answers, of {[*rows[0]]}.")
    both = [(row.get(answer, ""), row.get(wrong, "")) for row in rows]
    if kind == "ids":
        return of_ids(model, prompts, both, trusted=said == "ids")
    return of_words(model, prompts, both), None


def _kept(
    file: str, found: Sequence[Pair], uneven: Sequence[int], drop: bool
) -> tuple[list[int], str | None]:
    """Rows that make prompts, and a warning about the others; an error if they are not dropped."""
    bad = {i: "its corrupted prompt has another number of tokens" for i in uneven} if drop else {}
    bad |= {i: each for i, each in enumerate(found) if isinstance(each, str)}
    kept = [i for i in range(len(found)) if i not in bad]
    if not bad and not uneven:
        return kept, None
    if not bad:
        return kept, (
            f"{len(uneven)} of {len(found)} corrupted prompts have another number of tokens "
            f"than their prompt, the first in row {uneven[0] + 1}. Patching and named "
            "positions need equal lengths: bad_rows='drop' leaves these rows out."
        )
    first = min(bad)
    count = f"{len(bad)} of {len(found)} rows"
    if not drop or not kept:
        way_out = "None is left." if drop else "bad_rows='drop' leaves them out."
        raise InputError(f"{file}, row {first + 1}: {bad[first]}. {count} are bad. {way_out}")
    return kept, f"{count} were dropped, the first is row {first + 1}: {bad[first]}."

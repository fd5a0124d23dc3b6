"""Tasks from one's own prompts: pairs in hand, or the rows of a file and what its columns hold."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from circuit_toolkit.arguments import described, expect, one_of
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.checks import existing_file
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.files.reading import parsed_json, read_json
from circuit_toolkit.models import Model
from circuit_toolkit.tasks.answers import (
    Pair,
    of_ids,
    of_start_years,
    of_words,
    says_start,
    start_digits,
)
from circuit_toolkit.tasks.nested import PARTS, published_columns, with_columns
from circuit_toolkit.tasks.tokens import next_tokens, unequal_lengths

if TYPE_CHECKING:
    import pandas as pd

Metric = Literal["logit_difference", "probability_difference"]
Row = Mapping[str, Any]
T = TypeVar("T")

# Names under which published files keep the parts of a prompt pair, the likeliest first.
GUESSES = {
    "clean": ("clean", "clean_prefix", "clean_prompt", "prompt", "text"),
    "corrupted": ("corrupted", "patch_prefix", "corrupted_prompt", "corrupt", "counterfactual"),
    "wrong": (
        "wrong",
        "wrong_answers",
        "patch_answer",
        "incorrect",
        "wrong_answer",
        "incorrect_idx",
        "corrupted_answer_idx",
        "corrupted_answers_idx",
        "wrong_id",
    ),
    "answer": (
        "answer",
        "answers",
        "clean_answer",
        "correct",
        "correct_answer",
        "correct_idx",
        "clean_answer_idx",
        "answers_idx",
        "answer_id",
    ),
}
_ROWS = "prompts"  # of a document of auto-circuit
_JSON_LINES = "Each line is an object of JSON; the name of a table ends in .csv or .tsv."
YEAR_GUESSES = (*GUESSES["answer"], "start_year", "year", "label")  # where there is no wrong answer


def from_pairs(
    cls: Callable[..., T],
    model: Model,
    pairs: Sequence[tuple[str, str, str, str]],
    *,
    name: str = "own",
    metric: Metric = "logit_difference",
) -> T:
    """Make a task of one's own prompts.

    Parameters
    ----------
    model : Model
        Whose tokenizer the answers must be single tokens of.
    pairs : sequence of (clean, corrupted, answer, wrong answer)
        The prompts end just before the answer, which begins with a space where the tokenizer
        wants one. Pairs should be of equal length: a warning says which are not.
    name : str
        Name of the task.
    metric : {"logit_difference", "probability_difference"}
        What says how right the model is.

    Returns
    -------
    Task

    Raises
    ------
    InputError
        If there is no pair, one is not four texts, or an answer is not one token.
    """
    expect(model, "model", "Model")
    is_table = hasattr(pairs, "columns") or isinstance(pairs, Mapping)
    rows: list[Any] = [*pairs] if isinstance(pairs, Iterable) and not is_table else [pairs]
    for each in rows:
        texts = isinstance(each, list | tuple) and all(isinstance(text, str) for text in each)
        if not texts or len(each) != 4:
            raise InputError(
                "pairs must be a list of (clean, corrupted, answer, wrong), four texts each, got "
                f"{described(each)}. Of a table read the columns: Task.from_table(model, table)."
            )
    if not rows:
        raise InputError("No pairs were given. Pass a list of (clean, corrupted, answer, wrong).")
    clean, corrupted, answers, wrong = zip(*rows, strict=True)
    if uneven := unequal_lengths(model, clean, corrupted):
        warnings.warn(
            f"{len(uneven)} of {len(clean)} corrupted prompts have another number of tokens "
            f"than their prompt, the first {corrupted[uneven[0]]!r}: patching and named "
            "positions need equal lengths.",
            UserWarning,
            stacklevel=2,
        )
    return cls(
        name=name,
        clean=clean,
        corrupted=corrupted,
        answers=tuple(map(partial(_token, model), clean, answers)),
        wrong=tuple(map(partial(_token, model), clean, wrong)),
        metric=metric,
    )


def _token(model: Model, prompt: str, word: str) -> tuple[int]:
    """Token of an answer, by itself or else as it follows its prompt: Llama's " Mary" is two."""
    try:
        return (model.token_id(word),)
    except InputError:
        if found := next_tokens(model, prompt, [word]):
            return (found[word],)
        raise


def from_table(
    cls: Callable[..., T],
    model: Model,
    table: str | os.PathLike | pd.DataFrame | Sequence[Row],
    *,
    clean: str | None = None,
    corrupted: str | None = None,
    answer: str | None = None,
    wrong: str | None = None,
    answers_as: Literal["text", "ids", "start_year"] | None = None,
    labels: Sequence[str] = (),
    upwards: Callable[[Row], bool] | None = None,
    metric: Metric | None = None,
    name: str | None = None,
    bad_rows: Literal["refuse", "drop"] = "refuse",
) -> T:
    """Read a task from a table: a prompt, its corrupted prompt and its answers in each row.

    Columns that are not named are guessed by the names that published files use. What is in
    the columns of answers decides the task:

    `text`: words. One without a leading space gets one where the prompt ends in a word.
    `ids`: token ids, which belong to one tokenizer. Where they were guessed, each must be a
    word of its prompt; if they are another tokenizer's, a warning says so and the answers are
    read from the text: of two names "A and B", the one that is said again is wrong.
    `start_year`: two digits YY, or all four, of a span from CCYY to CC: all later ends are right,
    others wrong, by probability. Guessed for columns such as `label` or `year` without a column of
    wrong answers.

    Tables of MIB are read as they are, from a file or as `datasets.load_dataset` gives them: its
    indirect objects, multiple choices and arithmetic, corrupted by the counterfactual that its
    authors take, or by the one that `corrupted` names, such as `"abc_counterfactual"`. Answers are
    tokens as they follow the prompt.

    Parameters
    ----------
    model : Model
        Whose tokenizer decides what one token is.
    table : str or path, DataFrame, or sequence of dict
        A file: Parquet, or CSV or TSV with a header, if its name ends so, else JSON lines (one
        object a line);
        `.json` may be one document, a list of rows or, as auto-circuit publishes, an object with
        the rows under `prompts`. Or its rows in hand. Answers in JSON may be lists.
    clean, corrupted, answer, wrong : str, optional
        Names of the columns; `a.b` is the entry b of a column of objects, `a[b]` the entry of the
        list a that b numbers. Without a column of corrupted prompts the task has none.
    answers_as : {"text", "ids", "start_year"}, optional
        What the columns of answers hold.
    labels : sequence of str
        Columns to keep as labels.
    upwards : callable, optional
        Says by a row (a dict) whether its direction is +1; else it is -1. See `directions`.
    metric : {"logit_difference", "probability_difference"}, optional
        By default the first, for start years the second.
    name : str, optional
        Name of the task; by default that of the file, or `own`.
    bad_rows : {"refuse", "drop"}
        What to do about rows whose answer is not one token. With "drop" they are left out, as
        are those without a corrupted prompt, or with one of another length than their prompt, and
        a warning counts them;
        with "refuse" a bad row is an error, and unequal corrupted prompts are only warned of.

    Returns
    -------
    Task

    Raises
    ------
    InputError
        If the file or a column is not there, or rows are bad: the first is named, counted
        from 1 without the header.
    FileFormatError
        If the file is no such table.
    """
    expect(model, "model", "Model")
    rows, file, stem = _rows(table)
    if not rows:
        raise InputError(f"{file} has no rows.")
    one_of(bad_rows, "bad_rows", "refuse", "drop")
    one_of(answers_as, "answers_as", None, "text", "ids", "start_year")
    named = {"clean": clean, "corrupted": corrupted, "answer": answer, "wrong": wrong}
    named = published_columns(rows[0], named)
    rows = with_columns(rows, [*named.values(), *labels])
    clean, corrupted, answer, wrong = (named[part] for part in PARTS)
    drop = bad_rows == "drop"
    clean_of = _column_of(file, rows, "clean", clean)
    corrupted_of = _column_of(file, rows, "corrupted", corrupted, needed=False)
    wrong_of = _column_of(file, rows, "wrong", wrong, needed=False)
    answer_of = _column_of(file, rows, "answer", answer, guesses=None if wrong_of else YEAR_GUESSES)
    for label in labels:
        _column_of(file, rows, "labels", label)
    prompts = _texts(file, rows, clean_of)
    corrupted_texts = _texts(file, rows, corrupted_of, gaps=drop) if corrupted_of else []
    kind = answers_as or _kind(rows, prompts, answer_of, wrong_of)
    found, warning = _answers(model, file, rows, prompts, answer_of, wrong_of, kind, answers_as)
    if warning:
        warnings.warn(f"{file}: {warning}", UserWarning, stacklevel=2)
    uneven = unequal_lengths(model, prompts, corrupted_texts) if corrupted_texts else []
    found = [
        "it has no corrupted prompt" if corrupted_texts and not corrupted_texts[i] else each
        for i, each in enumerate(found)
    ]
    kept, warning = _kept(file, found, uneven, drop=drop)
    if warning:
        warnings.warn(f"{file}: {warning}", UserWarning, stacklevel=2)
    pairs = [found[i] for i in kept]
    usual = "probability_difference" if kind == "start_year" else "logit_difference"
    return cls(
        name=name or stem,
        clean=tuple(prompts[i] for i in kept),
        corrupted=tuple(corrupted_texts[i] for i in kept) if corrupted_texts else (),
        answers=tuple(right for right, _ in pairs),
        wrong=tuple(others for _, others in pairs),
        metric=metric or usual,
        labels={label: tuple(str(rows[i][label]) for i in kept) for label in labels},
        directions=tuple(1 if upwards(rows[i]) else -1 for i in kept) if upwards else (),
    )


def _rows(table: Any) -> tuple[Sequence[Row], str, str]:
    """Rows of a file or in hand, what errors call them, and a name for the task."""
    if isinstance(table, str | os.PathLike):
        path = resolved(table)
        existing_file(path, "Pass a table of prompts: .csv, .tsv, .parquet, or JSON lines.")
        readers = {".csv": _csv_rows, ".tsv": _csv_rows, ".parquet": _parquet_rows}
        rows = readers.get(path.suffix, _json_rows)(path)
        return rows, path.name, path.stem
    given = table.to_dict("records") if hasattr(table, "columns") else table
    rows = [*given] if isinstance(given, Iterable) else [given]
    if not all(isinstance(row, Mapping) for row in rows):
        raise InputError(
            f"table must be the name of a file, a DataFrame or a list of dicts, got "
            f"{described(table)}. Pairs of prompts: Task.from_pairs."
        )
    return rows, "the table", "own"


def _csv_rows(path: Path) -> list[Row]:
    """Rows of a CSV or TSV file with a header."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            names = [*(reader.fieldnames or ())]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise FileFormatError(
                    f"{path.name} has the column {twice[0]!r} twice. Give each a name of its own."
                )
            rows: list[Row] = [*reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileFormatError(f"{path.name} is no CSV file in UTF-8: {error}.") from error
    for i, row in enumerate(rows, start=1):
        if None in row or None in row.values():  # how DictReader shows rows of another length
            raise FileFormatError(
                f"{path.name}, row {i}: it has not as many cells as the header. Texts with commas "
                "or line breaks belong in quotes."
            )
    return rows


def _parquet_rows(path: Path) -> list[Row]:
    """Rows of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FileFormatError(f"{path.name} is no readable Parquet file: {error}.") from error


def _json_rows(path: Path) -> list[Row]:
    """Rows of a file with one JSON object a line, or of one document that is a list of them.

    auto-circuit's files are one document, with the rows under `prompts`.
    """
    if path.suffix == ".json":
        try:
            found = read_json(path, _JSON_LINES)
        except FileFormatError:
            return _jsonl_rows(path)
        rows = found.get(_ROWS) if isinstance(found, dict) and _ROWS in found else found
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            return rows
        if isinstance(found, dict):
            return _jsonl_rows(path)  # a single line
        raise FileFormatError(
            f"{path.name} is one JSON document, not JSON lines, and holds no list of rows, itself "
            f"or under {_ROWS!r}. {_JSON_LINES}"
        )
    return _jsonl_rows(path)


def _jsonl_rows(path: Path) -> list[Row]:
    """Rows of a file with one JSON object a line."""
    rows = []
    try:
        for i, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
            if line.strip():
                rows.append(parsed_json(line, f"{path.name}, line {i}", _JSON_LINES))
                if not isinstance(rows[-1], dict):
                    raise FileFormatError(f"{path.name}, line {i} is no JSON object: {line[:60]}")
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path.name} is no text in UTF-8: {error}.") from error
    return rows


def _column_of(
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


def _texts(file: str, rows: Sequence[Row], column: str, *, gaps: bool = False) -> list[str]:
    """Prompts of a column, each a text with words in it; with gaps, empty where there is none."""
    for i, row in enumerate(rows, start=1):
        text = row.get(column)
        if not (gaps and text is None) and (not isinstance(text, str) or not text.strip()):
            raise InputError(f"{file}, row {i}: {column!r} must be a text, got {text!r}.")
    return [row.get(column) or "" for row in rows]


def _kind(rows: Sequence[Row], prompts: Sequence[str], answer: str, wrong: str) -> str:
    """Return what the column of answers holds, by its name and the prompts."""
    if not wrong:
        years = (start_digits(row[answer]) for row in rows)
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

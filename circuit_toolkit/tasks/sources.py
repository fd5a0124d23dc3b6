"""Where the prompts of a task come from, other than from the tasks of the literature."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.tasks import files, hub
from circuit_toolkit.tasks.tokens import unequal_twins

Metric = Literal["logit_difference", "probability_difference"]


class Sources:
    """The ways to make a `Task`; its only subclass holds what is made."""

    @classmethod
    def from_pairs(
        cls,
        model: Model,
        pairs: Sequence[tuple[str, str, str, str]],
        *,
        name: str = "own",
        metric: Metric = "logit_difference",
    ) -> Self:
        """Make a task of one's own prompts.

        Parameters
        ----------
        model : Model
            Whose tokenizer the answers must be single tokens of.
        pairs : sequence of (clean, corrupted, answer, wrong answer)
            The prompts end just before the answer, which begins with a space where the tokenizer
            wants one. Twins should be of equal length: a warning says which are not.
        name : str
            Name of the task.
        metric : {"logit_difference", "probability_difference"}
            What measures the model.

        Returns
        -------
        Task

        Raises
        ------
        InputError
            If there is no pair, one has not four parts, or an answer is not one token.
        """
        if not pairs or any(len(pair) != 4 for pair in pairs):
            raise InputError(f"Pass (clean, corrupted, answer, wrong) tuples, got {pairs!r:.80}.")
        clean, corrupted, answers, wrong = zip(*pairs, strict=True)
        if uneven := unequal_twins(model, clean, corrupted):
            warnings.warn(
                f"{len(uneven)} of {len(clean)} corrupted prompts have another number of tokens "
                f"than their prompt, the first {corrupted[uneven[0]]!r}: patching and named "
                "positions need equal lengths.",
                UserWarning,
                stacklevel=2,
            )
        parts: dict[str, Any] = {
            "name": name,
            "clean": tuple(clean),
            "corrupted": tuple(corrupted),
            "answers": tuple((model.token_id(word),) for word in answers),
            "wrong": tuple((model.token_id(word),) for word in wrong),
            "metric": metric,
        }
        return cls(**parts)

    @classmethod
    def from_csv(
        cls,
        model: Model,
        path: str | os.PathLike,
        *,
        clean: str | None = None,
        corrupted: str | None = None,
        answer: str | None = None,
        wrong: str | None = None,
        answers_as: Literal["text", "ids", "start_year"] | None = None,
        labels: Sequence[str] = (),
        upwards: Callable[[Mapping[str, Any]], bool] | None = None,
        metric: Metric | None = None,
        name: str | None = None,
        bad_rows: Literal["refuse", "drop"] = "refuse",
    ) -> Self:
        """Read a task from a table: a prompt, its corrupted prompt and its answers in each row.

        Columns that are not named are guessed by the names that published files use. What is in
        the columns of answers decides the task:

        `text`: words. One without a leading space gets one where the prompt ends in a word.
        `ids`: token ids, which belong to one tokenizer. Where they were guessed, each must be a
        word of its prompt; if they are another tokenizer's, a warning says so and the answers are
        read from the text: of two names "A and B", the one that is said again is wrong.
        `start_year`: two digits YY of a span from CCYY to CC: all later ends are right, others
        wrong, by probability. Guessed for a column `label` without a column of wrong answers.

        Parameters
        ----------
        model : Model
            Whose tokenizer decides what one token is.
        path : str or path
            A CSV file with a header, or TSV by its ending; see `from_jsonl` for JSON lines.
        clean, corrupted, answer, wrong : str, optional
            Names of the columns. Without a column of corrupted prompts the task has none.
        answers_as : {"text", "ids", "start_year"}, optional
            What the columns of answers hold.
        labels : sequence of str
            Columns to keep as labels.
        upwards : callable, optional
            Says by a row (a dict) whether its direction is +1; else it is -1. See `directions`.
        metric : {"logit_difference", "probability_difference"}, optional
            What measures the model; by default the first, for start years the second.
        name : str, optional
            Name of the task; by default that of the file.
        bad_rows : {"refuse", "drop"}
            What to do about rows whose answer is not one token. With "drop" they are left out, as
            are corrupted prompts of another length than their prompt, and a warning counts both;
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
        parts = files.task_parts(
            model,
            files.csv_rows(path),
            path,
            clean=clean,
            corrupted=corrupted,
            answer=answer,
            wrong=wrong,
            answers_as=answers_as,
            labels=labels,
            upwards=upwards,
            metric=metric,
            name=name,
            bad_rows=bad_rows,
        )
        return cls(**parts)

    @classmethod
    def from_jsonl(cls, model: Model, path: str | os.PathLike, **options: Any) -> Self:
        """Read a task from JSON lines: one object a line, with the fields of a row of `from_csv`.

        Answers may be lists.

        Parameters
        ----------
        model : Model
            Whose tokenizer decides what one token is.
        path : str or path
            The file, whatever its ending.
        **options
            As in `from_csv`, with fields for columns.

        Returns
        -------
        Task

        Raises
        ------
        InputError
            As `from_csv`.
        FileFormatError
            If a line is no JSON object.
        """
        return cls(**files.task_parts(model, files.jsonl_rows(path), path, **options))

    @classmethod
    def from_hub(
        cls,
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
    ) -> Self:
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
        parts = hub.task_parts(
            model,
            name,
            data=data,
            config=config,
            split=split,
            text=text,
            labels=labels,
            n=n,
            seed=seed,
            max_tokens=max_tokens,
        )
        return cls(**parts)

"""The tables of the model card, written from measured scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuit_toolkit.errors import FileFormatError

# What the bundled model must reach on held-out material: task -> (score, at least).
REQUIRED = {
    "ioi": {"accuracy": 0.98, "logit_difference": 3.0},
    "greater_than": {"probability_difference": 0.80},
    "docstring": {"accuracy": 0.98},
    "agreement": {"accuracy": 0.98},
    "bios": {"accuracy": 0.95},
    "induction": {"accuracy": 0.90},
}
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def tables(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Write scores as Markdown.

    Parameters
    ----------
    scores : dict
        `{"model": evaluate_model(...), "dictionaries": evaluate_dictionaries(...), "needed":
        features_needed(...)}`.

    Returns
    -------
    str
        A table of the model, one of the dictionaries and one of the features that tasks need.
    """
    lines = ["| task, held out | score | required | measured |", "|---|---|---|---|"]
    for task, required in REQUIRED.items():
        for score, least in required.items():
            value = scores["model"][task][score]
            lines.append(f"| {task} | {score.replace('_', ' ')} | {least:.2f} | {value:.3f} |")
    lines += [
        "",
        "| dictionary | CE recovered | L0 | dead | explained variance | one role, F1 >= .8 |",
        "|---|---|---|---|---|---|",
    ]
    for site, row in scores["dictionaries"].items():
        lines.append(
            f"| `{site}` | {row['ce_recovered']:.3f} | {row['l0']:.1f} | {row['dead']:.1%} | "
            f"{row['explained_variance']:.3f} | {row['role_f1']:.1%} |"
        )
    lines += [
        "",
        "| task, held out | features for faithfulness .8 in a prompt, all tokens | last token | "
        "kept, errors ablated |",
        "|---|---|---|---|",
    ]
    for task, row in scores["needed"].items():
        every, last = (row[f"prompt, {where}, corrupted"] for where in ("all tokens", "last token"))
        lines.append(
            f"| {task} | {every['faithful']} | {last['faithful']} | {row['errors ablated']:.2f} |"
        )
    return "\n".join(lines)


def update(path: Path, text: str, part: str = "measured") -> None:
    """Put tables between two markers of a Markdown file.

    Parameters
    ----------
    path : Path
        A file that has the two markers.
    text : str
        What to put there.
    part : str
        Which markers: `<!-- measured: begin -->` and `<!-- measured: end -->`.

    Raises
    ------
    FileFormatError
        If a marker is missing.
    """
    begin, end = (mark.replace("measured", part) for mark in (BEGIN, END))
    page = path.read_text()
    if begin not in page or end not in page:
        raise FileFormatError(f"{path} lacks {begin!r} or {end!r}: add them where tables belong.")
    head, rest = page.split(begin, 1)
    path.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}")

"""The command that computes what the bundled tasks are judged by, and writes its table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.demo.card import update


class Reference(NamedTuple):
    """One kind of truth about the bundled model, of which every task has a file.

    Parameters
    ----------
    part : str
        Name of its table in the model card.
    folder : Path
        Where the files are.
    tasks : tuple of str
        Tasks.
    prompts : int
        Pairs of each task.
    compute : callable
        `compute(task, prompts, progress=)` gives what has `save(path)`.
    read : callable
        `read(task)` gives what is stored.
    table : callable
        Writes a list of these as Markdown.
    """

    part: str
    folder: Path
    tasks: tuple[str, ...]
    prompts: int
    compute: Callable[..., Any]
    read: Callable[[str], Any]
    table: Callable[[list[Any]], str]


def run_reference(reference: Reference, description: str | None, argv: list[str] | None) -> None:
    """Compute references and store them, or write the table of the stored ones into a card.

    Parameters
    ----------
    reference : Reference
        Which kind.
    description : str
        What the command says of itself.
    argv : list of str, optional
        Arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--tasks", default=",".join(reference.tasks))
    parser.add_argument("--prompts", type=int, default=reference.prompts, help="of each task")
    parser.add_argument("--out", type=Path, default=reference.folder, help="folder of the files")
    parser.add_argument("--card", type=Path, help="write the table of the stored ones, no more")
    args = parser.parse_args(argv)
    names = args.tasks.split(",")
    if args.card:
        update(args.card, reference.table([reference.read(name) for name in names]), reference.part)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        found = reference.compute(name, args.prompts, progress=sys.stderr.isatty())
        found.save(args.out / f"{name}.json")
        sys.stdout.write(reference.table([found]).splitlines()[-1] + "\n")
        sys.stdout.flush()

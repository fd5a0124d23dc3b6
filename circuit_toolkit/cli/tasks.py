"""`circuit-toolkit tasks`: which tasks a model does, how well, and what chance would give."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from circuit_toolkit.cli.model import asked_model
from circuit_toolkit.cli.output import bundled_task, markdown, number, write, write_json
from circuit_toolkit.errors import InputError
from circuit_toolkit.files.documents import plain


def run_tasks(args: argparse.Namespace) -> None:
    """Run a model on the tasks and print accuracy and metric of each."""
    from circuit_toolkit.tasks import BUNDLED

    names = args.task.split(",") if args.task else list(BUNDLED)
    makers = {name: bundled_task(name) for name in names}
    model = asked_model(args)
    rows = [_measured(name, make, model, args) for name, make in makers.items()]
    result = {
        "model": model.name,
        "split": "held-out" if args.test else "training",
        "chat": args.chat,
        "tasks": rows,
    }
    if args.json:
        write_json(result)
    else:
        write(*_lines(plain(result, "result")))


def _measured(name: str, make: Any, model: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Figures of one task; where the model cannot be asked they are None, with the reason."""
    nothing = ("n", "solved", "accuracy", "chance", "metric", "mean", "example", "answer")
    nothing += ("corrupted_accuracy", "corrupted_mean", "cpu_seconds")
    try:
        task = make(model, n=args.n, seed=args.seed, test=args.test)
        task = task.as_chat(model) if args.chat else task
    except InputError as error:
        return {"task": name, **dict.fromkeys(nothing), "refused": str(error)}
    cpu = time.process_time()
    found = task.performance(model, progress=sys.stderr.isatty())
    return {
        "task": task.name,
        "n": found.n,
        "solved": found.solved,
        "accuracy": found.accuracy,
        "chance": found.chance,
        "metric": task.metric,
        "mean": found.mean,
        "corrupted_accuracy": found.corrupted_accuracy,
        "corrupted_mean": found.corrupted_mean,
        "example": task.clean[0],
        "answer": [model.word(token) for token in task.answers[0]],
        "cpu_seconds": time.process_time() - cpu,
        "refused": None,
    }


def _lines(result: dict[str, Any]) -> list[str]:
    """Describe the result in words and a table."""
    asked = [row for row in result["tasks"] if row["refused"] is None]
    heads = ["task", "prompts", "solved", "accuracy", "by chance", "corrupted"]
    heads += ["metric", "mean", "corrupted", "CPU s"]
    rows = [
        (
            *(row["task"], row["n"], row["solved"]),
            *(number(row[key], ".2f") for key in ("accuracy", "chance", "corrupted_accuracy")),
            row["metric"].replace("_", " "),
            *(number(row[key], ".2f") for key in ("mean", "corrupted_mean")),
            number(row["cpu_seconds"], ".1f"),
        )
        for row in asked
    ]
    return [
        f"{result['model']} on {result['split']} prompts{' as chats' if result['chat'] else ''}",
        "",
        *markdown(heads, rows),
        "",
        *(f"{row['task']}: {row['example']!r} -> {_first(row['answer'])}" for row in asked),
        *(
            f"{row['task']} cannot be asked: {row['refused']}"
            for row in result["tasks"]
            if row["refused"] is not None
        ),
        "By chance: answers and wrong tokens ranked at random. Corrupted: prompts without the "
        "evidence, scored with the same answers.",
    ]


def _first(answers: list[str], shown: int = 3) -> str:
    """Write the first answers."""
    more = f", ... ({len(answers)})" if len(answers) > shown else ""
    return ", ".join(map(repr, answers[:shown])) + more

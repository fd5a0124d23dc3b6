"""The command line: learn and test a circuit, draw the graph of a prompt, describe features."""

from __future__ import annotations

import argparse
from importlib import import_module

from circuit_toolkit.cli.output import warn
from circuit_toolkit.errors import ToolkitError
from circuit_toolkit.files.documents import resolved

TASKS = "ioi, greater_than, docstring, agreement, bios"
COMMANDS = {  # name -> module and function, imported when it is asked for
    "demo": ("demo", "run_demo"),
    "graph": ("graph", "run_graph"),
    "heads": ("heads", "run_heads"),
    "describe": ("describe", "run_describe"),
    "tasks": ("tasks", "run_tasks"),
    "bench": ("bench", "run_bench"),
    "train": ("train", "run_train"),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command."""
    args = _parser().parse_args(argv)
    module, name = COMMANDS[args.command]
    try:
        getattr(import_module(f"circuit_toolkit.cli.{module}"), name)(args)
    except (ToolkitError, OSError) as error:
        warn(f"circuit-toolkit: {' '.join(str(error).split())}")
        return 1
    except KeyboardInterrupt:
        hint = " Run it again to go on." if args.command == "train" else ""
        warn(f"circuit-toolkit: {args.command} was interrupted.{hint}")
        return 130  # as a shell says it
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="circuit-toolkit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="learn, test and draw a circuit")
    demo.add_argument("--out", type=resolved, default="out", help="folder of the results")
    graph = commands.add_parser("graph", help="draw the attribution graph of a prompt")
    graph.add_argument("prompt", help="a text, up to the word that is asked for")
    graph.add_argument(
        "--target",
        action="append",
        help="a token that is explained, several times for several; by default the likeliest",
    )
    graph.add_argument(
        "--position", type=int, default=-1, help="token after which it stands; by default the last"
    )
    graph.add_argument("--transcoders", help="a folder, or a release of sae_lens")
    graph.add_argument("--max-features", type=int, default=5000, help="that are nodes at most")
    graph.add_argument("--out", type=resolved, default="out", help="folder of the results")
    heads = commands.add_parser("heads", help="find and test the attention heads of a task")
    heads.add_argument("--n", type=int, default=100, help="prompts with corrupted prompts")
    heads.add_argument("--seeds", type=int, default=3, help="autoencoders of head codes")
    heads.add_argument("--seed", type=int, default=0)
    for each in (demo, heads):
        each.add_argument("--task", default="ioi", help=TASKS)
    describe = commands.add_parser("describe", help="say what features mean, from weights alone")
    describe.add_argument("--layer", type=int, help="one layer; by default all")
    describe.add_argument("--dictionaries", help="transcoders: a folder, or a release of sae_lens")
    describe.add_argument(
        "--preset", default="code", help="thresholds: code (default), paper or robust"
    )
    describe.add_argument("--out", type=resolved, help="file of the table: .parquet or .json")
    describe.add_argument("--store", type=resolved, help="folder to resume in after a break")
    tasks = commands.add_parser("tasks", help="say which tasks a model does, and how well")
    tasks.add_argument("--task", help=f"names with commas; by default all: {TASKS}")
    tasks.add_argument("--n", type=int, default=100, help="prompts of each task")
    tasks.add_argument("--seed", type=int, default=0)
    tasks.add_argument("--test", action="store_true", help="held-out prompts")
    tasks.add_argument("--chat", action="store_true", help="in the model's chat template")
    for each in (demo, graph, heads, describe, tasks):
        each.add_argument("--model", default="demo", help="demo, a folder, or a name of the hub")
    bench = commands.add_parser("bench", help="run all methods where the circuit is known")
    kinds = bench.add_subparsers(dest="kind", required=True)
    known = kinds.add_parser("known-circuits", help="over all known circuits in a folder")
    known.add_argument("folder", type=resolved, help="cases, however deep")
    known.add_argument(
        "--metric", choices=["difference", "loss"], default="difference", help="for gradients"
    )
    known.add_argument("--n-prompts", type=int, default=1000, help="of each case, the first ones")
    task = kinds.add_parser("task", help="on tasks, against exact edge patching")
    task.add_argument("name", help="ioi, greater_than, agreement, bios; or a,b,c")
    task.add_argument(
        "--model", default="demo", help="demo (whose circuits are known), or any other"
    )
    task.add_argument("--n-prompts", type=int, help="of each task; by default 64, or 12")
    for each in (known, task):
        each.add_argument("--methods", help="names with commas; by default all")
        each.add_argument("--seed", type=int, default=0)
        each.add_argument("--repeats", type=int, default=1, help="the shortest time counts")
    train = commands.add_parser("train", help="train dictionaries of a real model, in the cache")
    train.add_argument("--model", default="smollm2", help="smollm2")
    train.add_argument("--folder", type=resolved, help="another place than the cache")
    for each in (demo, graph, heads, describe, tasks, known, task, train):
        each.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser

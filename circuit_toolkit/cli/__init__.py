"""The command line: find and test a circuit, draw the graph of a prompt, describe features.

Exit codes: 0; 1 if the work failed, or the circuit that was found is neither sufficient nor
necessary; 2 if what was asked for cannot be. The result is on standard output, with `--json` as one
document; progress and remarks are on standard error.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from importlib.metadata import version

from circuit_toolkit.cli.model import DTYPES
from circuit_toolkit.cli.output import warn
from circuit_toolkit.errors import InputError, ToolkitError
from circuit_toolkit.files.documents import resolved

TASKS = "ioi, greater_than, docstring, agreement, bios"
COMMANDS = {  # name -> module and function, imported when it is asked for
    "demo": ("find", "run_find"),
    "find": ("find", "run_find"),
    "graph": ("graph", "run_graph"),
    "heads": ("heads", "run_heads"),
    "describe": ("describe", "run_describe"),
    "tasks": ("tasks", "run_tasks"),
    "bench": ("bench", "run_bench"),
    "train": ("train", "run_train"),
}
PROMPT = "Greta and Thomas spent the winter in Seattle. Thomas sent a sandwich to"
EXAMPLES = {
    "": ("demo", "find --model smollm2 --task ioi", f"graph '{PROMPT}'"),
    "demo": ("demo", "demo --task agreement --json > result.json"),
    "find": (
        "find --model smollm2 --task ioi",
        "find --model my_model --dictionaries my_saes --prompts pairs.csv --out results",
        "find --model gpt2 --dictionaries gpt2-small-res-jb --sites 'resid_pre 8' --device auto",
    ),
    "graph": (
        f"graph '{PROMPT}'",
        "graph 'The capital of France is' --model gpt2 --transcoders folder --target ' Paris'",
    ),
    "heads": ("heads --task docstring", "heads --model smollm2 --task ioi --n 64 --json"),
    "describe": ("describe --preset paper --out features.parquet",),
    "tasks": ("tasks --model gpt2", "tasks --model smollm2 --task ioi,agreement --chat"),
    "bench": (
        "bench task ioi,agreement",
        "bench known-circuits folder --methods eap_ig,randomised_lasso",
    ),
    "train": (
        "train --model smollm2",
        "train --model my_model --texts texts.txt --sites 'resid_post 2' --folder my_saes",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    args = _parser().parse_args(argv)
    module, name = COMMANDS[args.command]
    try:
        return getattr(import_module(f"circuit_toolkit.cli.{module}"), name)(args) or 0
    except (ToolkitError, OSError) as error:
        warn(f"circuit-toolkit: {' '.join(str(error).split())}")
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        hint = " Run it again to go on." if args.command == "train" else ""
        warn(f"circuit-toolkit: {args.command} was interrupted.{hint}")
        return 130  # as a shell says it


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="circuit-toolkit", **_words("", str(__doc__)))
    own = f"circuit-toolkit {version('circuit_toolkit')}"
    parser.add_argument("--version", action="version", version=own)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, **_words(name, f"{text[0].upper()}{text[1:]}."))

    demo = command("demo", "learn, test and draw a circuit of the bundled model")
    demo.set_defaults(dictionaries=None, sites=None, prompts=None, n=None)
    find = command("find", "find, test and draw a circuit of your model, on your prompts")
    find.add_argument("--dictionaries", help="autoencoders: a folder, or a release of sae_lens")
    find.add_argument(
        "--sites", type=_names, help="with commas: only these, such as 'resid_post 8'"
    )
    find.add_argument(
        "--prompts",
        type=resolved,
        help="a table of prompts, corrupted prompts, answers and wrong answers: .csv, .tsv, "
        ".json or .jsonl; every second one is held out",
    )
    find.add_argument("--n", type=int, help="prompts to learn from, and as many to test on")
    graph = command("graph", "draw the attribution graph of a prompt")
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
    heads = command("heads", "find and test the attention heads of a task")
    heads.add_argument("--n", type=int, default=100, help="prompts with corrupted prompts")
    heads.add_argument("--seeds", type=int, default=3, help="autoencoders of head codes")
    heads.add_argument("--seed", type=int, default=0)
    for each in (demo, find, heads):
        each.add_argument("--task", default="ioi", help=TASKS)
    describe = command("describe", "say what features mean, from weights alone")
    describe.add_argument("--layer", type=int, help="one layer; by default all")
    describe.add_argument("--dictionaries", help="transcoders: a folder, or a release of sae_lens")
    describe.add_argument(
        "--preset", default="code", help="thresholds: code (default), paper or robust"
    )
    describe.add_argument("--out", type=resolved, help="file of the table: .parquet or .json")
    describe.add_argument("--store", type=resolved, help="folder to resume in after a break")
    for each in (demo, find, graph):
        each.add_argument("--out", type=resolved, default="out", help="folder of the results")
    tasks = command("tasks", "say which tasks a model does, and how well")
    tasks.add_argument("--task", help=f"names with commas; by default all: {TASKS}")
    tasks.add_argument("--n", type=int, default=100, help="prompts of each task")
    tasks.add_argument("--seed", type=int, default=0)
    tasks.add_argument("--test", action="store_true", help="held-out prompts")
    tasks.add_argument("--chat", action="store_true", help="in the model's chat template")
    bench = command("bench", "run all methods where the circuit is known")
    kinds = bench.add_subparsers(dest="kind", required=True)
    known = kinds.add_parser("known-circuits", help="over all known circuits in a folder")
    known.add_argument("folder", type=resolved, help="cases, however deep")
    known.add_argument(
        "--metric", choices=["difference", "loss"], default="difference", help="for gradients"
    )
    known.add_argument("--n-prompts", type=int, default=1000, help="of each case, the first ones")
    task = kinds.add_parser("task", help="on tasks, against exact edge patching")
    task.add_argument("name", help="ioi, greater_than, agreement, bios; or a,b,c")
    task.add_argument("--n-prompts", type=int, help="of each task; by default 64, or 12")
    for each in (known, task):
        each.add_argument("--methods", help="names with commas; by default all")
        each.add_argument("--seed", type=int, default=0)
        each.add_argument("--repeats", type=int, default=1, help="the shortest time counts")
    train = command("train", "train dictionaries of a model")
    train.add_argument(
        "--model", default="smollm2", help="smollm2, into the cache, on text made here; or yours"
    )
    train.add_argument("--folder", type=resolved, help="where they go; needed for your model")
    train.add_argument("--texts", type=resolved, help="file whose lines are texts, for your model")
    train.add_argument("--sites", type=_names, help="with commas, for your model")
    train.add_argument("--transcoders", action="store_true", help="of MLPs, for your model")
    train.add_argument("--steps", type=int, default=2000, help="for your model")
    for each in (demo, find, graph, heads, describe, tasks, task):
        each.add_argument(
            "--model", default="demo", help="demo, smollm2, a folder, or a name of the hub"
        )
    for each in (demo, find, graph, heads, describe, tasks, task, train):
        each.add_argument("--device", default="cpu", help="cpu (default), cuda, mps, or auto")
        each.add_argument(
            "--dtype", choices=DTYPES, default="float32", help="precision of the weights"
        )
    for each in (demo, find, graph, heads, describe, tasks, known, task, train):
        each.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _words(name: str, text: str) -> dict:
    """Return what a parser says of a command: text and examples, with their lines kept."""
    lines = [f"  circuit-toolkit {each}" for each in EXAMPLES[name]]
    return {
        "description": text,
        "epilog": "\n".join(["examples:", *lines]),
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]

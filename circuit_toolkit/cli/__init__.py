"""The command line: `demo` learns a circuit, `heads` ranks heads, `describe` features; `bench`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from circuit_toolkit.errors import ToolkitError


def main(argv: list[str] | None = None) -> int:
    """Run a command."""
    parser = argparse.ArgumentParser(prog="circuit-toolkit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="learn, test and draw a circuit of the bundled model")
    demo.add_argument("--task", default="ioi", help="ioi, greater_than, docstring, agreement, bios")
    demo.add_argument("--out", type=Path, default=Path("out"), help="folder of the results")
    demo.add_argument("--json", action="store_true", help="print the result as JSON")
    heads = commands.add_parser("heads", help="score attention heads by their codes")
    heads.add_argument(
        "--task", default="ioi", help="ioi, greater_than, docstring, agreement, bios"
    )
    heads.add_argument("--model", default="demo", help="demo, a folder, or a name of the hub")
    heads.add_argument("--n", type=int, default=100, help="prompts with corrupted prompts")
    heads.add_argument("--seeds", type=int, default=3, help="autoencoders")
    heads.add_argument("--seed", type=int, default=0)
    heads.add_argument("--json", action="store_true", help="print the result as JSON")
    describe = commands.add_parser("describe", help="say what features mean, from weights alone")
    describe.add_argument("--layer", type=int, help="one layer; by default all")
    describe.add_argument("--model", default="demo", help="demo, a folder, or a name of the hub")
    describe.add_argument("--dictionaries", help="transcoders: a folder, or a release of sae_lens")
    describe.add_argument(
        "--preset", default="code", help="thresholds: code (default), paper or robust"
    )
    describe.add_argument("--out", type=Path, help="file of the table: .parquet or .json")
    describe.add_argument("--store", type=Path, help="folder to go on in after an interruption")
    describe.add_argument("--json", action="store_true", help="print the result as JSON")
    bench = commands.add_parser("bench", help="run all methods where the circuit is known")
    kinds = bench.add_subparsers(dest="kind", required=True)
    known = kinds.add_parser("known-circuits", help="over all known circuits in a folder")
    known.add_argument("folder", type=Path, help="cases, however deep")
    known.add_argument(
        "--measure", choices=["difference", "loss"], default="difference", help="for gradients"
    )
    known.add_argument("--n-prompts", type=int, default=1000, help="of each case, the first ones")
    task = kinds.add_parser("task", help="on bundled tasks, against exact edge patching")
    task.add_argument("name", help="ioi, greater_than, agreement, bios; or a,b,c")
    task.add_argument("--model", default="demo", help="only `demo` has reference circuits")
    task.add_argument("--n-prompts", type=int, default=64, help="of each task")
    for each in (known, task):
        each.add_argument("--json", action="store_true", help="print the result as JSON")
        each.add_argument("--methods", help="names with commas; by default all")
        each.add_argument("--seed", type=int, default=0)
        each.add_argument("--repeats", type=int, default=1, help="the shortest time counts")
    args = parser.parse_args(argv)
    try:
        if args.command == "demo":
            from circuit_toolkit.cli.demo import demo as run

            run(args.task, args.out, args.json)
        elif args.command == "heads":
            from circuit_toolkit.cli.heads import run_heads

            run_heads(args)
        elif args.command == "describe":
            from circuit_toolkit.cli.describe import run_describe

            run_describe(args)
        else:
            from circuit_toolkit.cli.bench import run_bench

            run_bench(args)
    except ToolkitError as error:
        sys.stderr.write(f"circuit-toolkit: {error}\n")
        return 1
    return 0

"""Attack the toolkit, seeded: `python -m tests.fuzz`; ends with 1 where an attack came through.

Each kind of attack is a module with `attacks(count, seed)`, which yields an `Outcome` each.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time

from tests.fuzz.outcomes import Outcome, faults, table

# Kind of attack -> how many of them are made by default.
KINDS = {"mutations": 10_000, "kills": 200, "strings": 1_000}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    for kind, count in KINDS.items():
        parser.add_argument(f"--{kind}", type=int, default=count, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    outcomes: list[Outcome] = []
    for kind in KINDS:
        if options[kind]:
            module = importlib.import_module(f"tests.fuzz.{kind}")
            began = time.monotonic()
            outcomes += module.attacks(options[kind], options["seed"])
            took = time.monotonic() - began
            print(f"{options[kind]:,} {kind}: {took:.0f} s", file=sys.stderr)
    print(table(outcomes))
    if told := faults(outcomes):
        print(told, file=sys.stderr)
    return int(bool(told))


if __name__ == "__main__":
    sys.exit(main())

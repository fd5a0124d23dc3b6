"""What became of attacks: one line each, and the table of them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

NAMED = "named"  # refused by an error of the toolkit
SAME = "same"  # what was written is what was read, or what runs on is what was meant
VALID = "valid"  # something else that is whole and of use, where no checksum tells
SILENT = "silent"  # other data, and nothing said
FOREIGN = "foreign"  # an exception that is not the toolkit's, or a process that died
HANG = "hang"  # too long, or too much memory
SCRIPT = "script"  # a text of others ran, or broke out of its place
LEFT = "left"  # a temporary file stayed, or a user's file went
GOOD, BAD = (NAMED, SAME, VALID), (SILENT, FOREIGN, HANG, SCRIPT, LEFT)


@dataclass(frozen=True)
class Outcome:
    """One attack (`drop a byte`, 17) on one kind of thing (`circuit.json`), and how it ended."""

    kind: str
    attack: str
    seed: int
    result: str
    told: str = ""

    @property
    def is_good(self) -> bool:
        return self.result in GOOD


def table(outcomes: Iterable[Outcome]) -> str:
    """Return counts by kind in Markdown, and a row of sums."""
    counts: dict[str, Counter[str]] = {}
    for each in outcomes:
        counts.setdefault(each.kind, Counter())[each.result] += 1
    counts["all"] = sum(counts.values(), Counter())
    names = (*GOOD, *BAD)
    head = f"| | attacks | {' | '.join(names)} |\n|---|{'---:|' * (len(names) + 1)}\n"
    return head + "\n".join(
        f"| {kind} | {found.total():,} | {' | '.join(f'{found[name]:,}' for name in names)} |"
        for kind, found in counts.items()
    )


def faults(outcomes: Iterable[Outcome], most: int = 30) -> str:
    """Return the bad ones, a line each."""
    bad = [each for each in outcomes if not each.is_good]
    lines = [
        f"{each.kind}: {each.attack} (seed {each.seed}): {each.result}: {each.told}"
        for each in bad[:most]
    ]
    more = [f"and {len(bad) - most} more"] if len(bad) > most else []
    return "\n".join([*lines, *more])

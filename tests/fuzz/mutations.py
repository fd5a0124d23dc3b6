"""Damaged files: each is refused by name, or gives what was written.

An attack is read in a forked process, within 2 s and 200 MB: what crashes takes only itself along.
A file without a checksum, or one whose checksum a forger made anew, may hold something else that
is whole: then it must be of use, and what it says.
"""

from __future__ import annotations

import json
import os
import random
import resource
import select
import signal
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from circuit_toolkit.errors import ToolkitError
from tests.fuzz import damage
from tests.fuzz.outcomes import FOREIGN, HANG, NAMED, SAME, SILENT, VALID, Outcome
from tests.fuzz.targets import Stock, Target, print_of, targets

SECONDS, BYTES = 2.0, 200 * 2**20  # of the processor, and of memory, that reading may take
_GIVE_UP = (
    30.0  # seconds after which a process that does not answer is killed, on a busy machine too
)
_ROUND = 200  # attacks of one process


def attacks(count: int, seed: int) -> Iterator[Outcome]:
    """Make so many attacks, over all kinds of files."""
    with tempfile.TemporaryDirectory() as scratch:
        stock = Stock(Path(scratch) / "stock")
        (Path(scratch) / "read").mkdir()
        for target in targets(stock):
            place = Path(scratch) / target.kind.replace(" ", "_")
            place.mkdir()
            whole = target.make(place)
            copy = damage.copied(whole, Path(scratch) / "read" / whole.name)
            before = print_of(target.read(copy))  # reading may go on with what is there
            seeds = [seed * 10**6 + i for i in range(max(1, round(count * target.share)))]
            yield from _isolated(target, whole, before, seeds)


def _isolated(target: Target, whole: Path, before: str, seeds: list[int]) -> Iterator[Outcome]:
    """Attack in forked processes, a new one after a crash."""
    left = list(seeds)
    while left:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            failed = 1
            try:
                _attack_all(target, whole, before, left[:_ROUND], write)
                failed = 0
            finally:
                os._exit(failed)  # whatever happened: the rest is the parent's
        os.close(write)
        for outcome in _told(child, read):
            left.remove(outcome["seed"])
            yield Outcome(target.kind, **outcome)
        _, status = os.waitpid(child, 0)
        os.close(read)
        if status:
            by = "an error of its own"
            if os.WIFSIGNALED(status):
                by = signal.Signals(os.WTERMSIG(status)).name
            result = HANG if by == "SIGKILL" else FOREIGN
            yield Outcome(target.kind, "see the seed", left.pop(0), result, f"died by {by}")


def _told(child: int, read: int) -> Iterator[dict[str, Any]]:
    """Outcomes as a process tells them, a line each; one that falls silent is killed."""
    text = b""
    while True:
        ready, _, _ = select.select([read], [], [], _GIVE_UP)
        if not ready:
            os.kill(child, signal.SIGKILL)
            return
        if not (more := os.read(read, 2**16)):
            return
        text += more
        *lines, text = text.split(b"\n")
        yield from map(json.loads, lines)


def _attack_all(target: Target, whole: Path, before: str, seeds: list[int], write: int) -> None:
    signal.signal(signal.SIGPROF, _too_long)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with tempfile.TemporaryDirectory() as scratch:
        for seed in seeds:
            found = _attack(target, whole, before, seed, Path(scratch))
            os.write(write, json.dumps(found).encode() + b"\n")


def _attack(target: Target, whole: Path, before: str, seed: int, scratch: Path) -> dict[str, Any]:
    rng = random.Random(f"{target.kind} {seed}")
    copy = damage.copied(whole, scratch / whole.name)
    told = _damaged(target, copy, rng)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            result, why = _read(target, copy, before, told)
    except _TooLongError:
        result, why = HANG, f"more than {SECONDS} s"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if result in (SILENT, VALID) and any(each.category is UserWarning for each in warned):
        result, why = NAMED, str(warned[0].message)[:200]
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    if more * 1024 > BYTES:
        result, why = HANG, f"{more // 1024} MB"
    return {"attack": told, "seed": seed, "result": result, "told": why}


def _damaged(target: Target, copy: Path, rng: random.Random) -> str:
    files = sorted(copy.rglob("*")) if copy.is_dir() else [copy]
    file = rng.choice([each for each in files if each.is_file() and each.name != ".lock"])
    special = next(
        (ways for pattern, ways in target.damages.items() if fnmatch(file.name, pattern)), []
    )
    ways = rng.choice([special or damage.BYTES, damage.BYTES, special or damage.BYTES])
    way = damage.another_kind if rng.random() < 0.04 else rng.choice(ways)
    return f"{file.name}: {way(file, rng)}"


def _read(target: Target, copy: Path, before: str, told: str) -> tuple[str, str]:
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        found = target.read(copy)
        if print_of(found) == before:
            return SAME, ""
        if target.says is not None and print_of(target.says(copy)) != print_of(found):
            return SILENT, "something else than the file says"
        if target.sealed and "forged" not in told:
            return SILENT, "other content"
        target.use(found)
    except ToolkitError as error:
        text = str(error)
        return (NAMED, text[:200]) if text.strip() else (FOREIGN, "an error without words")
    except _TooLongError:
        raise
    except BaseException as error:  # whatever it is, it is not the toolkit's
        where = traceback.extract_tb(error.__traceback__)[-1]
        return FOREIGN, f"{type(error).__name__}: {str(error)[:120]} ({where.name}:{where.lineno})"
    return VALID, ""


class _TooLongError(BaseException):
    """No `except Exception` of a reader catches it."""


def _too_long(*_: Any) -> None:
    raise _TooLongError

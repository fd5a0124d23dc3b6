"""Captures that are killed by SIGKILL: a process of its own, since it forks.

`python -m tests.activations.store.killed_captures FOLDER` captures once without a pause into
FOLDER/whole;
kills captures into FOLDER/timed-0 (and -1, ...) at ten random moments, each going on where the one
before was killed; and kills one into FOLDER/planned at each step of a write. Each store is then
finished.
Last, a capture goes into FOLDER/held while another, which is stopped, is at work there, and again
when that is dead. It prints, as JSON, in what state every kill found its store.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from tests.tiny import random_sae, residual_sites, tiny_model

KILLS, PROMPTS, REFUSED = 10, 60, 7


def die(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_the(number: int, ending: str, do: Callable, after: bool = False) -> None:
    """Let `os.replace` do something else when it is about to name that file of that ending."""
    rename, seen = os.replace, 0

    def replace(part, path):
        nonlocal seen
        mine = str(path).endswith(ending)
        seen += mine
        if mine and seen == number and not after:
            do(part)
        rename(part, path)
        if mine and seen == number and after:
            do(part)

    os.replace = replace


def half(part) -> None:
    os.truncate(part, os.path.getsize(part) // 2)
    die()


STEPS = {  # the first manifest is written before the first shard
    "half a shard": lambda: at_the(3, ".safetensors", half),
    "a shard without its name": lambda: at_the(3, ".safetensors", die),
    "a shard that is not listed": lambda: at_the(3, ".safetensors", die, after=True),
    "half a manifest": lambda: at_the(3, ".json", half),
    "a manifest without its name": lambda: at_the(3, ".json", die),
    "a shard that is listed": lambda: at_the(3, ".json", die, after=True),
}


def state(folder: Path) -> dict:
    """What a kill left."""
    manifest = folder / "manifest.json"
    listed = json.loads(manifest.read_text())["content"]["shards"] if manifest.is_file() else {}
    there = {path.name for path in folder.glob("*.safetensors")}
    return {
        "listed": len(listed),
        "unlisted": len(there - set(listed)),
        "parts": len(list(folder.glob(".*.part"))),
    }


def main(root: Path) -> None:
    model = tiny_model()
    saes = {
        site: Dictionary(random_sae(model.name, site), site, site, "random")
        for site in residual_sites()[:2]
    }
    texts = [f"the boys near the cabinet {'near the war ' * (i % 5)}" for i in range(PROMPTS)]

    def begin(folder: Path, prepare: Callable[[], None] = lambda: None) -> int:
        child = os.fork()
        if child:
            return child
        prepare()
        try:
            capture(model, saes, texts, store=folder, batch_size=1, progress=False)
        except InputError as error:
            os._exit(REFUSED if "Another process writes to" in str(error) else 1)
        os._exit(0)

    def end(child: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def ended(child: int) -> bool:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    whole = root / "whole"
    began, first = time.monotonic(), None
    child = begin(whole)
    while not ended(child):
        if first is None and list(whole.glob("*.safetensors")):
            first = time.monotonic()
        time.sleep(0.001)
    assert end(child) == 0
    assert first is not None, "the capture that nobody killed wrote nothing"
    start, each = first - began, (time.monotonic() - first) / PROMPTS

    chance, timed, folder = random.Random(), [], 0
    while len(timed) < KILLS:
        here = root / f"timed-{folder}"
        before = len(list(here.glob("*.safetensors")))
        child = begin(here)
        if len(timed) < 3:  # at any time, most often before it writes
            time.sleep(chance.uniform(0, 1.2 * start))
        else:  # while it writes up to six shards
            while len(list(here.glob("*.safetensors"))) == before and not ended(child):
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 6 * each))
        os.kill(child, signal.SIGKILL)
        if end(child) == -signal.SIGKILL:
            timed.append({"folder": folder, **state(here)})
        else:  # it was faster, and is complete
            folder += 1
    planned = []
    for name, prepare in STEPS.items():
        assert end(begin(root / "planned", prepare)) == -signal.SIGKILL, name
        planned.append({"step": name, **state(root / "planned")})
    for name in [f"timed-{i}" for i in range(folder + 1)] + ["planned"]:
        assert end(begin(root / name)) == 0
    holder = begin(root / "held")
    while not list((root / "held").glob("*.safetensors")):
        time.sleep(0.001)
    os.kill(holder, signal.SIGSTOP)
    assert end(begin(root / "held")) == REFUSED
    os.kill(holder, signal.SIGKILL)
    assert end(holder) == -signal.SIGKILL
    assert end(begin(root / "held")) == 0
    sys.stdout.write(json.dumps({"timed": timed, "planned": planned}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

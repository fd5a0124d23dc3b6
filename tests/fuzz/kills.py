"""Kills: long work in a process of its own, SIGKILL at any moment, and the same work once more.

`attacks(count, seed)` starts a server, `python -m tests.fuzz.kills COUNT SEED`, in which torch and
all models are there already. Its two workers fork a process for each try, kill it, let another
finish the work and compare the folder, byte for byte, with that of work that nobody killed. It
prints outcomes as JSON, a line each.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any

from tests.fuzz.outcomes import FOREIGN, HANG, LEFT, SAME, SILENT, Outcome

Work = Callable[[Path], object]  # what fills a folder, or goes on with it
ROOT = Path(__file__).resolve().parents[2]
WORKERS, LIMIT = 2, 60  # seconds that finishing may take
DONE, TOLD, RAISED = 0, 3, 4  # exit codes
BUSY = "Another process"
PAID = "paid.txt"  # what an explainer was asked: a user's bill, not a file of the toolkit
LOCKS = (".lock", ".command.lock")


def attacks(count: int, seed: int) -> Iterator[Outcome]:
    """Kill so many processes, at moments that the seed and the machine's load decide."""
    command = [sys.executable, "-m", "tests.fuzz.kills", str(count), str(seed)]
    alone = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **alone}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        for line in server.stdout:
            yield Outcome(**json.loads(line))
    if server.returncode:
        yield Outcome("server", "start", seed, FOREIGN, f"it ended with {server.returncode}")


def works() -> dict[str, Work]:
    """Everything that writes for long, on tiny models."""
    from circuit_toolkit.activations.capturing import capture
    from circuit_toolkit.cli import main
    from circuit_toolkit.demo.grammar import Grammar
    from circuit_toolkit.dictionaries import Dictionary, train_dictionaries
    from circuit_toolkit.errors import ToolkitError
    from circuit_toolkit.features.descriptions.explainer import Explainer
    from circuit_toolkit.weight_lens import WeightLens
    from tests.circuit.made_up import made_up_circuit
    from tests.tiny import WIDTH, random_sae, residual_sites, tiny_model
    from tests.weight_lens.planted import random_transcoders, still_model

    model, still = tiny_model(), still_model()
    site, *_ = residual_sites()
    saes = {site: Dictionary(random_sae(model.name, site), site, site, "random")}
    transcoders = random_transcoders(still)
    lens = WeightLens("paper", theta_token=3.0, theta_feature=2.5, upstream="all")
    texts = [sentence.text for sentence in Grammar(0).sentences(60)]
    few: dict[str, Any] = {"n_features": 24, "k": 4, "steps": 24, "batch": 32, "progress": False}
    few["checkpoint_every"] = 3
    circuits = [made_up_circuit(seed=i) for i in range(6)]

    def train(sites: list[str], kind: str, given: Any, **more: Any) -> Work:
        return lambda folder: train_dictionaries(
            model, sites, given, kind, folder=folder, **few, **more
        )  # pyright: ignore[reportArgumentType]

    def saved(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for circuit in circuits:
            circuit.save(folder / "circuit.json")
            circuit.to_html(folder / "circuit.html")
            circuit.to_csv(folder / "tables")

    def explained(folder: Path) -> None:
        folder.mkdir(exist_ok=True)

        def call(prompt: str) -> str:
            with (folder / PAID).open("a") as bill:
                bill.write(f"{prompt}\n")
            time.sleep(0.005)
            return prompt.upper()

        Explainer(call, max_calls=30, show=str, store=folder / "answers").ask(
            {str(i): f"prompt {i}" for i in range(30)}
        )

    def command(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        where = ["--store", str(folder / "store"), "--out", str(folder / "table.json")]
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            if main(["describe", "--json", *where]):
                raise ToolkitError(said.getvalue())  # one line, which begins with the command

    small = {"memory": 4 * WIDTH * 100}
    return {
        "capture": lambda folder: capture(
            model, saes, texts, store=folder, batch_size=1, progress=False
        ),
        "training of an autoencoder": train(["resid_post 1"], "sae", texts),
        "training of transcoders": train(["mlp_in 0", "mlp_in 1"], "transcoder", texts),
        "training on a stream": train(["embed"], "sae", lambda: cycle(texts), **small),
        "descriptions": lambda folder: lens.describe(
            still, transcoders, store=folder, progress=False
        ),
        "answers of an explainer": explained,
        "circuits": saved,
        "command line": command,
    }


def begin(work: Work, folder: Path) -> int:
    """Start a work in a process of its own."""
    if child := os.fork():
        return child
    code = RAISED
    try:
        code = finish(work, folder)
    finally:
        os._exit(code)


def finish(work: Work, folder: Path) -> int:
    from circuit_toolkit.errors import ToolkitError

    try:
        work(folder)
        return DONE
    except BaseException as error:
        folder.with_suffix(".error").write_text(f"{type(error).__name__}: {error}")
        return TOLD if isinstance(error, ToolkitError) else RAISED


def end(child: int, limit: float = LIMIT) -> int | None:
    """Wait for a process; None if it takes too long, and it is killed then."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def kill(child: int) -> bool:
    """Kill a process; whether it was still at work."""
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def contents(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, folders as b"", but locks and bills."""
    return {
        str(each.relative_to(folder)): each.read_bytes() if each.is_file() else b""
        for each in folder.rglob("*")
        if each.name not in (*LOCKS, PAID)
    }


class Attacker:
    """One worker: kills, finishes, compares."""

    def __init__(self, name: str, work: Work, scratch: Path):
        self.name, self.work, self.scratch = name, work, scratch
        began = time.monotonic()
        whole = scratch / "whole"
        if (code := end(begin(work, whole))) != DONE:
            raise RuntimeError(f"{name} ends with {code} though nobody killed it: {told(whole)}")
        self.seconds, self.whole = time.monotonic() - began, contents(whole)

    def attack(self, seed: int) -> Outcome:
        """Kill once or more, then finish."""
        chance, folder = random.Random(seed), self.scratch / str(seed)
        second = chance.random() < 0.2
        kills = 0
        for _ in range(chance.choice([1, 1, 2, 3])):
            child = begin(self.work, folder)
            time.sleep(chance.uniform(0, self.seconds))
            if second and (found := self.second(child, folder, seed)):
                return found
            kills += kill(child)
        if not kills:
            shutil.rmtree(folder, ignore_errors=True)
            return self.attack(seed + 10**6)  # it was faster each time
        how = f"{kills} kills" + " and a second process" * second
        code = end(begin(self.work, folder))
        result, said = self.judged(code, folder, kills)
        shutil.rmtree(folder, ignore_errors=True)
        return Outcome(self.name, how, seed, result, said)

    def second(self, child: int, folder: Path, seed: int) -> Outcome | None:
        """Let another process at the folder while one is stopped: refused by name, or in time."""
        os.kill(child, signal.SIGSTOP)
        code = end(begin(self.work, folder))
        said = told(folder)
        if code == DONE or (code == TOLD and BUSY in said):
            return None
        kill(child)
        return Outcome(self.name, "a second process", seed, HANG if code is None else FOREIGN, said)

    def judged(self, code: int | None, folder: Path, kills: int) -> tuple[str, str]:
        if code is None:
            return HANG, f"not finished after {LIMIT} s"
        if code != DONE:  # it was to go on, so that a named error is one too many
            return FOREIGN, told(folder)
        found = contents(folder)
        if more := sorted(set(found) - set(self.whole)):
            return LEFT, ", ".join(more[:3])
        if lost := [name for name in self.whole if found.get(name) != self.whole[name]]:
            return SILENT, f"other than without a kill: {', '.join(lost[:3])}"
        paid = (folder / PAID).read_text().splitlines() if (folder / PAID).is_file() else []
        if len(paid) > len(set(paid)) + kills:
            return SILENT, f"{len(paid) - len(set(paid))} answers were paid for again"
        return SAME, ""


def told(folder: Path) -> str:
    file = folder.with_suffix(".error")
    return file.read_text()[:300] if file.is_file() else "nothing was said"


def worker(number: int, attackers: list[Attacker], count: int, seed: int) -> None:
    """Make every so many-th attack, and print what became of it."""
    for i in range(number, count, WORKERS):
        outcome = attackers[i % len(attackers)].attack(seed * 10**7 + i)
        os.write(1, f"{json.dumps(asdict(outcome))}\n".encode())


def serve(count: int, seed: int) -> int:
    """Make all attacks; the exit code says whether the workers lived."""
    with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
        attackers = []
        for i, (name, work) in enumerate(works().items()):
            warm = Path(scratch) / f"warm-{i}"
            work(warm)  # in this process: what is imported late is here for all
            place = Path(scratch) / str(i)
            place.mkdir()
            attackers.append(Attacker(name, work, place))
            if attackers[-1].whole != contents(warm):
                raise RuntimeError(f"{name} is not the same twice, without a kill")
            if i + 1 >= count:
                break
        children = []
        for number in range(WORKERS):
            if not (child := os.fork()):
                code = RAISED
                try:
                    worker(number, attackers, count, seed)
                    code = DONE
                finally:
                    os._exit(code)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(serve(int(sys.argv[1]), int(sys.argv[2])))

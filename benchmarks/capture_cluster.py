"""A capture on a Dask cluster of two processes beside the local one: wall time and equal files.

`python -m benchmarks.capture_cluster [PROMPTS] [TURNS]`, by default 20,000 prompts of the bundled
model with its dictionaries, 3 turns, in which the ways take turns: here with one thread, here with
as many as torch takes by itself (do not set OMP_NUM_THREADS), and `LocalCluster(n_workers=2,
threads_per_worker=1)`. The first capture on the cluster, for which the workers import all they
need, is told apart. Also prints CPU seconds, and how many cores other work took meanwhile: with
much of it, ratios say how the operating system shares cores among processes. Fails below the
budget, which is of one thread: two can be twice as fast as that. The default has both cores too, so
beside it no two processes can be faster than it is slower than twice one thread.
"""

import hashlib
import os
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch

import circuit_toolkit as ct

BUDGET = 1.7  # against one thread
ALONE, DEFAULT, FIRST, CLUSTER = "one thread", "default", "cluster, first", "cluster of 2"


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of all files of a store."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def busy() -> float:
    """CPU seconds of all processes of the machine."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice


def main() -> int:
    """Measure and print a table for RESULTS.md."""
    from dask.distributed import Client, LocalCluster

    given = [int(each) for each in sys.argv[1:]]
    n, turns = given + [20_000, 3][len(given) :]
    threads = torch.get_num_threads()
    model = ct.load_model("demo")
    saes = ct.load_dictionaries(model)
    task = ct.tasks.ioi(model, n=n // 2, seed=0)
    wall: dict[str, list[float]] = {ALONE: [], DEFAULT: [], FIRST: [], CLUSTER: []}
    used: dict[str, list[float]] = {name: [] for name in wall}
    shared: dict[str, list[float]] = {name: [] for name in wall}
    seen: dict[str, dict[str, str]] = {}

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):

        def spent() -> float:
            """CPU seconds of this process and the workers."""
            return time.process_time() + sum(client.run(time.process_time).values())

        def measured(name: str) -> None:
            torch.set_num_threads(1 if name == ALONE else threads)
            where = {"client": client} if name in (FIRST, CLUSTER) else {}
            with TemporaryDirectory() as folder:
                began, before, own = time.perf_counter(), busy(), spent()
                ct.capture(model, saes, task, store=folder, progress=False, **where)
                wall[name].append(time.perf_counter() - began)
                used[name].append(spent() - own)
                shared[name].append((busy() - before - used[name][-1]) / wall[name][-1])
                seen[name] = checksums(Path(folder))
            load = os.getloadavg()[0]
            print(f"{name}: {wall[name][-1]:.1f} s, load {load:.1f}", file=sys.stderr, flush=True)

        measured(FIRST)
        for turn in range(turns):
            ways = [ALONE, DEFAULT, CLUSTER]
            for name in ways[turn % 3 :] + ways[: turn % 3]:
                measured(name)

    same = {name: each == seen[ALONE] for name, each in seen.items()}
    print(
        f"| {n} prompts | wall s | to one thread | to the default | CPU s | cores that other work "
        "had | equal files |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, seconds in wall.items():
        middle = statistics.median(seconds)
        row = [f"{middle:.1f}"]
        row += [f"{statistics.median(wall[other]) / middle:.2f}" for other in (ALONE, DEFAULT)]
        row += [f"{statistics.median(used[name]):.1f}"]
        row += [f"{statistics.median(shared[name]):.2f}"]
        print(f"| {name} | " + " | ".join(row) + f" | {'yes' if same[name] else 'no'} |")
    print(
        f"\nMedians of {turns} turns; {os.cpu_count()} cores, {threads} threads by default, torch "
        f"{torch.__version__}; budget {BUDGET} of one thread"
    )
    fast = statistics.median(wall[ALONE]) / statistics.median(wall[CLUSTER]) >= BUDGET
    return int(not (fast and all(same.values())))


if __name__ == "__main__":
    sys.exit(main())

"""Peak memory and time of each notebook, one after the other: Binder gives a session 2 GB.

`python benchmarks/notebooks.py [notebook ...]`; by default 00 to 07 and the one that Binder opens.
Memory is what is resident of the kernel and its children, summed, read every 50 ms; pages that
they share count twice, so it is at most too high. JupyterLab beside it takes its own, also stated.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Event, Thread

import nbformat
import psutil
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
BUDGET = 2048  # MB
EVERY = 0.05  # seconds
MB = 2**20


class Watch(Thread):
    """Notes the largest sum of memory of a process and its children, in MB."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.process, self.peak, self.children, self.done = psutil.Process(pid), 0.0, 0, Event()

    def run(self) -> None:
        """Read until told to stop, or until the process is gone."""
        while not self.done.wait(EVERY):
            try:
                family = [self.process, *self.process.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            total = 0
            for each in family:
                try:
                    total += each.memory_info().rss
                except psutil.NoSuchProcess:  # ended since
                    continue
            self.peak = max(self.peak, total / MB)
            self.children = max(self.children, len(family) - 1)


def measure(notebook: Path) -> tuple[float, float, float, int]:
    """Return peak memory, seconds, seconds of CPU, and the most children at once."""
    book = nbformat.read(notebook, as_version=4)
    resources = {"metadata": {"path": str(notebook.parent)}}
    client = NotebookClient(book, timeout=900, kernel_name="python3", resources=resources)
    with client.setup_kernel():
        kernel = client.km.provisioner.process.pid  # pyright: ignore[reportOptionalMemberAccess]
        before = cpu_seconds(kernel)
        watch = Watch(kernel)
        watch.start()
        start = time.perf_counter()
        for index, cell in enumerate(book.cells):
            client.execute_cell(cell, index)
        seconds, busy = time.perf_counter() - start, cpu_seconds(kernel) - before
        watch.done.set()
        watch.join()
    return watch.peak, seconds, busy, watch.children


def cpu_seconds(pid: int) -> float:
    """Return what a process and the children that it waited for have computed."""
    return sum(psutil.Process(pid).cpu_times()[:4])


def lab_memory() -> float:
    """Return what JupyterLab's server alone has resident, in MB, once it answers."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
            + [f"--notebook-dir={folder}", "--port=0"],
            stdout=log,
            stderr=log,
            env=os.environ | {"JUPYTER_CONFIG_DIR": folder, "JUPYTER_RUNTIME_DIR": folder},
        )
        try:
            time.sleep(10)
            return psutil.Process(server.pid).memory_info().rss / MB
        finally:
            server.terminate()
            server.wait(20)


def main() -> None:
    """Print a row for each notebook; fail if one is over the budget."""
    given = [Path(name).resolve() for name in sys.argv[1:]]
    usual = [
        *sorted((ROOT / "notebooks").glob("0[0-7]_*.ipynb")),
        ROOT / "binder" / "explore.ipynb",
    ]
    lab = lab_memory()
    print(f"JupyterLab's server: {lab:.0f} MB; load before: {os.getloadavg()[0]:.1f}", flush=True)
    print("| notebook | peak memory | with JupyterLab | time | CPU | children |")
    print("|---|---|---|---|---|---|")
    over = []
    for notebook in given or usual:
        peak, seconds, busy, children = measure(notebook)
        total = peak + lab
        print(
            f"| `{notebook.name}` | {peak:,.0f} MB | {total:,.0f} MB | {seconds:.0f} s "
            f"| {busy:.0f} s | {children} |",
            flush=True,
        )
        over += [notebook.name] if total > BUDGET else []
    print(f"load after: {os.getloadavg()[0]:.1f}")
    if over:
        sys.exit(f"over {BUDGET} MB: {', '.join(over)}")


if __name__ == "__main__":
    main()

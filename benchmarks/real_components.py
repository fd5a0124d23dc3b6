"""Methods over components on a real model, against exact patching of some edges.

`python -m benchmarks.real_components [MODEL] [TASK ...]`: for each task what `circuit-toolkit bench
task TASK --model MODEL` measures, as rows for RESULTS.md, and the most memory that was held. Needs
the package of the model (`make real`); by default SmolLM2 on ioi, docstring and agreement.
"""

import resource
import subprocess
import sys

TASKS = ("ioi", "docstring", "agreement")


def main() -> None:
    """Print a table for each task, each from a process of its own."""
    model, *tasks = sys.argv[1:] or ["smollm2"]
    for task in tasks or TASKS:
        command = [sys.executable, "-m", "circuit_toolkit.cli", "bench", "task", task]
        subprocess.run([*command, "--model", model], check=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        print(f"\n{peak:.1f} GiB at most so far\n", flush=True)


if __name__ == "__main__":
    main()

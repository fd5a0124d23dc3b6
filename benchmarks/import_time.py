"""What `import circuit_toolkit` adds to `import torch`, each time in a fresh process."""

import platform
import statistics
import subprocess
import sys

RUNS = 7
BUDGET = 0.3  # seconds
CODE = """
import time
start = time.perf_counter()
import torch
torch_only = time.perf_counter() - start
import circuit_toolkit
print(torch_only, time.perf_counter() - start, torch.__version__)
"""


def measure() -> tuple[float, float, str]:
    """Seconds for torch, seconds for torch and circuit_toolkit, and torch's version."""
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    torch_only, both, version = done.stdout.split()
    return float(torch_only), float(both), version


def main() -> None:
    """Print one row for RESULTS.md: the median of the runs, after one that fills the disk cache."""
    measure()
    runs = [measure() for _ in range(RUNS)]
    torch_only = statistics.median(run[0] for run in runs)
    both = statistics.median(run[1] for run in runs)
    added = statistics.median(run[1] - run[0] for run in runs)
    print(
        f"| import time | torch {torch_only:.2f} s | with circuit_toolkit {both:.2f} s "
        f"| added {added:.3f} s, budget {BUDGET} s | median of {RUNS} processes, "
        f"Python {platform.python_version()}, torch {runs[0][2]} |"
    )
    if added > BUDGET:
        sys.exit(f"import circuit_toolkit adds {added:.2f} s, over its budget of {BUDGET} s")


if __name__ == "__main__":
    main()

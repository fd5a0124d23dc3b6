"""What loading a saved circuit and drawing its page costs, each time in a fresh process."""

import statistics
import subprocess
import sys
from pathlib import Path

RUNS = 5
CIRCUIT = Path(__file__).parents[1] / "circuit_toolkit/demo/reference/ioi.json"
CODE = """
import resource, sys
import circuit_toolkit as ct
ct.Circuit.load(sys.argv[1]).to_html()
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, "torch" in sys.modules)
"""


def main() -> None:
    """Print one row for RESULTS.md."""
    command = [sys.executable, "-c", CODE, str(CIRCUIT)]
    rows = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        for _ in range(RUNS)
    ]
    seconds, peak = (statistics.median(float(row[i]) for row in rows) for i in (0, 1))
    loaded = rows[0][2] == "True"
    print(
        f"| circuit of 1,372 edges | {seconds:.2f} CPU s | {peak:.0f} MB | torch loaded: {loaded} |"
    )


if __name__ == "__main__":
    main()

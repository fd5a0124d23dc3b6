"""Every public method on a pretend device, and on a model split over it and the CPU.

In a process of its own: torch counts devices before the first gradient, and keeps to it.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_method_runs_on_another_device_and_on_two():
    path = "tests/devices/far_methods.py"
    options = ["-q", "-x", "-p", "no:cacheprovider", "-m", "not gpu", "--tb=short"]
    command = [sys.executable, "-m", "pytest", path, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]

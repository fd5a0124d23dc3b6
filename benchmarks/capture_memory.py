"""What `estimate_capture` says of memory, beside what a process then holds more at its peak.

`python -m benchmarks.capture_memory [REPEATS]`: each case on the bundled model, captured in a
process of its own after two prompts to warm up, and estimated in another. Prints rows for
RESULTS.md; a share below 1 would be a capture that is begun and dies.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import circuit_toolkit as ct

CASES = {  # what is read, kind, prompts, batch_size, positions, whether to a store
    "6 autoencoders, 512 prompts by 64": ("sae", 512, 64, "all", False),
    "6 autoencoders, 512 prompts by 128": ("sae", 512, 128, "all", False),
    "6 autoencoders, 512 prompts by 256": ("sae", 512, 256, "all", False),
    "6 autoencoders, 512 prompts by 128, last token": ("sae", 512, 128, "last", False),
    "6 autoencoders, 1,024 prompts by 128, store": ("sae", 1024, 128, "all", True),
    "6 transcoders, 512 prompts by 64": ("transcoder", 512, 64, "all", False),
    "6 transcoders, 512 prompts by 128": ("transcoder", 512, 128, "all", False),
    "all heads, 512 prompts by 128": ("head_out", 512, 128, "all", False),
}
QUIET = {"progress": False}


def held(field: str) -> int:
    """Return memory of this process (VmRSS), or the most since it was last set (VmHWM), in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6


def run(name: str, what: str) -> dict:
    """Capture or estimate one case, here."""
    torch.set_num_threads(1)
    kind, n, batch_size, positions, stored = CASES[name]
    model = ct.load_model("demo")
    read = "head_out" if kind == "head_out" else ct.load_dictionaries(model, kind=kind)
    task = ct.tasks.ioi(model, n=n // 2)
    if what == "estimate":
        said = ct.estimate_capture(model, read, task, positions, batch_size=batch_size, **QUIET)
        return {"said": (said.stored_memory if stored else said.memory) / 1e6}
    ct.capture(model, read, task.subset(2), positions, **QUIET)
    with tempfile.TemporaryDirectory() as folder:
        where = {"store": Path(folder) / "store"} if stored else {}
        Path("/proc/self/clear_refs").write_text("5")  # the most memory so far is that of now
        before = held("VmRSS")
        acts = ct.capture(model, read, task, positions, batch_size=batch_size, **where, **QUIET)
        return {"held": held("VmHWM") - before, "kind": type(acts).__name__}


def apart(*args: str) -> dict:
    """Run in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.capture_memory", *args]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Print a row for each case."""
    if len(sys.argv) == 3:
        sys.stdout.write(json.dumps(run(sys.argv[1], sys.argv[2])))
        return
    repeats = int(sys.argv[1]) if len(sys.argv) == 2 else 3
    print("| case | held, MB | said, MB | said of held |\n|---|---:|---:|---:|")
    for name in CASES:
        most = [apart(name, "capture")["held"] for _ in range(repeats)]
        said = apart(name, "estimate")["said"]
        shares = ", ".join(f"{said / each:.2f}" for each in most)
        print(f"| {name} | {', '.join(f'{each:.0f}' for each in most)} | {said:.0f} | {shares} |")


if __name__ == "__main__":
    main()

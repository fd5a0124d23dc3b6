"""Circuits that open in a browser, made by the command line: `python docs/site/gallery.py`.

Each is what `circuit-toolkit demo --task TASK` writes: a page that needs no network, and the
circuit. They are kept in `build/gallery` for as long as the package stays as it is.
"""

from __future__ import annotations

import html
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from docs.site.notebooks import package_hash  # noqa: E402

KEPT = ROOT / "build" / "gallery"
TASKS = {
    "ioi": "Which of two names comes next? The one that was said once.",
    "greater_than": "A war that began in 1732 ended in 17…: which years are later?",
    "docstring": "Which argument is described next?",
    "agreement": "Is the subject singular or plural, whatever noun stands between?",
    "bios": "What is the profession of the person who is described?",
}


def folder() -> Path:
    """Return where the circuits of the package, as it is now, are kept."""
    return KEPT / package_hash()[:16]


def make() -> None:
    """Find and test each circuit that is not kept."""
    from circuit_toolkit.cli import main

    for old in KEPT.glob("*"):
        if old != folder():
            shutil.rmtree(old)
    for task in TASKS:
        if (folder() / task / "circuit.html").exists():
            continue
        part = folder() / f"{task}.part"
        main(["demo", "--task", task, "--out", str(part)])  # 1: what it found does not hold
        part.rename(folder() / task)


def shown() -> tuple[str, dict[str, bytes]]:
    """Return the circuits as Markdown, and the files that it leads to."""
    import circuit_toolkit as ct
    from circuit_toolkit.views.graph.header import verdict

    parts, files = [""], {}
    for task, question in TASKS.items():
        kept = folder() / task
        parts.append(f"## {task}\n\n{question}\n\n`circuit-toolkit demo --task {task}`\n")
        if not (kept / "circuit.json").exists():
            parts.append("Not made when this site was built: `make docs` makes it.\n")
            continue
        circuit = ct.Circuit.load(kept / "circuit.json")
        what, said = circuit.summary()[0], verdict(circuit)[1]
        files[f"gallery/{task}.html"] = (kept / "circuit.html").read_bytes()
        files[f"gallery/{task}.svg"] = circuit.to_svg().encode()
        files[f"gallery/{task}.json"] = (kept / "circuit.json").read_bytes()
        parts.append(
            f'<a class="ct-shown" href="gallery/{task}.html">'
            f'<img src="gallery/{task}.svg" alt="{html.escape(what)}"></a>\n\n'
            f"{html.escape(said)}\n\n"
            f"[Open the page](gallery/{task}.html) · [the circuit as a file](gallery/{task}.json)\n"
        )
    return "\n".join(parts), files


if __name__ == "__main__":
    make()

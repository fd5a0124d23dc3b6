"""Run the notebooks once for the site, and keep what they show: `python docs/site/notebooks.py`.

Notebooks are committed without outputs. Each is run here and kept in `build/notebooks` under the
hash of the notebook and of the package, so that it runs again only when either has changed.
"""

from __future__ import annotations

import hashlib
import time
from functools import cache
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RUN = ROOT / "build" / "notebooks"
REAL = "08_real_model"  # needs weights that only `make real` fetches


@cache
def package_hash() -> str:
    """Return the hash of all files of the package."""
    total = hashlib.sha256()
    for path in sorted((ROOT / "circuit_toolkit").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            total.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def kept(notebook: Path) -> Path:
    """Return where the run of a notebook, as it is now, is kept."""
    own = hashlib.sha256(package_hash().encode() + notebook.read_bytes()).hexdigest()[:16]
    return RUN / f"{notebook.stem}-{own}.ipynb"


def run(notebook: Path) -> None:
    """Run a notebook in its folder, and keep it; an error in a cell ends it."""
    from nbclient import NotebookClient  # here: the hooks import this module without running any

    book = nbformat.read(notebook, as_version=4)
    NotebookClient(
        book, timeout=900, kernel_name="python3", resources={"metadata": {"path": notebook.parent}}
    ).execute()
    for old in RUN.glob(f"{notebook.stem}-*.ipynb"):
        old.unlink()
    RUN.mkdir(parents=True, exist_ok=True)
    part = kept(notebook).with_suffix(".part")
    part.write_text(without_home(nbformat.writes(book)), encoding="utf-8")
    part.rename(kept(notebook))


def without_home(text: str) -> str:
    """Name folders of the user and of the project as anybody has them, not as this machine does."""
    return text.replace(f"{ROOT}/", "").replace(str(Path.home()), "~")


def main() -> None:
    """Run each notebook whose run is not kept."""
    for notebook in NOTEBOOKS:
        if kept(notebook).exists():
            continue
        if notebook.stem == REAL and not (ROOT / ".venv" / ".real").exists():
            print(f"{notebook.name}: shown without outputs; `make real` fetches what it needs")
            continue
        start = time.perf_counter()
        run(notebook)
        print(f"{notebook.name}: run in {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()

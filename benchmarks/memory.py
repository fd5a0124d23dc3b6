"""Peak resident memory of a process that runs every cell of the quickstart (Binder gives 2 GB)."""

import json
import resource
from pathlib import Path

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "00_quickstart.ipynb"


def main() -> None:
    """Run the cells and print the peak."""
    names: dict = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of the quickstart: {peak:.0f} MB")


if __name__ == "__main__":
    main()

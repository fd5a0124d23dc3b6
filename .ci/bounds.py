"""Print the lowest versions that pyproject.toml allows, as constraints: `make test-oldest`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

if __name__ == "__main__":
    extras = PROJECT["optional-dependencies"]
    for line in PROJECT["dependencies"] + extras["lab"] + extras["fast"] + extras["gguf"]:
        name, lowest = re.match(r"([\w-]+).*?>=([\w.]+)", line).groups()
        if name != "torch":  # installed before the others: its build is the machine's affair
            print(f"{name}=={lowest}")

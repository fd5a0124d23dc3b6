"""Where the toolkit keeps what can be made again: converted models, trained dictionaries."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(*parts: str) -> Path:
    """Return a folder under `$CIRCUIT_TOOLKIT_CACHE`, else `~/.cache/circuit_toolkit`."""
    root = os.environ.get("CIRCUIT_TOOLKIT_CACHE") or Path.home() / ".cache" / "circuit_toolkit"
    return Path(root).expanduser().joinpath(*parts)

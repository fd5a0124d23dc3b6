"""One dictionary of a source, nothing of it read yet; and what a user says where files are mute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from circuit_toolkit.sites import Site


@dataclass(frozen=True)
class Entry:
    """One dictionary of a source: its settings in the form of sae_lens, and itself on a device."""

    id: str
    config: Callable[[], dict[str, Any]]
    load: Callable[[str], Any]


@dataclass(frozen=True)
class Said:
    """Where a dictionary belongs whose files do not tell: the one site and the kind asked for."""

    site: Site | None = None
    kind: str | None = None

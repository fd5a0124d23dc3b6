"""What a user of the explorer chose: what undo goes back to, and a session stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from circuit_toolkit.sites import Site

GRAPH, GIVEN = "graph", "given"
METHODS = {
    GRAPH: "attribution graph",
    "randomised": "CircuitLasso, random ablations",
    "observational": "CircuitLasso, observational",
}


@dataclass(frozen=True)
class View:
    """A prompt, a way to its circuit, and what is shown of it."""

    prompt: str
    answers: tuple[str, str] | None = None
    method: str = GRAPH
    task: str = ""
    everywhere: bool = False  # all prompts of the task, or the one
    strength: float = 0.1
    size: int = 40
    sites: tuple[Site, ...] = ()
    positions: Any = "last"
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)  # of nodes, by a user
    pinned: tuple[str, ...] = ()

    @property
    def learns(self) -> bool:
        """Whether its circuit is read off a fit over many prompts."""
        return self.method not in (GRAPH, GIVEN)

    @property
    def fit(self) -> tuple:
        """What a fit depends on."""
        return (self.task, self.method, self.sites, self.positions)

    @property
    def drawn(self) -> tuple:
        """What a circuit of a fit depends on."""
        return (*self.fit, self.strength, self.size)

    @property
    def layout(self) -> tuple:
        """What a layout depends on: neither the strength nor the size."""
        if self.learns:
            return (*self.fit, "" if self.everywhere else self.prompt)
        return (self.method, self.prompt, self.answers)

    def chosen(self) -> dict[str, Any]:
        """Return all of it by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

"""Tasks: prompts with answers or labels, corrupted prompts and a metric."""

from circuit_toolkit.tasks.families import BUNDLED, agreement, bios, docstring, greater_than, ioi
from circuit_toolkit.tasks.performance import Performance
from circuit_toolkit.tasks.task import Task

__all__ = [
    "BUNDLED",
    "Performance",
    "Task",
    "agreement",
    "bios",
    "docstring",
    "greater_than",
    "ioi",
]

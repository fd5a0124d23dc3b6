"""The heads that a task is known to need: of the bundled model by causation, of others by name."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from circuit_toolkit.benchmark.heads.comparison import head_edges
from circuit_toolkit.benchmark.heads.effects import HeadEffects
from circuit_toolkit.benchmark.published_circuits import CANONICAL
from circuit_toolkit.benchmark.reference_circuits import reference_circuit
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model

FOLDER = Path(__file__).parents[2] / "demo" / "reference_heads"


def reference_heads(task: str) -> HeadEffects:
    """Read what replacing each head of the bundled model does to a bundled task.

    Parameters
    ----------
    task : str
        `ioi`, `greater_than`, `docstring`, `agreement` or `bios`.

    Returns
    -------
    HeadEffects
        Over held-out prompts, which `settings` name; `reference()` gives the heads of the circuit.

    Raises
    ------
    InputError
        If there are none of that name.
    """
    path = FOLDER / f"{task}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise InputError(f"No reference heads of task {task!r} are bundled. There are: {known}.")
    return HeadEffects.load(path)


class KnownHeads(NamedTuple):
    """The heads that a task is known to need in a model."""

    mask: np.ndarray
    edges: np.ndarray | None
    source: str


def known_heads(model: Model, task: str) -> KnownHeads | None:
    """Look up the heads that a task is known to need.

    Parameters
    ----------
    model : Model
        The bundled one, by causation; or one that has a canonical circuit, by name.
    task : str
        Name of the task.

    Returns
    -------
    KnownHeads or None
        None where nothing is known.
    """
    shape = (model.n_layers, model.n_heads)
    if model.name == "demo":
        if not (FOLDER / f"{task}.json").is_file():
            return None
        circuit = reference_circuit(task)
        edges = head_edges(circuit, *shape)
        return KnownHeads(reference_heads(task).reference(), edges, "reference by causation")
    canonical = CANONICAL.get(task, {}).get("acdc")
    if canonical is None or model.name not in canonical.models:
        return None
    edges = np.zeros((shape[0] * shape[1],) * 2, dtype=bool)
    for (i, j), (k, m) in canonical.head_edges():
        edges[i * shape[1] + j, k * shape[1] + m] = True
    return KnownHeads(canonical.mask(), edges, f"canonical circuit. {canonical.source}")

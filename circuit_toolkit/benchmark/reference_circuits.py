"""The causal circuits of the bundled tasks: every edge of the bundled model patched by itself."""

from __future__ import annotations

from pathlib import Path

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.errors import InputError

FOLDER = Path(__file__).parents[1] / "demo" / "reference"


def reference_circuit(task: str) -> Circuit:
    """Read the causal circuit of a bundled task over the components of the bundled model.

    Parameters
    ----------
    task : str
        `ioi`, `greater_than`, `agreement`, `docstring` or `bios`.

    Returns
    -------
    Circuit
        The score of an edge is the mean absolute change of the metric when that edge alone
        carries what it has on the corrupted prompt, its weight the mean change; both have three
        digits. `settings` say from which prompts.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    path = FOLDER / f"{task}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise InputError(f"No reference circuit of task {task!r} is bundled. There are: {known}.")
    return Circuit.load(path)

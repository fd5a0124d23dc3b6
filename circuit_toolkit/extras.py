"""Modules that an extra brings: a module of the package that wants one is imported through here."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from circuit_toolkit.errors import MissingExtra

EXTRAS = {  # module -> the extra of pyproject.toml that brings it
    "ipywidgets": "lab",
    "anywidget": "lab",
    "traitlets": "lab",
    "IPython": "lab",
    "dask": "scale",
    "distributed": "scale",
    "cloudpickle": "scale",
    "datasets": "hub",
    "gguf": "gguf",
    "peft": "peft",
}


def needed(name: str) -> ModuleType:
    """Import a module; where a package of an extra is missing, say what to type.

    Parameters
    ----------
    name : str
        Of the package's own, or of another's.

    Returns
    -------
    module

    Raises
    ------
    MissingExtra
        If it needs what an extra brings.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        raise MissingExtra(
            f"This needs {missing}, which is not installed. Type: "
            f"pip install 'circuit_toolkit[{EXTRAS[missing]}]'"
        ) from error

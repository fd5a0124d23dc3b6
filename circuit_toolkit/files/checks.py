"""Whether something can be written, or read, where a user says: asked before the work."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from circuit_toolkit.errors import InputError


def check_ending(path: Path, endings: Sequence[str]) -> None:
    """Refuse a file whose name says another format."""
    if path.suffix not in endings:
        raise InputError(f"The file must end in {' or '.join(endings)}, got {path.name!r}.")


def check_file(path: Path) -> None:
    """Refuse a place where no file can be written; nothing is made."""
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder. Pass the name of a file in it.")
    folder = path.parent
    if not os.path.isdir(folder):
        raise InputError(f"There is no folder {folder} for {path.name!r}. Make it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"The folder {folder} cannot be written to. Pass another.")


def check_folder(path: Path) -> None:
    """Refuse a place where no folder can be made or written to; nothing is made."""
    path = path.absolute()
    there = next(each for each in (path, *path.parents) if os.path.lexists(each))
    if not os.path.isdir(there):
        raise InputError(f"{there} is no folder, so nothing can be kept in {path}. Pass another.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"The folder {there} cannot be written to. Pass another.")


def existing_file(path: Path, remedy: str) -> Path:
    """Return the path of a regular file; a pipe would never end, and neither would a device."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        what = "is a link to nothing" if path.is_symlink() else "does not exist"
        raise InputError(f"There is no file {path}: it {what}. {remedy}") from error
    except (OSError, ValueError) as error:  # a ValueError: a NUL in the name
        raise InputError(f"{path} cannot be read ({error}). {remedy}") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{path} is a folder, not a file. {remedy}")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is no regular file, but a pipe or a device. {remedy}")
    return path

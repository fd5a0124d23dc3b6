"""A death at any change of the file system: nothing that runs after it changes a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHANGES = ("mkdir", "replace", "unlink", "rmdir", "fsync")


class Killed(BaseException):
    """Stands for SIGKILL: locks are let go of, and nothing is cleared up."""


def killed_at(patch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Die before that change of a file, the first of which is 1; return the changes so far."""
    seen: list[str] = []

    def dying(original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def change(*args: Any, **more: Any) -> Any:
            seen.append(name)
            if 0 < number <= len(seen):
                raise Killed
            return original(*args, **more)

        return change

    for name in CHANGES:
        patch.setattr(os, name, dying(getattr(os, name), name))
    return seen


def full_at(patch: pytest.MonkeyPatch, number: int, fault: int) -> list[str]:
    """From that change of a file on, refuse all that take room; return what was refused."""
    seen: list[str] = []
    refused: list[str] = []

    def refusing(original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def change(*args: Any, **more: Any) -> Any:
            seen.append(name)
            if len(seen) >= number:
                refused.append(name)
                raise OSError(fault, os.strerror(fault))
            return original(*args, **more)

        return change

    for name in ("mkdir", "replace", "fsync"):
        patch.setattr(os, name, refusing(getattr(os, name), name))
    return refused


def contents(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, however deep: name -> bytes, of a folder b""."""
    return {
        str(each.relative_to(folder)): each.read_bytes() if each.is_file() else b""
        for each in sorted(folder.rglob("*"))
    }

"""Places where something is written before it moves to its name, and what dead writers left there.

What becomes `NAME` is written into a folder `.NAME.<32 hexadecimal digits>.part` beside it, whose
writer locks a file in it. The operating system lets go of the lock when the process ends in any
way, so whoever gets it knows that the writer is dead, and clears up. A writer that is alive keeps
its folder. Where files cannot be locked (Windows, some network drives), nothing is cleared up.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from circuit_toolkit.errors import WriteError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_SCRATCH = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{32}\.part", re.DOTALL)
_LOCK = ".writer"
_OS_ERROR = re.compile(r"os error (\d+)")  # how code in Rust tells of one
_FAULTS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.ENAMETOOLONG),
}


def is_scratch(path: Path) -> bool:
    """Return whether a path is a folder of a writer, by its name."""
    return _SCRATCH.fullmatch(path.name) is not None


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Make a folder beside a path for what is to move there, and remove it with all in it."""
    clear_dead(path.parent, path.name)
    folder, lock = _locked_folder(path)
    try:
        yield folder
    finally:
        _let_go(folder, path, lock)


def replaced(folder: Path) -> Path:
    """Return where a folder is that had the name before, while the new one takes its place.

    It is as deep as it was: links in it lead where they led.
    """
    return folder.with_suffix(".old")


def put_back(folder: Path, path: Path) -> None:
    """Give a folder that is being replaced its name back, unless the new one has it."""
    if replaced(folder).exists() and not path.exists():
        os.replace(replaced(folder), path)


def clear_dead(parent: Path, name: str | None = None) -> None:
    """Remove what dead writers of a name, or of all names, left in a folder."""
    try:
        with os.scandir(parent) as entries:
            found = [each.name for each in entries if each.name.endswith(".part")]
    except OSError:  # absent, or not to be listed: it is written to, or refused, all the same
        return
    for each in found:
        matched = _SCRATCH.fullmatch(each)
        if matched and name in (None, matched["name"]):
            with contextlib.suppress(OSError):  # another cleared it, or it is not ours to remove
                _clear(parent / each, parent / matched["name"])


@contextmanager
def named_faults(path: Path) -> Iterator[None]:
    """Name a full disk, a folder that cannot be written to, and other faults of writing."""
    try:
        yield
    except Exception as error:  # safetensors has kinds of its own
        said = _OS_ERROR.search(str(error))
        number = error.errno if isinstance(error, OSError) else int(said[1]) if said else None
        if isinstance(error, WriteError) or number not in _FAULTS:
            raise
        raise write_error(path, number) from error


def write_error(path: Path, number: int) -> WriteError:
    """Return the error for what kept a file from being written, by the number of the system's."""
    found = WriteError(
        f"{path} could not be written: {os.strerror(number).lower()}. What was there is as it was. "
        "Make room on the disk, or pass a place that can be written to, and call again."
    )
    found.errno = number
    return found


def _locked_folder(path: Path) -> tuple[Path, int | None]:
    while True:
        folder = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
        folder.mkdir()
        try:
            return folder, _lock(folder)
        except (BlockingIOError, FileNotFoundError):  # taken for a dead one's before it was locked
            continue
        except BaseException:
            _remove(folder)
            raise


def _lock(folder: Path) -> int | None:
    """Lock a scratch folder; None where files cannot be locked."""
    if fcntl is None:
        return None
    file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(folder / _LOCK).st_ino == os.fstat(file).st_ino:
            return file
    except BlockingIOError:
        os.close(file)
        raise
    except OSError as error:
        os.close(file)
        if isinstance(error, FileNotFoundError):
            raise
        return None
    os.close(file)
    raise FileNotFoundError(folder)


def _clear(folder: Path, path: Path) -> None:
    """Remove a scratch folder if its writer is dead."""
    if (lock := _lock(folder)) is not None:
        _let_go(folder, path, lock)


def _let_go(folder: Path, path: Path, lock: int | None) -> None:
    """Remove a scratch folder, after what was to be replaced is back."""
    try:
        put_back(folder, path)
        _remove(folder)
    finally:
        if lock is not None:
            os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a scratch folder and what it replaced, its lock last."""
    for each in (replaced(folder), *folder.iterdir()):
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        elif each.name != _LOCK:
            each.unlink(missing_ok=True)
    (folder / _LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # another takes it for a dead one's now, and removes it
        folder.rmdir()

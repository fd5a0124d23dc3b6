"""Folders: one that work fills and goes on with, and one that is written whole or not at all.

A resumable folder holds files and a manifest of what they were made from, with their checksums.
One process at a time writes to it; another goes on with the same inputs only. Nothing that was not
written here is ever removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from circuit_toolkit.errors import FileFormatError, InputError, MismatchError
from circuit_toolkit.files.checks import check_folder
from circuit_toolkit.files.documents import (
    plain,
    read_document,
    resolved,
    sha256_of,
    write_document,
    write_file,
)
from circuit_toolkit.files.scratch import (
    clear_dead,
    is_scratch,
    named_faults,
    put_back,
    replaced,
    scratch,
)

LOCK = ".lock"
_SHOWN = 5  # differences that an error names

Differing = Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]]


@dataclass(frozen=True)
class FolderKind:
    """What the folders of one kind hold (`activations`), and how their manifest says it."""

    holds: str
    form: str
    version: int
    again: str  # what makes a file anew, for errors
    manifest: str = "manifest.json"
    listing: str = "files"  # key of the table of files


class ResumableFolder:
    """Files in a folder and their manifest; made by `opened` to write and by `read` to read."""

    def __init__(self, path: Path, kind: FolderKind, content: dict[str, Any]):
        self.path, self.kind, self.content = path, kind, content

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """Name of each file that is listed -> checksum, bytes, and what else was said of it."""
        return self.content[self.kind.listing]

    @classmethod
    def read(cls, path: str | os.PathLike, kind: FolderKind) -> ResumableFolder:
        """Read the manifest of a folder."""
        path = resolved(path)
        manifest = path / kind.manifest
        if not manifest.is_file():
            raise FileFormatError(
                f"{path} holds no {kind.holds}: it has no {kind.manifest}. {kind.again}"
            )
        lost = "Without it the files beside it cannot be trusted: pass another folder."
        content = read_document(manifest, kind.form, kind.version, lost)
        files = content.get(kind.listing)
        if not isinstance(files, dict) or not all(
            isinstance(each, dict) and isinstance(each.get("sha256"), str)
            for each in [*files.values()]
        ):
            raise FileFormatError(f"{manifest} lists no files with their checksums. {lost}")
        return cls(path, kind, content)

    @classmethod
    @contextmanager
    def opened(
        cls,
        path: str | os.PathLike,
        kind: FolderKind,
        content: Mapping[str, Any],
        *,
        n_files: int | None = None,
        differing: Differing | None = None,
    ) -> Iterator[ResumableFolder]:
        """Begin a folder, or go on with one of the same inputs, while no other process does.

        `content` holds `inputs`, on which all files depend; it may hold `made_with`, on which one
        goes on only where all `n_files` are there already.
        """
        path = resolved(path)
        check_folder(path)
        begun = (path / kind.manifest).is_file()
        there = path.iterdir() if path.is_dir() else ()
        names = {each.name for each in there if not is_scratch(each)}
        if not begun and (foreign := sorted(names - {LOCK, kind.manifest})):
            raise InputError(
                f"{path} holds {foreign[0]!r} and no {kind.holds}. Pass a new folder, or an empty "
                "one."
            )
        with locked(path):
            begun = (path / kind.manifest).is_file()
            clear_dead(path)
            new = {**plain(dict(content), "content"), kind.listing: {}}
            if begun:
                folder = cls.read(path, kind)
                folder._check_same(new, n_files, differing or differences)
                for name in folder.files:
                    folder.checked(name)
            else:
                folder = cls(path, kind, new)
                folder.save()
            yield folder

    def _check_same(self, new: dict[str, Any], n_files: int | None, differing: Differing) -> None:
        """Refuse to go on with files of other inputs, and let go of those that are missing."""
        there, path = self.content, self.path
        if not there.get("inputs"):
            raise MismatchError(
                f"{path} holds {self.kind.holds} that were saved. Pass another folder."
            )
        kept = {name: each for name, each in self.files.items() if (path / name).is_file()}
        differ = differing(there["inputs"], new["inputs"])
        if not differ and len(kept) != n_files:
            differ = differing(there.get("made_with", {}), new.get("made_with", {}))
        if differ:
            more = f" and {len(differ) - _SHOWN} more" if len(differ) > _SHOWN else ""
            raise MismatchError(
                f"{path} holds {self.kind.holds} of other inputs: {'; '.join(differ[:_SHOWN])}"
                f"{more}. Pass the same inputs to go on with it, or another folder."
            )
        there[self.kind.listing] = kept

    def checked(self, name: str) -> Path:
        """Return the path of a file, after a look at its checksum."""
        listed = self.files[name]
        check_listed(self.path / name, listed["sha256"], listed.get("bytes"), self.kind.again)
        return self.path / name

    def write(self, name: str, write: Callable[[Path], object], **more: Any) -> None:
        """Write a file whole or not at all, and list it with its checksum and whatever more."""
        self.enter(name, {**written(self.path / name, write), **more})

    def enter(self, name: str, listed: dict[str, Any]) -> None:
        """List a file that is there, in the order of names."""
        files = {**self.files, name: listed}
        order = sorted(files, key=lambda each: (len(each), each))  # 100000 after 99999
        self.content[self.kind.listing] = {each: files[each] for each in order}
        self.save()

    def save(self) -> None:
        """Write the manifest."""
        kind = self.kind
        write_document(self.path / kind.manifest, kind.form, kind.version, self.content)


def written(path: Path, write: Callable[[Path], object]) -> dict[str, Any]:
    """Write a file whole or not at all, and return what a list says of it."""
    path = write_file(path, write)
    return {"sha256": sha256_of(path), "bytes": path.stat().st_size}


def check_listed(path: Path, sha256: str, n_bytes: int | None, again: str) -> None:
    """Refuse a file that is not the one that was written."""
    if not path.is_file():
        raise FileFormatError(f"{path} is missing. {again}")
    if path.stat().st_size != n_bytes or sha256_of(path) != sha256:
        raise FileFormatError(
            f"{path} is damaged, or of another folder: it is not the file that was written there "
            f"(its checksum differs). Delete it. {again}"
        )


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return what two descriptions do not share, a few words each."""
    found = []
    for name in dict.fromkeys([*there, *here]):
        a, b = there.get(name), here.get(name)
        if name not in there or name not in here:
            found.append(f"{name} only {'here' if name in here else 'there'}")
        elif isinstance(a, dict) and isinstance(b, dict):
            found += [f"{name} {inner}" for inner in differences(a, b)]
        elif a != b and isinstance(a, str) and len(a) == 64:  # a checksum says nothing to a reader
            found.append(f"other {name.replace('_', ' ')}")
        elif a != b:
            found.append(f"{name} {a!r:.80} there, {b!r:.80} here")
    if not found and list(there) != list(here):
        found.append("in another order")
    return found


def check_replaceable(folder: Path, ours: Sequence[str] = ()) -> None:
    """Refuse a folder that the user named, if replacing it would lose what is not ours.

    It may be absent, empty, or hold nothing but files that match `ours`, such as `*.safetensors`.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder. Pass the name of a new one.")
    if folder.resolve() == Path.cwd():
        raise InputError(f"{folder} is the working directory. Pass a folder in it.")
    for each in sorted(folder.iterdir()):
        if not (each.is_file() and any(fnmatch(each.name, pattern) for pattern in ours)):
            raise InputError(
                f"{folder} holds something already, {each.name!r}, and is not replaced. Pass a new "
                "folder, or an empty one."
            )


def remove_files(folder: Path, ours: Sequence[str]) -> None:
    """Remove a folder that holds nothing but files that match `ours`; refuse any other."""
    check_replaceable(folder, ours)
    if folder.exists():
        for each in folder.iterdir():
            each.unlink()
        folder.rmdir()


@contextmanager
def replacing(folder: str | os.PathLike, ours: Sequence[str] = ()) -> Iterator[Path]:
    """Write a folder whole or not at all: what is written to the path that is yielded moves there.

    One that is there is replaced only as `check_replaceable` allows.
    """
    folder = resolved(folder)
    check_folder(folder)
    check_replaceable(folder, ours)
    folder = folder.resolve()
    with named_faults(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with named_faults(folder), scratch(folder) as place:
        new = place / folder.name
        new.mkdir()
        yield new
        check_replaceable(folder, ours)  # again: it may have taken minutes
        try:
            if folder.exists():
                os.replace(folder, replaced(place))
                check_replaceable(replaced(place), ours)
            os.replace(new, folder)
        except BaseException:
            put_back(place, folder)
            raise


@contextmanager
def locked(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Hold a folder; the operating system lets go of it when the process ends in any way."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / name, timeout=0)
    try:
        with named_faults(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
    except Timeout as error:
        raise InputError(
            f"Another process writes to {folder}. Wait for it, or pass another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()

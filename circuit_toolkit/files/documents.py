"""One writer of files: whole or not at all; and one JSON document, versioned and checksummed.

A document is `{"format", "schema_version", "sha256", "content"}`. A flat one carries its content
beside format, version and checksum, for files that people read and other programs write.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from circuit_toolkit.arguments import refuse_surrogates
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.checks import check_file
from circuit_toolkit.files.reading import read_json
from circuit_toolkit.files.scratch import named_faults, scratch

Older = Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]  # version -> to this one
Unsealed = Callable[[dict[str, Any]], str | None]


def resolved(path: str | os.PathLike) -> Path:
    """Return a path with `~` as the home folder."""
    return Path(path).expanduser()


def sha256_of(path: Path) -> str:
    """Return the checksum of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(content: Any) -> str:
    """Return the checksum of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_file(path: str | os.PathLike, write: Callable[[Path], object]) -> Path:
    """Write a file whole or not at all: `write` writes it in a scratch folder, and it moves here.

    WriteError where the disk is full, or the folder cannot be written to.
    """
    path = resolved(path)
    check_file(path)
    with named_faults(path), scratch(path) as folder:
        part = folder / path.name
        part.touch(exist_ok=False)
        mode = part.stat().st_mode  # as the user wants files; safetensors would hide its own
        write(part)
        part.chmod(mode)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    return path


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write a text as UTF-8, whole or not at all; see `write_file`."""
    return write_file(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_document(
    path: str | os.PathLike, form: str, version: int, content: dict[str, Any], *, flat: bool = False
) -> Path:
    """Write a document of a form (`circuit_toolkit.circuit`) and version; see `document`."""
    return write_json(path, document(form, version, content, flat=flat))


def write_json(path: str | os.PathLike, whole: dict[str, Any]) -> Path:
    """Write JSON that people can read, whole or not at all."""
    return write_text(path, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


def document(
    form: str, version: int, content: dict[str, Any], *, flat: bool = False
) -> dict[str, Any]:
    """Return a document of plain content; InputError where JSON cannot hold it."""
    content = plain(content, "content")
    head = {"format": form, "schema_version": version, "sha256": digest(content)}
    return head | (content if flat else {"content": content})


def read_document(
    path: str | os.PathLike,
    form: str,
    version: int,
    remedy: str,
    *,
    flat: bool = False,
    older: Older | None = None,
) -> dict[str, Any]:
    """Return the content of a document; `remedy` says what to do about a damaged or foreign file.

    A flat one has its content beside the head; see `content_of`. `older` brings the content of
    older versions to this one.
    """
    path = resolved(path)
    found = read_json(path, remedy)
    return parsed_document(found, form, version, f"{path}", remedy, flat=flat, older=older)


def parsed_document(
    found: Any,
    form: str,
    version: int,
    name: str,
    remedy: str,
    *,
    flat: bool = False,
    unsealed: Unsealed | None = None,
    older: Older | None = None,
) -> dict[str, Any]:
    """Return the content of a document of this version or an older one, see `read_document`."""
    wrote = found.get("schema_version") if isinstance(found, dict) else None
    if type(wrote) is not int or not older or wrote not in older:
        return content_of(found, form, version, name, remedy, flat=flat, unsealed=unsealed)
    content = content_of(found, form, wrote, name, remedy, flat=flat)
    try:
        return older[wrote](content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # InputError is one
        raise FileFormatError(f"{name} is a damaged file of version {wrote}. {remedy}") from error


def content_of(
    found: Any,
    form: str,
    version: int,
    name: str,
    remedy: str,
    *,
    flat: bool = False,
    unsealed: Unsealed | None = None,
) -> dict[str, Any]:
    """Return the content of a parsed document, after a look at form, version and checksum.

    A flat one may come from another program, without a checksum; `unsealed` then returns what
    such a file must not say, or None.
    """
    if not isinstance(found, dict) or found.get("format") != form:
        raise FileFormatError(
            f"{name} holds no {form.rpartition('.')[2]}: its `format` is not {form!r}. {remedy}"
        )
    wrote = found.get("schema_version")
    if type(wrote) is not int or wrote != version:
        raise FileFormatError(
            f"{name} has schema version {wrote!r:.40}; this release reads "
            f"version {version}. Use the release of circuit_toolkit that wrote it."
        )
    if flat:
        content = {key: value for key, value in found.items() if key not in _HEAD}
        if "sha256" not in found:
            if wrong := unsealed and unsealed(content):
                raise FileFormatError(f"{name} {wrong}")
        elif found["sha256"] != digest(content):
            raise FileFormatError(
                f"{name} was changed after it was saved: its checksum differs. {remedy}"
            )
        return content
    content = found.get("content")
    if not isinstance(content, dict) or found.get("sha256") != digest(content):
        raise FileFormatError(f"{name} is damaged: its checksum differs. {remedy}")
    return content


def plain(value: Any, name: str) -> Any:
    """Return a value as JSON holds it: numpy's as Python's, NaN as None; refuse other kinds."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        refuse_surrogates(value, name)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, list | tuple):
        return [plain(item, f"{name}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        for key in value:
            refuse_surrogates(key, f"a name in {name}")
        return {key: plain(item, f"{name}[{key!r}]") for key, item in value.items()}
    raise InputError(
        f"{name} cannot be written as JSON: {type(value).__name__}. Pass numbers, strings, "
        "lists, and dicts with string keys."
    )


_HEAD = ("format", "schema_version", "sha256")

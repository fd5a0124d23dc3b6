"""Files of others, read within bounds: kind and size before reading, depth and numbers before use.

Whatever is wrong is a FileFormatError that names the file and what to do.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.checks import existing_file

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

LARGEST = 2**30  # bytes of a file of JSON
DEEPEST = 64  # levels of JSON within each other
_WHOLE = 2**63  # ends of what a table can hold
_DTYPES = "biuf"  # kinds of arrays: truth values and numbers


def read_json(path: Path, remedy: str, *, largest: int = LARGEST) -> Any:
    """Return what a file of JSON holds."""
    return parsed_json(read_bytes(path, remedy, largest=largest), f"{path}", remedy)


def read_bytes(path: Path, remedy: str, *, largest: int = LARGEST) -> bytes:
    """Return the content of a regular file that is not too large."""
    existing_file(path, remedy)
    if (size := path.stat().st_size) > largest:
        raise FileFormatError(
            f"{path} has {size:,} bytes, more than such a file can ({largest:,}). {remedy}"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. {remedy}") from error


def parsed_json(data: bytes | str, name: str, remedy: str) -> Any:
    """Return what JSON says: no key twice, no number out of range, nothing nested without end."""
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        found = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_each_once)
        if isinstance(found, dict | list):
            _check_values(found)
    except RecursionError as error:
        raise FileFormatError(
            f"{name} is nested more than {DEEPEST} levels deep. {remedy}"
        ) from error
    except ValueError as error:  # UnicodeDecodeError and UnicodeEncodeError are ValueErrors
        raise FileFormatError(
            f"{name} is not readable JSON ({error}). Is it cut off? {remedy}"
        ) from error
    return found


def read_tensors(path: Path, remedy: str) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU."""
    import safetensors.torch

    return _tensors(path, remedy, safetensors.torch.load_file)


def read_arrays(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors file, as arrays."""
    import safetensors.numpy

    return _tensors(path, remedy, safetensors.numpy.load_file)


def tensor_shapes(path: Path, remedy: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a safetensors file, by its header alone."""
    from safetensors import safe_open

    check_tensor_file(path, remedy)
    with safe_open(path, "np") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def check_tensor_file(path: Path, remedy: str) -> None:
    """Refuse a file that is no whole safetensors file, by its header alone."""
    from safetensors import SafetensorError, safe_open

    existing_file(path, remedy)
    try:
        with safe_open(path, "np"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        with path.open("rb") as file:
            if file.read(2) in (b"PK", *(bytes([0x80, i]) for i in range(2, 6))):
                raise FileFormatError(
                    f"{path} is a pickle, or a zip of pickles, under another name: it could run "
                    f"code and is not loaded. {remedy}"
                ) from error
        raise FileFormatError(
            f"{path} is no whole safetensors file ({first_line(error)}). {remedy}"
        ) from error


def read_npz(path: Path, remedy: str, *, largest: int = LARGEST) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file; its headers are read first, and nothing that is too large.

    A few kilobytes can unpack to gigabytes, and a header can ask for more than there is.
    """
    import numpy as np

    npz_shapes(path, remedy, largest=largest)
    with _npz_faults(path, remedy), np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def npz_shapes(path: Path, remedy: str, *, largest: int = LARGEST) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays of an npz file, by its headers alone."""
    existing_file(path, remedy)
    with _npz_faults(path, remedy), zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        size = sum(each.file_size for each in entries)
        if size > largest:
            raise ValueError(f"it unpacks to {size:,} bytes, more than {largest:,}")
        shapes = {}
        for each in entries:
            with archive.open(each) as file:
                shapes[each.filename.removesuffix(".npy")] = _header_shape(file, each)
        return shapes


@contextmanager
def _npz_faults(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
        raise FileFormatError(f"{path} is damaged ({first_line(error)}). {remedy}") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise FileFormatError(
            f"{path} is damaged, or no npz file ({first_line(error)}). {remedy}"
        ) from error


def _tensors(path: Path, remedy: str, load: Any) -> dict[str, Any]:
    check_tensor_file(path, remedy)
    from safetensors import SafetensorError

    try:
        return load(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(
            f"{path} is no whole safetensors file ({first_line(error)}). {remedy}"
        ) from error


def _header_shape(file: Any, entry: zipfile.ZipInfo) -> tuple[int, ...]:
    """Return the shape of an array, whose header must tell of just the bytes behind it."""
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"{entry.filename} is of version {version}")
    shape, _, dtype = read(file)
    if dtype.names is None and dtype.kind not in _DTYPES + "U":
        raise ValueError(f"{entry.filename} holds {dtype}")
    if math.prod(shape) * dtype.itemsize != entry.file_size - file.tell():
        raise ValueError(f"{entry.filename} has another size than its header says")
    return shape


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r:.60} is there twice")
    return found


def _no_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _check_values(value: dict | list) -> None:
    """Refuse what is nested too deeply, numbers out of range, and halves of characters."""
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        below = []
        for each in level:
            if type(each) is dict:
                for key in each:
                    if not key.isascii():
                        key.encode()
                each = each.values()
            for item in each:
                kind = type(item)
                if kind is dict or kind is list:
                    below.append(item)
                elif kind is str:
                    if not item.isascii():
                        item.encode()
                elif (kind is float and not math.isfinite(item)) or (
                    kind is int and not -_WHOLE <= item < _WHOLE
                ):
                    raise ValueError(f"the number {item!r:.40} is out of range")
        if not below:
            return
        level = below
    raise RecursionError


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]

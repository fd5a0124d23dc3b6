"""Files of others are read within bounds, and refused by name."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.reading import (
    DEEPEST,
    check_tensor_file,
    parsed_json,
    read_arrays,
    read_bytes,
    read_json,
    read_npz,
    read_tensors,
)

DO = "Get it again."


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "There is no file .*does not exist"),
        (lambda path: path.mkdir(), "is a folder, not a file"),
        (lambda path: os.mkfifo(path), "a pipe or a device"),
        (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
        (lambda path: path.symlink_to("nowhere"), "is a link to nothing"),
        (lambda path: path.symlink_to(path.name), "cannot be read"),
    ],
)
@pytest.mark.parametrize("read", [read_json, read_tensors, read_arrays, read_npz])
def test_what_is_no_file_is_refused_before_it_is_read(read, make, words, tmp_path):
    make(tmp_path / "it")
    with pytest.raises(InputError, match=f"{words}.*Get it again"):
        read(tmp_path / "it", DO)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    (tmp_path / "it").write_bytes(b"x" * 11)
    with pytest.raises(FileFormatError, match="11 bytes, more than such a file can"):
        read_bytes(tmp_path / "it", DO, largest=10)
    assert read_bytes(tmp_path / "it", DO, largest=11) == b"x" * 11


@pytest.mark.parametrize("value", [{"a": [1, -(2**63), 0.5, None, True, "\u00e9"]}, 3, "a", []])
def test_json_is_what_json_says(value):
    assert parsed_json(json.dumps(value).encode(), "it", DO) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff", "can't decode"),
        (b"NaN", "NaN is not JSON"),
        (b"[1e999]", "inf is out of range"),
        (b'{"a": [9223372036854775808]}', "9223372036854775808 is out of range"),
        (b"[" + b"9" * 5000 + b"]", "Exceeds the limit"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is there twice"),
        (b'["\\ud800"]', "surrogates not allowed"),
        (b'{"\\udfff": 1}', "surrogates not allowed"),
        (b"[" * 100_000, f"more than {DEEPEST} levels"),
        (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), f"more than {DEEPEST} levels"),
    ],
)
def test_json_out_of_bounds_is_refused(text, words):
    with pytest.raises(FileFormatError, match=f"it is .*{words}.*Get it again"):
        parsed_json(text, "it", DO)


def test_the_deepest_json_that_is_read():
    assert parsed_json("[" * DEEPEST + "]" * DEEPEST, "it", DO)


def test_tensors_are_what_was_written(tmp_path):
    save_file({"a": torch.arange(6.0).reshape(2, 3)}, tmp_path / "it")
    assert torch.equal(read_tensors(tmp_path / "it", DO)["a"], torch.arange(6.0).reshape(2, 3))
    assert read_arrays(tmp_path / "it", DO)["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    whole = (tmp_path / "it").read_bytes()
    for cut in (0, 7, 20, len(whole) - 1):
        (tmp_path / "it").write_bytes(whole[:cut])
        for read in (check_tensor_file, read_tensors, read_arrays):
            with pytest.raises(FileFormatError, match="no whole safetensors file.*Get it again"):
                read(tmp_path / "it", DO)


def test_a_pickle_under_another_name_is_called_one(tmp_path):
    for protocol in range(2, 6):
        (tmp_path / "model.safetensors").write_bytes(pickle.dumps({"a": 1}, protocol))
        with pytest.raises(FileFormatError, match="is a pickle"):
            check_tensor_file(tmp_path / "model.safetensors", DO)
    torch.save({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(FileFormatError, match="zip of pickles"):
        read_tensors(tmp_path / "model.safetensors", DO)


def test_arrays_of_an_npz_file_are_what_was_written(tmp_path):
    given = {"a": np.arange(6).reshape(2, 3), "b": np.array("text"), "c": np.zeros(3, "i4,f4")}
    np.savez(tmp_path / "it.npz", **given)
    found = read_npz(tmp_path / "it.npz", DO)
    assert found.keys() == given.keys()
    for name, values in given.items():
        np.testing.assert_array_equal(found[name], values)


def test_an_npz_file_does_not_unpack_to_more_than_it_says(tmp_path):
    path = tmp_path / "it.npz"
    np.savez_compressed(path, a=np.zeros(10**6))
    assert path.stat().st_size < 10_000
    with pytest.raises(FileFormatError, match="unpacks to 8,000,128 bytes"):
        read_npz(path, DO, largest=10**6)
    with zipfile.ZipFile(path, "w") as archive:  # a header that asks for a terabyte
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (125000000000,), }".ljust(117)
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00\x76\x00" + header + b"\n" + bytes(80))
    with pytest.raises(FileFormatError, match="another size than its header says"):
        read_npz(path, DO)
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(FileFormatError, match="holds object"):
        read_npz(path, DO)
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(FileFormatError, match="damaged, or no npz file"):
        read_npz(path, DO)

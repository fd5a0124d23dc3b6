"""How files are damaged: bytes of any file, values of JSON, cells of a table, kinds of a path."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.resealed import resealed

Damage = Callable[[Path, random.Random], str]
WRONG: list[Any] = [
    None, True, -1, 0, 3, 2**31, 2**63 - 1, -0.5, 42.0, 1e308, "", "a", "\u202eb", "../../a", "9",
    [], [1], ["a", None], {}, {"a": 1}, [[0]],
]  # fmt: skip
LITERALS = ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, '"\\ud800"', "01", "'a'", "\x00"]


def flip_bit(path: Path, rng: random.Random) -> str:
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    content[at] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return f"flip a bit of byte {at}"


def other_byte(path: Path, rng: random.Random) -> str:
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    content[at] = rng.randrange(256)
    path.write_bytes(content)
    return f"set byte {at}"


def cut_end(path: Path, rng: random.Random) -> str:
    size = path.stat().st_size
    kept = rng.choice([0, 1, size // 2, size - 1, rng.randrange(size)])
    os.truncate(path, kept)
    return f"keep {kept} bytes"


def drop_slice(path: Path, rng: random.Random) -> str:
    content = path.read_bytes()
    at, n = rng.randrange(len(content)), rng.choice([1, 2, 8, 100])
    path.write_bytes(content[:at] + content[at + n :])
    return f"drop {n} bytes at {at}"


def insert_slice(path: Path, rng: random.Random) -> str:
    content = path.read_bytes()
    at, n = rng.randrange(len(content)), rng.choice([1, 2, 8, 100])
    more = rng.choice([rng.randbytes(n), b"\0" * n, content[at : at + n], b"[" * n, b"9" * n])
    path.write_bytes(content[:at] + more + content[at:])
    return f"insert {n} bytes at {at}"


def zero_slice(path: Path, rng: random.Random) -> str:
    content = bytearray(path.read_bytes())
    at, n = rng.randrange(len(content)), rng.choice([1, 8, 512])
    content[at : at + n] = bytes(len(content[at : at + n]))
    path.write_bytes(content)
    return f"zero {n} bytes at {at}"


def another_kind(path: Path, rng: random.Random) -> str:
    """Put something else where the file was."""
    kind = rng.choice(["missing", "folder", "pipe", "device", "dangling", "pickle", "zip", "noise"])
    content = path.read_bytes()
    path.unlink()
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "dangling":
            path.symlink_to(path.parent / "nowhere")
        case "pickle":
            path.write_bytes(b"\x80\x04\x95" + content[:50] + b"cos\nsystem\n(S'true'\ntR.")
        case "zip":
            path.write_bytes(b"PK\x03\x04" + content)
        case "noise":
            path.write_bytes(rng.randbytes(len(content)))
    return f"{kind} in its place"


def deep(path: Path, rng: random.Random) -> str:
    n = rng.choice([100, 1_000, 100_000])
    opening, closing = rng.choice([("[", "]"), ('{"a":', "}")])
    path.write_text(opening * n + "1" + closing * n)
    return f"nest {n} levels"


BYTES: list[Damage] = [flip_bit, other_byte, cut_end, drop_slice, insert_slice, zero_slice]


def json_damage(rng: random.Random, whole: Any) -> tuple[Any, str]:
    """Return a document with one place changed, and where."""
    before = json.dumps(whole)
    whole = json.loads(before)
    places = [*_places(whole)]
    holder, key, name = rng.choice(places)
    how = rng.choice(["wrong", "drop", "swap", "nest", "near", "double", "add"])
    if how == "drop":
        del holder[key]
    elif how == "swap":
        other, at, _ = rng.choice(places)
        try:
            holder[key], other[at] = other[at], holder[key]
            json.dumps(whole)
        except ValueError:  # it holds itself now
            return json_damage(rng, json.loads(before))
    elif how == "nest":
        value: Any = holder[key]
        for _ in range(rng.choice([1, 70])):
            value = [value]
        holder[key] = value
    elif how == "near" and type(holder[key]) in (int, float):
        holder[key] += rng.choice([1, -1, 0.5, 1e-3])
    elif how == "near" and type(holder[key]) is str:
        holder[key] += rng.choice(["a", "\u200b", "0", "\x1b[31m"])
    elif how == "double" and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif how == "add" and isinstance(holder, dict):
        holder["more"] = rng.choice(WRONG)
    else:
        holder[key] = rng.choice(WRONG)
    return whole, f"{how} {name[:80]}"


def of_json(path: Path, rng: random.Random) -> str:
    """Change one value of a document, the checksum as it was."""
    whole, told = json_damage(rng, json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(whole), encoding="utf-8")
    return told


def forged_json(path: Path, rng: random.Random) -> str:
    """Change one value of a document, and make its checksum anew."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    if "content" in whole:
        whole["content"], told = json_damage(rng, whole["content"])
    else:
        whole, told = json_damage(rng, whole)
    path.write_text(json.dumps(resealed(whole)), encoding="utf-8")
    return f"forged: {told}"


def literal(path: Path, rng: random.Random) -> str:
    """Put what JSON is not, or a key twice, somewhere into a document."""
    text = path.read_text(encoding="utf-8")
    ends = [i for i, letter in enumerate(text) if letter == ":"]
    at = rng.choice(ends)
    end = min((i for i in (text.find(c, at) for c in ",\n}") if i > 0), default=len(text))
    if rng.random() < 0.3:
        start = text.rfind('"', 0, text.rfind('"', 0, at))
        path.write_text(f"{text[:start]}{text[start:at]}: 1, {text[start:]}", encoding="utf-8")
        return f"double a key at {start}"
    word = rng.choice(LITERALS)
    path.write_text(f"{text[: at + 1]} {word}{text[end:]}", encoding="utf-8")
    return f"write {word[:12]!r} at {at}"


def of_table(path: Path, rng: random.Random) -> str:
    """Change cells, rows or the header of a CSV file."""
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    row, how = rng.randrange(len(rows)), rng.choice(["cell", "short", "long", "header", "quote"])
    column = rng.randrange(len(rows[row]))
    if how == "cell":
        rows[row][column] = rng.choice(["", "\x00", "-1", "9" * 400, " a", "nan", '"', "\u202e"])
    elif how == "short":
        del rows[row][column]
    elif how == "long":
        rows[row].insert(column, "more")
    elif how == "header":
        rows[0] = rng.choice([[*rows[0][:1] * len(rows[0])], rows[0][::-1], [""] * len(rows[0])])
    else:
        rows[row][column] = '"' + rows[row][column]
    path.write_text("\n".join(map(",".join, rows)) + "\n", encoding="utf-8")
    return f"{how} at row {row}, column {column}"


def of_tensors(path: Path, rng: random.Random) -> str:
    """Change values, shape, type or name of one tensor, in a file that is whole again."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    name = rng.choice(sorted(tensors))
    value, how = tensors[name].clone(), rng.choice([*_VALUES, "shape", "type", "drop", "more"])
    if how in _VALUES and value.is_floating_point() and value.numel():
        flat = value.reshape(-1)
        flat[rng.randrange(len(flat)) if rng.random() < 0.5 else slice(None)] = _VALUES[how]
    elif how == "shape" and value.ndim:
        value = rng.choice([value[:-1], value.reshape(-1), value[None]])
    elif how == "type":
        value = value.to(rng.choice([*_types()]))
    elif how == "more":
        tensors["more"] = value
    tensors[name] = value.contiguous()
    if how == "drop":
        del tensors[name]
    path.unlink()
    save_file({key: each.clone() for key, each in tensors.items()}, path)
    return f"{how} in tensor {name}"


def of_parquet(path: Path, rng: random.Random) -> str:
    """Change rows of a Parquet file, its header as it was."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    name, row = rng.choice(table.column_names), rng.randrange(len(table))
    values = table[name].to_pylist()
    how = rng.choice(["value", "swap", "drop", "column", "double"])
    if how == "drop":
        table = table.slice(0, row)
    elif how == "double":
        table = pa.concat_tables([table, table.slice(row, 1)])
    elif how == "column":
        table = table.drop_columns([name])
    else:
        other = rng.randrange(len(table))
        values[row] = values[other] if how == "swap" else _other(values[row], rng)
        column = pa.array(values, table.schema.field(name).type)
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, path, compression="zstd")
    return f"{how} in column {name}, row {row}"


def _other(value: Any, rng: random.Random) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        key = rng.choice([*value[0]])
        kind = type(value[0][key])
        return [value[0] | {key: kind(rng.choice([-1, 2**30, 0, 1]))}, *value[1:]]
    kinds = {bool: not value, int: rng.choice([-1, 2**31 - 1]), float: 1.5, str: "a"}
    return kinds.get(type(value), [] if isinstance(value, list) else None)


def copied(source: Path, place: Path) -> Path:
    """A fresh copy of a file or a folder."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    elif os.path.lexists(place):
        place.unlink()
    return Path((shutil.copytree if source.is_dir() else shutil.copy)(source, place))


_VALUES = {"nan": float("nan"), "inf": float("inf"), "zero": 0.0, "huge": 6e4}


def _types() -> tuple:
    import torch

    return torch.float64, torch.int64, torch.bool, torch.uint8, torch.float16


def _places(value: Any, name: str = "") -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in list(items):
        yield value, key, f"{name}/{key}"
        if isinstance(each, dict | list):
            yield from _places(each, f"{name}/{key}")

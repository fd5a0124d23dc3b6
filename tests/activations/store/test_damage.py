"""Damaged and foreign files are named, and not read."""

import json

import numpy as np
import pytest

from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.errors import FileFormatError
from tests.activations.store.small_store import BATCH, contents, shards
from tests.same import assert_same


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


def of_another_shard(path):
    other = next(each for each in shards(path.parent) if each != path)
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [flip, cut, empty, of_another_shard])
def test_a_damaged_or_foreign_shard_is_named_and_not_read(to, folder, acts, damage):
    path = shards(folder)[2]
    damage(path)
    store = ActivationStore.open(folder)
    reading = store.shards()
    next(reading), next(reading)
    for read in (
        lambda: next(reading),
        store.load,
        lambda: store.pooled("last"),
        lambda: to(folder),
    ):
        with pytest.raises(
            FileFormatError, match=r"shard-00002\.safetensors is damaged, or of ano"
        ):
            read()
    path.unlink()
    assert_same(to(folder).load(), acts)  # as the error says


def test_a_missing_shard_is_named_and_made_anew(to, folder, stop_after):
    before = contents(folder)
    store = ActivationStore.open(folder)
    shards(folder)[1].unlink()
    with pytest.raises(FileFormatError, match=r"shard-00001\.safetensors is missing. `capture`"):
        list(store.shards())
    with pytest.raises(FileFormatError, match=r"shard-00001\.safetensors is missing"):
        ActivationStore.open(folder)
    seen = stop_after(1)
    to(folder)
    assert [rows.start for rows in seen] == [BATCH] and contents(folder) == before


def test_a_shard_too_many_is_named(folder):
    (folder / "shard-00004.safetensors").write_bytes(shards(folder)[0].read_bytes())
    with pytest.raises(FileFormatError, match="shard-00004.safetensors does not belong"):
        ActivationStore.open(folder)


def test_a_file_that_is_no_shard_is_refused_even_with_its_checksum(folder, tmp_path):
    from safetensors.numpy import save_file

    from circuit_toolkit.activations.store.shards import read_shard
    from circuit_toolkit.files.documents import sha256_of

    path = tmp_path / "weights.safetensors"
    save_file({"W": np.zeros(3)}, path)
    sizes = {"bytes": path.stat().st_size, "nbytes": 0, "prompts": 1, "rows": 1}
    shard = {"sha256": sha256_of(path), **sizes}
    with pytest.raises(FileFormatError, match="weights.safetensors is no shard of activations"):
        read_shard(path, shard, {})


def with_manifest(folder, change):
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(change(document) or document))


def listing_less(document):
    document["content"]["shards"].popitem()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["content"]["inputs"].update(positions="mean"), "its checksum differs"),
        (listing_less, "its checksum differs"),
        (lambda d: d.update(content=None), "its checksum differs"),
        (lambda d: d.update(schema_version=2), "has schema version 2; this release reads"),
        (
            lambda d: d.update(format="circuit_toolkit.circuit"),
            "json holds no activations",
        ),
        (lambda d: ["a list"], "json holds no activations"),
    ],
)
def test_a_damaged_or_foreign_manifest_is_refused(to, folder, change, said):
    with_manifest(folder, change)
    for read in (ActivationStore.open, to):
        with pytest.raises(FileFormatError, match=said) as error:
            read(folder)
        assert "manifest.json" in str(error.value)


def test_no_manifest_or_half_of_one(folder, tmp_path):
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(FileFormatError, match="manifest.json is not readable JSON"):
        ActivationStore.open(folder)
    path.unlink()
    for nothing in (folder, tmp_path / "nowhere"):
        with pytest.raises(FileFormatError, match="holds no activations: it has no manifest.json"):
            ActivationStore.open(nothing)

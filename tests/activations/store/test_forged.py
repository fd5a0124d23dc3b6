"""Shards that someone made, with fresh checksums: refused, where memory would be corrupted too."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.errors import FileFormatError
from circuit_toolkit.files.documents import digest, sha256_of
from tests.activations.store.small_store import shards
from tests.same import assert_same

NAME = "blocks.1.hook_resid_post"


def forge(folder, change, **listed):
    """Change the arrays of the second shard, and list it anew."""
    path = shards(folder)[1]
    arrays = {name: values.copy() for name, values in load_file(path).items()}
    arrays = change(arrays) or arrays
    save_file({name: np.ascontiguousarray(each) for name, each in arrays.items()}, path)
    listed |= {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    relist(folder, lambda content: content["shards"][path.name].update(listed))


def relist(folder, change):
    """Change the manifest, and sign it anew."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document["content"])
    document["sha256"] = digest(document["content"])
    path.write_text(json.dumps(document))


def read(folder):
    """Do all that reading a store can lead to."""
    store = ActivationStore.open(folder)
    for positions in ("all", "mean", "last", "S2"):
        acts = store.pooled(positions)
        for matrix in acts.features.values():
            matrix.T.tocsr() @ matrix, matrix.toarray()
    whole = store.load()
    for site in whole.sites:
        whole.of_prompt(whole.n_prompts - 1, site, 0), whole.examples(site, 1)
    return store.means()


def put(name, place, value):
    def change(arrays):
        arrays[name][place] = value

    return change


def other(name, of):
    def change(arrays):
        arrays[name] = of(arrays[name])

    return change


def words(change):
    def of(array):
        content = json.loads(array.tobytes())
        change(content)
        return np.frombuffer(json.dumps(content).encode(), np.uint8)

    return other("json", of)


def wider(content):
    content["features"][NAME] += 1


def nothing(arrays):
    """An indptr that leaves 0 and comes back to it: scipy looks at it only where data are."""
    arrays[DATA], arrays[INDICES] = arrays[DATA][:0], arrays[INDICES][:0]
    arrays[INDPTR] = np.zeros_like(arrays[INDPTR])
    arrays[INDPTR][1] = 9


DATA, INDICES, INDPTR = (f"{NAME}.{part}" for part in ("data", "indices", "indptr"))
FORGED = {
    "an index too large": put(INDICES, 0, 80),
    "a huge index": put(INDICES, -1, 2**31 - 1),
    "an index below 0": put(INDICES, 3, -1),
    "an index twice in a row": lambda a: a[INDICES].__setitem__(1, a[INDICES][0]),
    "indices that are no whole numbers": other(INDICES, lambda x: x.astype(np.float32)),
    "too few indices": other(INDICES, lambda x: x[:-1]),
    "indptr that begins later": put(INDPTR, 0, 1),
    "indptr that decreases": put(INDPTR, 1, 10**6),
    "indptr that goes back": put(INDPTR, 5, 0),
    "indptr that ends early": put(INDPTR, -1, 2),
    "indptr that ends late": put(INDPTR, -1, 2**31 - 1),
    "indptr below 0": put(INDPTR, 2, -5),
    "indptr of other rows": other(INDPTR, lambda x: x[:-1]),
    "an indptr of nothing": nothing,
    "a table of indptr": other(INDPTR, lambda x: x[:, None]),
    "NaN": put(DATA, 0, np.nan),
    "infinity": put(DATA, 0, np.inf),
    "whole numbers for data": other(DATA, lambda x: x.astype(np.int32)),
    "data as a table": other(DATA, lambda x: x[:, None]),
    "a prompt too many": put("prompt", -1, 3),
    "a prompt below 0": put("prompt", 0, -1),
    "prompts that are no whole numbers": other("prompt", lambda x: x + 0.5),
    "prompts of other rows": other("prompt", lambda x: x[:-1]),
    "a position too large": put("position", 0, 10**9),
    "a position below -1": put("position", 0, -2),
    "positions of other rows": other("position", lambda x: x[1:]),
    "groups of other prompts": other("groups", lambda x: x[:-1]),
    "groups that are no whole numbers": other("groups", lambda x: x / 2),
    "a metric of NaN": put("metric", 0, np.nan),
    "a metric of other prompts": other("metric", lambda x: np.append(x, x)),
    "a named position too large": put("named.S2", 0, 10**9),
    "a named position below 0": put("named.S2", 0, -1),
    "no such array": lambda a: a.pop("position") is None or a,
    "more features": words(wider),
    "features below 0": words(lambda c: c["features"].update({NAME: -1})),
    "features that are no number": words(lambda c: c["features"].update({NAME: "80"})),
    "an unknown site": words(lambda c: c["features"].update(nowhere=3)),
    "a site less": words(lambda c: c["features"].pop(NAME)),
    "tokens that are no texts": words(lambda c: c["tokens"][0].__setitem__(0, 7)),
    "tokens that are no lists": words(lambda c: c["tokens"].__setitem__(0, "abc")),
    "tokens of other prompts": words(lambda c: c["tokens"].pop()),
    "prompts that are no texts": words(lambda c: c["texts"].__setitem__(0, 7)),
    "prompts that are one text": words(lambda c: c.update(texts="abc")),
    "texts of other prompts": words(lambda c: c["texts"].pop()),
    "labels of other prompts": words(lambda c: c["labels"].update(a=["x"])),
    "labels that are no texts": words(lambda c: c["labels"].update(a=[None] * 3)),
    "words that are a list": other("json", lambda x: np.frombuffer(b"[1]", np.uint8)),
    "words that are no JSON": other("json", lambda x: x[:-1]),
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_a_forged_shard_is_refused(folder, change):
    forge(folder, change)
    with pytest.raises(FileFormatError, match=r"shard-00001\.safetensors"):
        read(folder)


def test_a_shard_that_was_only_listed_anew_is_read(folder, acts):
    forge(folder, lambda arrays: arrays)
    assert_same(ActivationStore.open(folder).load(), acts)
    read(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["shards"]["shard-00000.safetensors"].pop("rows"),
        lambda c: c["shards"]["shard-00000.safetensors"].update(prompts=-1),
        lambda c: c["shards"]["shard-00000.safetensors"].update(nbytes="1"),
        lambda c: c["shards"].update({"shard-00000.safetensors": None}),
        lambda c: c.update(shards=[]),
        lambda c: c.update(n_shards=None),
        lambda c: c.update(settings=[]),
        lambda c: c.update(sites={"nowhere": 3}),
        lambda c: c.update(sites={NAME: 2.5}),
        lambda c: c.pop("inputs"),
    ],
)
def test_a_forged_manifest_is_refused(folder, change):
    relist(folder, change)
    with pytest.raises(FileFormatError, match=r"manifest\.json"):
        ActivationStore.open(folder)


def test_a_shard_of_other_counts_is_refused(folder):
    forge(folder, lambda arrays: arrays, rows=7)
    with pytest.raises(FileFormatError, match="its size is another one"):
        read(folder)


def test_nothing_random_crashes(folder):
    path, rng = shards(folder)[1], np.random.default_rng(0)
    whole, refused = load_file(path), 0
    names = sorted(set(whole) - {"json"})

    def change(_):
        arrays = {key: values.copy() for key, values in whole.items()}
        name = rng.choice(names)
        values = arrays[name]
        if rng.random() < 0.3:
            arrays[name] = values[: rng.integers(len(values))]
        else:
            values.view(np.uint8)[rng.integers(values.nbytes)] ^= 1 << rng.integers(8)
        return arrays

    for _ in range(60):
        forge(folder, change)
        try:
            read(folder)
        except FileFormatError:
            refused += 1
    assert refused > 30  # else it changed what may be so

"""Descriptions in a folder: gone on with, to the bit, and on the same inputs only."""

import json

import numpy as np
import pytest

from circuit_toolkit.errors import FileFormatError, InputError, MismatchError
from circuit_toolkit.features.descriptions.tables import TABLES
from circuit_toolkit.weight_lens import WeightLens, lens
from tests.weight_lens.planted import random_transcoders

LENS = WeightLens("paper", theta_token=3.0, theta_feature=2.5, upstream="all")


def describe(model, dictionaries, folder=None, with_=LENS):
    return with_.describe(model, dictionaries, store=folder, progress=False)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.glob("blocks*")}


def test_an_interrupted_run_ends_with_the_same_bits(still, tmp_path, monkeypatch):
    layers = random_transcoders(still)
    plain = describe(still, layers)
    whole = describe(still, layers, tmp_path / "whole")
    made = []

    def dies_at_the_second(model, site, *rest):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(site)
        return original(model, site, *rest)

    original = lens.tables_of
    monkeypatch.setattr(lens, "tables_of", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        describe(still, layers, tmp_path / "cut")
    assert len(content(tmp_path / "cut")) == 1
    for name in ("blocks.1.npz", "weight_lens.json"):  # what a killed process leaves behind
        part = tmp_path / "cut" / f".{name}.{'0' * 32}.part" / name
        part.parent.mkdir()
        part.write_bytes(b"half")
    monkeypatch.setattr(lens, "tables_of", lambda m, s, *r: made.append(s) or original(m, s, *r))
    resumed = describe(still, layers, tmp_path / "cut")
    assert made == list(layers)  # none twice
    assert content(tmp_path / "cut") == content(tmp_path / "whole") and len(made) == 3
    for site, tables in plain.tables.items():
        for other in (whole, resumed):
            for name in TABLES:
                assert np.array_equal(getattr(tables, name), getattr(other.tables[site], name))
    assert plain.table().equals(resumed.table())


def test_a_finished_folder_is_read_without_a_run(still, tmp_path, monkeypatch):
    layers = random_transcoders(still)
    first = describe(still, layers, tmp_path)
    monkeypatch.setattr(lens, "single_token_pass", None)
    monkeypatch.setattr(lens, "tables_of", None)
    assert describe(still, layers, tmp_path).table().equals(first.table())


def test_more_layers_go_on_with_fewer_and_fewer_with_more(still, tmp_path, monkeypatch):
    layers = random_transcoders(still)
    first = dict(list(layers.items())[:2])
    made = []
    original = lens.tables_of
    monkeypatch.setattr(lens, "tables_of", lambda m, s, *r: made.append(s) or original(m, s, *r))
    LENS.describe(still, layers, layers=[1], store=tmp_path / "a", progress=False)
    assert made == list(first)  # what is inherited from comes too
    whole = describe(still, layers, tmp_path / "a")
    assert made == list(layers)  # none twice
    assert whole.table().equals(describe(still, layers).table())
    describe(still, layers, tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")
    made.clear()
    again = describe(still, first, tmp_path / "a")
    assert describe(still, layers, tmp_path / "a").table().equals(whole.table())
    assert not made and again.shown == tuple(first)
    with pytest.raises(MismatchError, match=r"dictionaries blocks\.\S+ only there"):
        describe(still, dict(list(layers.items())[1:]), tmp_path / "a")


def test_other_settings_and_other_weights_are_refused(still, tmp_path):
    layers = random_transcoders(still)
    describe(still, layers, tmp_path)
    with pytest.raises(MismatchError, match="theta_token"):
        describe(still, layers, tmp_path, WeightLens("paper", theta_token=3.5))
    with pytest.raises(MismatchError, match=r"dictionary_weights other blocks\.0"):
        describe(still, random_transcoders(still, threshold=1.0), tmp_path)


def test_damaged_and_foreign_files_are_refused(still, tmp_path):
    layers = random_transcoders(still)
    folder = tmp_path / "done"
    describe(still, layers, folder)
    path = next(folder.glob("blocks.1*"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-7] + b"damaged")
    with pytest.raises(FileFormatError, match=r"blocks\.1.*damaged"):
        describe(still, layers, folder)
    path.unlink()
    describe(still, layers, folder)  # made anew
    assert path.read_bytes() == whole
    manifest = folder / "weight_lens.json"
    document = json.loads(manifest.read_text())
    document["content"]["inputs"]["theta_token"] = 7
    manifest.write_text(json.dumps(document))
    with pytest.raises(FileFormatError, match="checksum"):
        describe(still, layers, folder)
    manifest.write_text("{")
    with pytest.raises(FileFormatError, match="not readable JSON"):
        describe(still, layers, folder)
    for place in (manifest, manifest / "below"):
        with pytest.raises(InputError, match="is no folder"):
            describe(still, layers, place)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"notes\.txt"):
        describe(still, layers, tmp_path / "mine")

"""`circuit-toolkit describe`, on the bundled transcoders."""

import json
from argparse import Namespace

import pytest

from circuit_toolkit.cli import main
from circuit_toolkit.cli.describe import run_describe
from circuit_toolkit.errors import InputError
from circuit_toolkit.weight_lens import FeatureDescriptions, WeightLens

GIVEN = {"layer": None, "model": "demo", "preset": "code", "json": False, "out": None}
GIVEN |= {"dictionaries": None, "store": None, "device": "cpu", "dtype": "float32"}


def said(capsys, **options):
    run_describe(Namespace(**GIVEN | options))
    return capsys.readouterr().out


def test_json_holds_what_was_found_and_by_which_settings(capsys, demo, demo_transcoders):
    result = json.loads(said(capsys, json=True, layer=0))
    found = WeightLens().describe(demo, demo_transcoders, layers=[0], progress=False)
    assert result["settings"] == json.loads(json.dumps(dict(found.settings)))
    assert result["features"] == 384 and result["validated"] == len(found.validated())
    (row,) = result["coverage"]
    assert row["validated"] == result["validated"] / 384 and row["null_candidates"] > 0
    assert result["cpu_seconds"] > 0 and result["file"] is None


@pytest.mark.parametrize("ending", ["parquet", "json"])
def test_words_a_table_and_a_file(capsys, tmp_path, ending):
    path = tmp_path / f"features.{ending}"
    text = said(capsys, preset="robust", out=path)
    again = FeatureDescriptions.load(path)
    assert f"{len(again.validated())} of 2304 features" in text
    assert "z above 3.5 for tokens" in text and f"Written to {path}" in text
    for site in again.shown:
        assert f"| {site} | 384 |" in text
        line = next(each for each in text.splitlines() if each.startswith(f"{site}, such as "))
        table = again.table()
        table = table[(table["site"] == str(site)) & table["validated"]]
        first = table[table["n_tokens"] == table["n_tokens"].max()].iloc[0]
        assert f"such as {first['feature']}: {first['words']}" in line
    assert "CPU s" in text


def test_features_of_another_model(capsys, monkeypatch, tiny, tiny_folder):
    monkeypatch.setattr("circuit_toolkit.models.load_model", lambda name, **_: tiny)
    given = {"model": "mine", "dictionaries": tiny_folder}
    result = json.loads(said(capsys, **given, json=True))
    assert result["model"] == tiny.name and len(result["coverage"]) == 3
    assert f"features of {tiny.name} have" in said(capsys, **given)


def test_the_command_is_registered(capsys):
    assert main(["describe", "--layer", "0", "--preset", "code", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["preset"] == "code"
    assert main(["describe", "--layer", "0", "--json"]) == 0  # one default everywhere
    assert json.loads(capsys.readouterr().out)["settings"]["preset"] == WeightLens().preset
    assert main(["describe", "--preset", "best"]) == 2
    assert "robust" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_loaded(
    capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr("circuit_toolkit.models.load_model", None)  # a call would be a TypeError
    (tmp_path / "file").touch()
    (tmp_path / "folder.json").mkdir()
    for options, message in (
        ({"out": tmp_path / "x.csv"}, r"\.parquet or \.json, got 'x\.csv'"),
        ({"out": tmp_path / "no" / "x.json"}, "There is no folder"),
        ({"out": tmp_path / "folder.json"}, "is a folder"),
        ({"store": tmp_path / "file"}, "is no folder"),
        ({"store": tmp_path / "file" / "store"}, "is no folder"),
    ):
        with pytest.raises(InputError, match=message):
            said(capsys, **options)
    with pytest.raises(TypeError):  # what can be made goes on to the model
        said(capsys, out=tmp_path / "x.json", store=tmp_path / "new" / "store")
    with monkeypatch.context() as patch, pytest.raises(InputError, match="cannot be written to"):
        patch.setattr("os.access", lambda path, mode: False)
        said(capsys, store=tmp_path / "new" / "store")
    assert main(["demo", "--out", str(tmp_path / "file")]) == 2
    assert "is no folder" in capsys.readouterr().err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder.json"]


def test_a_run_goes_on_in_its_store(capsys, monkeypatch, tmp_path):
    first = json.loads(said(capsys, json=True, layer=0, store=tmp_path / "store"))
    monkeypatch.setattr("circuit_toolkit.weight_lens.lens.tables_of", None)  # no work
    again = json.loads(said(capsys, json=True, layer=0, store=tmp_path / "store"))
    assert again["coverage"] == first["coverage"] and again["validated"] > 0


def test_what_is_wrong_is_said(capsys, monkeypatch, tiny):
    with pytest.raises(InputError, match="robust"):
        said(capsys, preset="best")
    with pytest.raises(InputError, match="layers must be"):
        said(capsys, layer=9)
    monkeypatch.setattr("circuit_toolkit.models.load_model", lambda name, **_: tiny)
    with pytest.raises(InputError, match="--dictionaries"):
        said(capsys, model="mine")

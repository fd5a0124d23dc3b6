"""`circuit-toolkit describe`, on the bundled transcoders."""

import json
from argparse import Namespace

import pytest

from circuit_toolkit.cli import main
from circuit_toolkit.cli.describe import run_describe
from circuit_toolkit.errors import InputError
from circuit_toolkit.interpret.weight_lens import FeatureDescriptions, WeightLens

GIVEN = {"layer": None, "model": "demo", "preset": "code", "json": False, "out": None}
GIVEN |= {"dictionaries": None}


def said(capsys, **options):
    run_describe(Namespace(**GIVEN | options))
    return capsys.readouterr().out


def test_json_holds_what_was_found_and_by_which_settings(capsys, demo, demo_transcoders):
    result = json.loads(said(capsys, json=True, layer=0))
    found = WeightLens().describe(demo, demo_transcoders, layers=[0], progress=False)
    assert result["settings"] == json.loads(json.dumps(dict(found.settings)))
    assert result["features"] == 384 and result["validated"] == len(found.validated())
    (row,) = result["coverage"]
    assert row["validated"] == result["validated"] / 384 and row["chance_candidates"] > 0
    assert [each["site"] for each in result["role_f1"]] == [row["site"], "all"]
    assert 0.8 < result["role_f1"][-1]["f1"] < 1 and result["cpu_seconds"] > 0
    assert result["file"] is None


@pytest.mark.parametrize("ending", ["parquet", "json"])
def test_words_a_table_and_a_file(capsys, tmp_path, ending):
    path = tmp_path / f"features.{ending}"
    text = said(capsys, preset="robust", out=path)
    again = FeatureDescriptions.load(path)
    assert f"{len(again.validated())} of 2304 features" in text
    assert "z above 3.5 for tokens" in text and f"Written to {path}" in text
    for site in again.shown:
        assert f"| {site} | 384 |" in text
    assert "Mean role F1" in text and "CPU s" in text


def test_where_the_model_is_another_there_is_no_grammar(capsys, monkeypatch, tiny, tiny_folder):
    monkeypatch.setattr("circuit_toolkit.models.load_model", lambda name: tiny)
    given = {"model": "mine", "dictionaries": tiny_folder}
    result = json.loads(said(capsys, **given, json=True))
    assert result["role_f1"] is None and len(result["coverage"]) == 3
    assert "Mean role F1" not in said(capsys, **given)


def test_the_command_is_registered(capsys):
    assert main(["describe", "--layer", "0", "--preset", "code", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["preset"] == "code"
    assert main(["describe", "--preset", "best"]) == 1
    assert "robust" in capsys.readouterr().err


def test_what_is_wrong_is_said(capsys, monkeypatch, tiny):
    with pytest.raises(InputError, match="robust"):
        said(capsys, preset="best")
    with pytest.raises(InputError, match="layers must be"):
        said(capsys, layer=9)
    monkeypatch.setattr("circuit_toolkit.models.load_model", lambda name: tiny)
    with pytest.raises(InputError, match="--dictionaries"):
        said(capsys, model="mine")

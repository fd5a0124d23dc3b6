"""`~` is the home folder in every path that the toolkit takes, for reading and for writing."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import circuit_toolkit as ct
from circuit_toolkit.benchmark.heads.effects import KINDS, HeadEffects
from circuit_toolkit.dictionaries import save_dictionary
from circuit_toolkit.features.descriptions.descriptions import FeatureDescriptions
from circuit_toolkit.models.sources import DEMO_FOLDER
from circuit_toolkit.weight_lens import WeightLens
from tests.circuit.made_up import made_up_circuit
from tests.tiny import TEXTS, random_sae


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    (tmp_path / "home" / "out").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path / "home"
    assert not list(Path.cwd().iterdir())


def test_circuits_and_effects_are_written_and_read_there(home):
    circuit = made_up_circuit()
    circuit.save("~/out/circuit.json")
    assert len(ct.Circuit.load("~/out/circuit.json").nodes) == len(circuit.nodes)
    circuit.to_html("~/out/circuit.html")
    tables = [{kind: np.ones((1, 1)) for kind in KINDS}] * 3
    HeadEffects(*tables, gap=1.0, settings={}).save("~/out/heads.json")
    assert HeadEffects.load("~/out/heads.json").gap == 1
    names = sorted(path.name for path in (home / "out").iterdir())
    assert names == ["circuit.html", "circuit.json", "heads.json"]


def test_models_dictionaries_and_activations_are_read_and_written_there(home, tiny):
    shutil.copytree(DEMO_FOLDER, home / "model")
    model = ct.load_model("~/model")
    site = ct.Site("resid_post", 1)
    save_dictionary(random_sae(tiny.name, site), "~/saes/one")
    assert (home / "saes" / "one" / "cfg.json").is_file()
    saes = ct.load_dictionaries(tiny, "~/saes")
    acts = ct.capture(tiny, saes, TEXTS, progress=False)
    acts.save("~/out/saved")
    ct.capture(tiny, saes, TEXTS, store="~/out/store", progress=False)
    for name in ("saved", "store"):
        assert (home / "out" / name).is_dir()
        assert ct.ActivationStore.open(f"~/out/{name}").load().n_prompts == len(TEXTS)
    assert model.n_layers == 6


def test_descriptions_are_written_and_read_there(home, demo, demo_transcoders):
    lens, one = WeightLens("robust", n_permuted=0), dict(list(demo_transcoders.items())[:1])
    found = lens.describe(demo, one, store="~/out/lens", progress=False)
    assert (home / "out" / "lens" / "weight_lens.json").is_file()
    assert found.save("~/out/found.parquet") == home / "out" / "found.parquet"
    assert FeatureDescriptions.load("~/out/found.parquet").table().equals(found.table())

"""A fit opened tomorrow gives the same circuits, and a forged file none."""

import json
import subprocess
import sys
import textwrap
from dataclasses import fields, replace

import numpy as np
import pytest
import scipy.sparse as sp
from safetensors.numpy import load_file, save_file

from circuit_toolkit.circuit_lasso import fit_file
from circuit_toolkit.circuit_lasso.estimator import CircuitLasso
from circuit_toolkit.circuit_lasso.fit import LassoFit
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.documents import document
from tests.circuit_lasso.test_estimator import A, B, planted

WAYS = {
    "plain": ({}, "metric"),
    "adaptive, all sites": ({"adaptive": True, "reads": "all", "folds": 3}, "metric"),
    "a label, no folds": ({"folds": 0, "reads": "all"}, "sign"),
    "own numbers": ({"strengths": (1.0, 0.1)}, np.arange(200.0)),
}


def fitted(way):
    settings, target = WAYS[way]
    acts = planted(n=200)
    acts = replace(acts, named={"end": np.ones(200, int)}, settings={**acts.settings, "x": [1]})
    return CircuitLasso(**settings).fit(acts, target, progress=False)


@pytest.fixture(scope="module", params=WAYS)
def fit(request):
    return fitted(request.param)


@pytest.fixture(scope="module")
def plain():
    return fitted("plain")


def assert_same_circuit(one, two):
    np.testing.assert_array_equal(one.nodes, two.nodes)
    np.testing.assert_array_equal(one.edges, two.edges)
    assert one.settings == two.settings and one.evidence == two.evidence


def assert_same_value(a, b):
    assert type(a) is type(b)
    if sp.issparse(a):
        assert a.shape == b.shape and abs(a - b).max() == 0
    elif isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


def test_a_loaded_fit_gives_the_same_circuits(fit, tmp_path):
    again = LassoFit.load(fit.save(tmp_path / "fit.safetensors"))
    for strength in (*fit.strengths, "best", *(["one_se"] if fit.folds is not None else [])):
        for prompt in (None, 3):
            assert_same_circuit(*(f.circuit(strength, prompt=prompt) for f in (again, fit)))
    assert_same_circuit(again.circuit(edge_budget=5), fit.circuit(edge_budget=5))
    other = planted(n=20, seed=4)
    other = replace(other, settings={**fit.rows.settings, "positions": "all"})
    assert_same_circuit(*(f.on(other).circuit(0.1, prompt=2) for f in (again, fit)))
    assert again.settings == fit.settings and repr(again) == repr(fit)
    assert again.settings["folds"] == fit.settings["folds"] and again.labels == fit.labels


def test_everything_but_second_moments_comes_back(fit, tmp_path):
    again = LassoFit.load(fit.save(tmp_path / "fit.safetensors"))
    for site in fit.sites:
        np.testing.assert_array_equal(again.screening[site].kept, fit.screening[site].kept)
        for each in ("kept", "representative"):
            assert_same_value(*(getattr(f.screening[site], each) for f in (again, fit)))
        assert_same_value(again.scales[site], fit.scales[site])
        assert_same_value(again.rows.features[site], fit.rows.features[site])
    for name in ("prompt", "position", "tokens", "groups", "metric", "directions", "settings"):
        assert_same_value(getattr(again.rows, name), getattr(fit.rows, name))
    for part in ("chain", "readout"):
        assert list(getattr(again, part)) == list(getattr(fit, part))
        for site, path in getattr(fit, part).items():
            loaded = getattr(again, part)[site]
            assert repr(loaded) == repr(path)
            for each in fields(path):
                a, b = getattr(loaded, each.name), getattr(path, each.name)
                if each.name == "coefficients":
                    [assert_same_value(x, y) for x, y in zip(a, b, strict=True)]
                elif each.name not in ("stats", "penalty", "max_iter", "tol", "device"):
                    assert_same_value(a, b)
            for k in range(len(fit.strengths)):
                assert_same_value(loaded.intercepts(k), path.intercepts(k))
    with pytest.raises(InputError, match="read from a file. Put the strength among"):
        again.chain[B].solve(0.123)


def test_a_fit_is_opened_without_torch(plain, tmp_path):
    plain.save(tmp_path / "fit.safetensors")
    plain.circuit(0.1).save(tmp_path / "circuit.json")
    code = """
        import sys
        import circuit_toolkit as ct
        circuit = ct.LassoFit.load(sys.argv[1]).circuit(0.1)
        other = ct.Circuit.load(sys.argv[2])
        assert (circuit.nodes == other.nodes).all() and (circuit.edges == other.edges).all()
        assert circuit.settings == other.settings and circuit.evidence == other.evidence
        loaded = {"torch", "nnsight", "transformers", "sae_lens"} & set(sys.modules)
        assert not loaded, f"opening a fit loads {sorted(loaded)}"
    """
    paths = [str(tmp_path / "fit.safetensors"), str(tmp_path / "circuit.json")]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *paths], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_write_that_fails_leaves_what_was_there(plain, tmp_path, monkeypatch):
    path = plain.save(tmp_path / "fit.safetensors")
    before = path.read_bytes()
    bad = replace(plain, settings={**plain.settings, "model": object()})
    with pytest.raises(InputError, match="cannot be written as JSON"):
        bad.save(path)
    monkeypatch.setattr("safetensors.numpy.save_file", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        plain.save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_the_home_folder_is_the_users(plain, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert plain.save("~/fit.safetensors") == tmp_path / "fit.safetensors"
    assert repr(LassoFit.load("~/fit.safetensors")) == repr(plain)


@pytest.mark.parametrize("cut", [0, 10, 5000, -1])
def test_a_file_cut_off_or_flipped_is_refused(plain, tmp_path, cut):
    path = plain.save(tmp_path / "fit.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    with pytest.raises(FileFormatError, match="LassoFit.save"):
        LassoFit.load(path)
    flipped = bytearray(whole)
    flipped[cut or -2000] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(FileFormatError):
        LassoFit.load(path)


def test_files_of_others_are_refused(plain, tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        LassoFit.load(tmp_path)
    with pytest.raises(FileFormatError, match="holds no fit|no whole safetensors"):
        LassoFit.load(plain.circuit(0.1).save(tmp_path / "circuit.json"))
    save_file({"a": np.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(FileFormatError, match="holds no fit|no whole safetensors"):
        LassoFit.load(tmp_path / "other.safetensors")
    path = plain.save(tmp_path / "fit.safetensors")
    arrays = load_file(path)
    text = json.loads(arrays["json"].tobytes()) | {"schema_version": 2}
    arrays["json"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    save_file(arrays, path)
    with pytest.raises(FileFormatError, match="schema version 2"):
        LassoFit.load(path)


def forged(fit, path, change):
    """Write a fit with something changed, and checksums that fit."""
    arrays = {name: values.copy() for name, values in load_file(fit.save(path)).items()}
    content = json.loads(arrays.pop("json").tobytes())["content"]
    change(arrays, content)
    content["arrays"] = fit_file._digest(arrays)
    whole = document(fit_file.FORMAT, fit_file.SCHEMA_VERSION, content)
    arrays["json"] = np.frombuffer(json.dumps(whole).encode(), np.uint8)
    save_file({name: np.ascontiguousarray(each) for name, each in arrays.items()}, path)
    return path


def array(name, make):
    return lambda arrays, content: arrays.update({name: make(arrays[name])})


def put(index, value):
    def make(values):
        values[index] = value
        return values

    return make


FORGERIES = {
    "an index beyond the sources": array(f"chain/{B}/coefficients.indices", put(0, 10**6)),
    "an index below zero": array(f"chain/{B}/coefficients.indices", put(0, -1)),
    "rows that run backwards": array(f"readout/{B}/coefficients.indptr", put(3, 10**6)),
    "too few rows": array(f"readout/{B}/coefficients.indptr", lambda a: a[:-1]),
    "a coefficient that is no number": array(f"chain/{B}/coefficients.data", put(0, np.nan)),
    "coefficients of whole numbers": array(f"chain/{B}/coefficients.data", lambda a: a.astype(int)),
    "a feature beyond the dictionary": array(f"{A}/kept", put(-1, 12)),
    "a feature twice": array(f"{A}/kept", put(1, 0)),
    "fewer features": array(f"{A}/kept", lambda a: a[1:]),
    "features as numbers with a point": array(f"{A}/kept", lambda a: a.astype(float)),
    "a stand-in that is not there": array(f"{A}/representative", put(0, 99)),
    "a scale below zero": array(f"{A}/scale", put(0, -1.0)),
    "a scale without end": array(f"{A}/scale", put(0, np.inf)),
    "an activation without end": array(f"rows/{A}.data", put(0, np.inf)),
    "an activation of no feature": array(f"rows/{A}.indices", put(0, 500)),
    "a prompt that is not there": array("rows/prompt", put(0, 7)),
    "a metric that is no number": array("rows/metric", put(0, np.nan)),
    "another number of strengths": array("held_out", lambda a: a[1:]),
    "held-out fit as text": array("held_out", lambda a: a.astype(np.int8)),
    "folds of another length": array("folds", lambda a: a[:, 1:]),
    "folds that are no numbers": array("folds", put((0, 0), np.nan)),
    "strengths that rise": array(f"readout/{B}/strengths", lambda a: a[::-1]),
    "strengths above one": array(f"chain/{B}/strengths", put(0, 1.5)),
    "strengths of another path": array(f"chain/{B}/strengths", put(-1, 0.01)),
    "means of another length": array(f"chain/{B}/mean_y", lambda a: a[1:]),
    "variances below zero": array(f"chain/{B}/diagonal", put(0, -1.0)),
    "flags that are numbers": array(f"chain/{B}/converged", lambda a: a.astype(int)),
    "no certificate": lambda arrays, content: arrays.pop(f"chain/{B}/kkt"),
    "no chain": lambda arrays, content: content.update(chain={}),
    "sites in another order": lambda arrays, content: content["sites"].reverse(),
    "an unknown site": lambda arrays, content: content.update(sites=["nowhere", str(B)]),
    "a readout of another site": lambda arrays, content: content.update(readout={str(A): {}}),
    "labels of another number": lambda arrays, content: content["labels"][str(A)].pop(),
    "labels that are no texts": lambda arrays, content: content["labels"].update(
        {str(A): [1] * 12}
    ),
    "labels that are one text": lambda arrays, content: content["labels"].update(
        {str(A): "a" * 12}
    ),
    "no settings": lambda arrays, content: content.update(settings={}),
    "another objective": lambda arrays, content: content["settings"].update(objective="x"),
    "adaptive as text": lambda arrays, content: content["settings"].update(adaptive="no"),
    "a target that is no name": lambda arrays, content: content["settings"].update(target=["x"]),
    "no rows seen": lambda arrays, content: content["chain"][str(B)].update(n=0),
    "a tolerance as text": lambda arrays, content: content["chain"][str(B)].update(tol="small"),
    "settings as a list": lambda arrays, content: content.update(settings=[]),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_files_are_refused(plain, tmp_path, name):
    path = forged(plain, tmp_path / "fit.safetensors", lambda arrays, content: None)
    assert_same_circuit(LassoFit.load(path).circuit(0.1), plain.circuit(0.1))
    with pytest.raises(FileFormatError, match="LassoFit.save"):
        LassoFit.load(forged(plain, path, FORGERIES[name]))

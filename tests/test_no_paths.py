"""What is written is shared: no path of the machine that wrote it is in it."""

from __future__ import annotations

import pytest

import circuit_toolkit as ct
from benchmarks.demo.tokenizer import build_tokenizer
from tests.tiny import TEXTS, task_it_does, tiny_hf, write_dictionaries

SECRET = "home-of-a-user"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of all that the toolkit writes of a model and dictionaries in a user's folder."""
    out = tmp_path_factory.mktemp("out")
    home = tmp_path_factory.mktemp(SECRET)
    tiny_hf().save_pretrained(home / "mine")
    build_tokenizer().save_pretrained(home / "mine")
    model = ct.load_model(home / "mine")
    write_dictionaries(model, home / "dictionaries")
    saes = ct.load_dictionaries(model, home / "dictionaries")
    transcoders = ct.load_dictionaries(model, home / "dictionaries", kind="transcoder")
    task = task_it_does([*TEXTS[:3]] * 4, [*TEXTS[:3]] * 4)
    store = ct.capture(model, saes, task, store=out / "store", progress=False)
    acts = store.load()
    acts.save(out / "acts")
    fit = ct.CircuitLasso(min_active=2, folds=0).fit(acts, task, progress=False)
    fit.save(out / "fit.safetensors")
    circuit = fit.circuit(0.1)
    graph = ct.attribution_graph(model, transcoders, TEXTS[0], progress=False)
    for name, each in (("learnt", circuit), ("graph", graph)):
        each.save(out / f"{name}.json")
        each.to_html(out / f"{name}.html")
        each.to_svg(out / f"{name}.svg")
        each.to_csv(out / name)
        each.to_graphml(out / f"{name}.graphml")
    graph.to_neuronpedia(out / "neuronpedia.json")
    lens = ct.WeightLens("robust")
    found = lens.describe(model, transcoders, store=out / "lens", progress=False)
    found.save(out / "found.parquet")
    found.save(out / "found.json")
    site, feature = next(iter(saes)), int(acts.features[next(iter(saes))].indices[0])
    ct.feature_card(model, saes, f"{site}/{feature}", acts).to_html(out / "card.html")
    ct.explore(model, {**saes, **transcoders}, TEXTS[0]).save(out / "session.json")
    return out, home, circuit, model


def test_no_file_holds_a_path(written):
    out, home, *_ = written
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        content = path.read_bytes()
        for secret in (SECRET, str(home), str(home.parent)):
            assert secret.encode() not in content, path.name


def test_nothing_that_is_shown_holds_a_path(written):
    out, home, circuit, model = written
    for each in (circuit, model):
        assert SECRET not in repr(each) and SECRET not in str(getattr(each, "settings", ""))

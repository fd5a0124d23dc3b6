"""Every call of the README once, small: `make test-oldest` and `make test-newest` run this file."""

import pytest

import circuit_toolkit as ct

PROMPT = "Greta and Thomas spent the winter in Seattle. Thomas sent a sandwich to"


@pytest.fixture(scope="module")
def case():
    model = ct.load_model("demo")
    saes = ct.load_dictionaries(model, sites=["resid_post 4"])
    tasks = [ct.tasks.ioi(model, n=32, seed=i, test=bool(i)) for i in range(2)]
    return model, saes, *tasks


@pytest.fixture(scope="module")
def transcoders(case):
    return ct.load_dictionaries(case[0], kind="transcoder")


def test_capture_and_its_store(case, tmp_path):
    model, saes, task, _ = case
    acts = ct.capture(model, saes, task, progress=False)
    stored = ct.capture(model, saes, task, store=tmp_path / "acts", progress=False)
    (site,) = saes
    whole, *more = stored.shards()
    assert not more and (acts.features[site] != whole.features[site]).nnz == 0
    assert ct.estimate_capture(model, saes, task).seconds > 0


def test_a_circuit_is_found_tested_drawn_and_kept(case, tmp_path):
    model, saes, task, held_out = case
    circuit = ct.find_circuit(model, saes, task, held_out, progress=False)
    assert circuit.verdict in circuit._repr_html_()
    circuit.to_html(tmp_path / "circuit.html")
    circuit.to_graphml(tmp_path / "circuit.graphml")
    circuit.to_csv(tmp_path / "tables")
    kept = ct.Circuit.load(circuit.save(tmp_path / "circuit.json"))
    assert kept.ids() == circuit.ids() and kept.evidence == circuit.evidence


@pytest.mark.parametrize("design", ["observational", "randomised"])
def test_the_lasso(case, design):
    model, saes, task, held_out = case
    acts = ct.capture(model, saes, task, progress=False)
    options = {"model": model, "dictionaries": saes} if design == "randomised" else {}
    fit = ct.CircuitLasso(design=design).fit(acts, task, **options, progress=False)
    circuit = fit.circuit(strength=fit.strengths[len(fit.strengths) // 2])
    assert ct.evaluate(circuit, model, saes, held_out, progress=False).evidence["ablation"]


def test_one_prompt(case, transcoders, tmp_path):
    model = case[0]
    graph = ct.attribution_graph(model, transcoders, PROMPT, max_features=300, progress=False)
    few = graph.prune(max_features=8)
    few = ct.confirm_nodes(few, model, transcoders, progress=False)
    assert ct.Circuit.from_neuronpedia(few.to_neuronpedia(tmp_path / "graph.json")).ids()
    feature = next(each for each in few.ids() if "mlp_in" in each or "ln2" in each)
    assert ct.steer(model, few, {feature: 0}).targets is not None


def test_what_a_feature_means(case, transcoders):
    model, _, task, _ = case
    first = dict([*transcoders.items()][:2])
    described = ct.WeightLens("paper").describe(model, first, progress=False)
    assert len(described.coverage()) == 2
    acts = ct.capture(model, first, task, progress=False)
    site = next(iter(first))
    index = int(acts.features[site].sum(0).argmax())
    card = ct.feature_card(model, first, f"{site}/{index}", acts, descriptions=described)
    assert card.examples


def test_heads(case):
    model, _, task, held_out = case
    assert ct.find_heads(model, task, held_out, progress=False).verdict
    codes = ct.HeadCodes(n_seeds=1, steps=20, n_train=4)
    acts = ct.capture(model, "head_out", task, positions="last", progress=False)
    assert codes.fit(acts, task).scores.shape == (6, 8)


def test_components(case):
    model, _, task, _ = case
    found = ct.compare(model, task.subset(8), ["eap", "eap_ig"], progress=False)
    assert len(found.table) >= 2


def test_panels(case, transcoders):
    pytest.importorskip("anywidget")
    model = case[0]
    explorer = ct.explore(model, transcoders, PROMPT)
    assert explorer.circuit.ids()
    explorer.close()

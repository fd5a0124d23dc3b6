"""The panel of features, driven as the browser drives it: by setting traits."""

from __future__ import annotations

import pytest

import circuit_toolkit as ct
from circuit_toolkit.demo.grammar import Grammar
from circuit_toolkit.errors import InputError
from circuit_toolkit.interpret.circuit_lens import CircuitLens
from circuit_toolkit.models import ports
from circuit_toolkit.panels.features import explore_features


@pytest.fixture(scope="module")
def panel():
    model = ct.load_model("demo")
    transcoders = ct.load_dictionaries(model, kind="transcoder")
    described = ct.WeightLens("paper").describe(model, transcoders, progress=False)
    texts = [sentence.text for sentence in Grammar(5).sentences(120)]
    lens = CircuitLens(n_firings=20)
    return explore_features(model, transcoders, texts, descriptions=described, lens=lens)


@pytest.fixture
def no_model(monkeypatch):
    """Let any run of the model fail."""

    def refuse(*args, **kwargs):
        raise AssertionError("the model was run")

    monkeypatch.setattr(ports, "_trace", refuse)


def test_it_opens_on_a_described_feature_of_the_first_layer(panel):
    names = [name for _, name in panel._found.options]
    described = panel.descriptions.coverage()["validated"].iloc[0] * 384
    assert len(names) == round(described) > 50
    assert panel.selected == f"{panel._site.value}/{names[0].rpartition('/')[2]}"
    assert panel.card.name == panel.selected and panel.selected in panel._card.value
    assert panel.card.weight_lens["validated"]


def test_thresholds_redraw_without_a_run(panel, no_model):
    panel.selected = panel.descriptions.validated()[0][0].short + "/16"
    before = len(panel.descriptions.validated())
    kept = panel.selected
    panel._token.value = panel._token.value + 1.5
    assert len(panel.descriptions.validated()) < before
    assert panel.selected == kept and panel.card.name == kept
    assert panel.card.weight_lens["provenance"]["theta_token"] == panel._token.value
    panel._token.value -= 1.5
    assert len(panel.descriptions.validated()) == before


def test_a_token_is_looked_up_by_what_it_activates(panel):
    panel._search.value = "Mary"
    names = [name for _, name in panel._found.options]
    assert f"<b>{len(names)}</b> features" in panel._status.value and names
    shares = [text.rpartition(" · ")[2] for text, _ in panel._found.options]
    shares = [int(share.partition("%")[0]) for share in shares]
    assert shares == sorted(shares, reverse=True) and shares[0] > shares[-1]
    token = panel.model.token_id("Mary")
    batch = panel.model.tokenize([[panel.model.bos_id, token]])
    for name in (names[0], names[-1]):  # by the slow way: one run, one dictionary
        site, index = name.rpartition("/")[::2]
        site = ct.Site.parse(site)
        acts = panel.dictionaries[site].encode(ports_value(panel.model, batch, site))
        assert acts[0, -1, int(index)] > 0
    panel._search.value = ""


def ports_value(model, batch, site):
    from circuit_toolkit.models import run

    return run(model, batch, [site])[site]


def test_firings_are_taken_apart_once_and_clustered_again_without_a_run(panel, no_model):
    panel._go.value = "mlp_in 1/226"
    assert panel.selected.endswith("/226") and panel.circuits is None
    with pytest.raises(AssertionError, match="was run"):
        panel.analyse()


def test_sliders_cluster_again(panel, monkeypatch):
    panel.selected = "mlp_in 1/226"
    panel.analyse()
    assert panel.circuits.feature == panel.selected and "taken apart" in panel._status.value
    assert panel._found.value is None  # it is of another layer than the list
    assert panel.card.circuit_lens["n_firings"] == len(panel.circuits.firings) <= 20
    monkeypatch.setattr(ports, "_trace", None)  # a run would fail
    panel._eps.value = 0.9
    assert panel.card.circuit_lens["settings"]["eps"] == pytest.approx(0.9)
    panel.selected = "mlp_in 1/91"
    assert panel.circuits is None and panel.card.circuit_lens is None


def test_what_the_user_can_mend_is_said_in_the_panel(panel):
    panel._go.value = "mlp_in 9/3"
    assert "No dictionary was given for blocks.9" in panel._status.value
    panel._go.value = "what?"
    assert "names no feature" in panel._status.value
    panel._search.value = "Mary Anna"
    assert "2 tokens" in panel._status.value
    panel._search.value = ""
    with pytest.raises(InputError, match="features 0 to 383, got 384"):
        panel.selected = "mlp_in 0/384"
    with pytest.raises(InputError, match="no dictionaries"):
        explore_features(panel.model, {}, ["x"])

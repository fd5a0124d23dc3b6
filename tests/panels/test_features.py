"""The panel of features, driven as the browser drives it: by setting traits."""

from __future__ import annotations

import html
import re

import numpy as np
import pytest

import circuit_toolkit as ct
from circuit_toolkit.circuit_lens import CircuitLens
from circuit_toolkit.demo.grammar import Grammar
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import ports, run
from circuit_toolkit.panels import feature_search
from circuit_toolkit.panels.feature_search import activated_by, list_activated
from circuit_toolkit.panels.features import explore_features
from circuit_toolkit.sites import Site
from circuit_toolkit.views.rendering import render
from tests.sinks import with_sinks, without_first


@pytest.fixture(scope="module")
def texts():
    return [sentence.text for sentence in Grammar(5).sentences(120)]


@pytest.fixture(scope="module")
def described(demo, demo_transcoders):
    return ct.WeightLens("paper").describe(demo, demo_transcoders, progress=False)


@pytest.fixture(scope="module")
def shared(demo, demo_transcoders, texts, described):
    lens = CircuitLens(n_examples=20)
    return explore_features(demo, demo_transcoders, texts, descriptions=described, lens=lens)


@pytest.fixture
def panel(shared):
    """The one panel, as it was when it opened."""
    for sliders, settings in [
        (shared._words, shared._described.settings),
        ({**shared._examples, **shared._clusters}, vars(shared.lens)),
    ]:
        for name, slider in sliders.items():
            slider.value = settings[name]
    shared._analysed.clear()
    shared._search.value = shared._filter.value = ""
    shared._site.value = str(Site("mlp_in", 0))
    shared._pick()
    return shared


@pytest.fixture
def no_model(monkeypatch):
    """Let any run of the model fail."""

    def refuse(*args, **kwargs):
        raise AssertionError("the model was run")

    monkeypatch.setattr(ports, "_trace", refuse)


def said(line) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", line.value))


def names(panel) -> list[str]:
    """What is listed, on all pages."""
    return [each.name for each in panel._listing.entries]


def on_page(panel) -> list[str]:
    return [name for _, name in panel._found.options]


def shown_at(panel, name: str) -> None:
    """Menu, list, box and card all show one feature."""
    site, index = name.rpartition("/")[::2]
    whole = f"{Site.parse(site)}/{index}"
    assert panel.selected == panel.card.name == whole and whole in panel._card.value
    assert panel._go.value == name
    assert panel._site.value in ("", str(Site.parse(site)))
    assert panel._found.value == (name if name in on_page(panel) else None)
    assert (name in names(panel)) == (name in on_page(panel)), "its page is shown"


def test_it_opens_on_a_described_feature_of_the_first_layer(panel):
    described = round(panel.descriptions.coverage()["validated"].iloc[0] * 384)
    assert len(names(panel)) == len({*names(panel)}) == 384 > described > 50
    words = panel.descriptions.words_of(Site("mlp_in", 0))
    first = [int(name.rpartition("/")[2]) for name in names(panel)[: described + 1]]
    assert [bool(words[i]) for i in first] == [True] * described + [False]
    shown_at(panel, names(panel)[0])
    assert panel.card.weight_lens["validated"]


def test_the_caption_counts_own_tokens_against_chance_and_inherited_ones_apart(panel):
    panel._site.value = str(Site("mlp_in", 5))
    table = panel.descriptions.table().query("layer == 5 and validated")
    words = [panel.descriptions.of(Site("mlp_in", 5), i) for i in table["feature"]]
    own = sum(any(each["solo"] > 0 for each in one["tokens"]["positive"]) for one in words)
    chance = panel.descriptions.coverage()["null_own"].iloc[5]
    assert 0 < own < len(table)
    assert said(panel._status) == (
        f"{len(table)} of 384 features of mlp_in 5 have a description that holds in the running "
        f"model (WeightLens, preset 'paper'): {own} ({own / 384:.1%}) by tokens of their own, "
        f"where chance gives {chance:.1%}; {len(table) - own} only by tokens inherited from "
        f"earlier layers; the {384 - len(table)} others follow, the most often active first"
    )


def test_thresholds_redraw_without_a_run(panel, no_model):
    kept = str(panel.descriptions.validated()[0][0].short + "/16")
    panel.selected = kept
    before = len(panel.descriptions.validated())
    panel._words["theta_token"].value += 1.5
    assert len(panel.descriptions.validated()) < before
    shown_at(panel, kept)
    theta = panel.card.weight_lens["provenance"]["theta_token"]
    assert theta == panel._words["theta_token"].value
    panel._words["theta_token"].value -= 1.5
    assert len(panel.descriptions.validated()) == before


def test_a_token_is_run_once_whatever_the_sliders_do(panel, monkeypatch):
    calls, run_alone = [], feature_search.single_token_activations
    monkeypatch.setattr(
        feature_search,
        "single_token_activations",
        lambda *args: calls.append(args[2]) or run_alone(*args),
    )
    panel._alone.clear()
    panel._search.value = "Anna"
    before = len(names(panel))
    panel._words["theta_token"].value += 1
    panel._words["theta_feature"].value += 1
    panel._site.value = str(Site("mlp_in", 2))
    assert len(calls) == 1 and 0 < len(names(panel)) < before


def test_a_token_is_looked_up_by_what_it_activates(panel):
    model, dictionaries = panel.model, panel.dictionaries
    batch = model.tokenize([[model.bos_id, model.token_id(":")]])
    alone = {s: d.encode(run(model, batch, [s])[s])[0, -1].numpy() for s, d in dictionaries.items()}
    panel._search.value = ":"
    assert panel._site.value == "", "a first token is looked up in all layers"
    assert len(names(panel)) == sum(int((a > 0).sum()) for a in alone.values())
    places = [
        i
        for i, (p, t) in enumerate(zip(panel.acts.prompt, panel.acts.position, strict=True))
        if panel.acts.tokens[p][t] == ":"
    ]
    assert places
    shares = []
    for text, name in ((each.line, each.name) for each in panel._listing.entries):
        site, index = name.rpartition("/")[::2]
        column = panel.acts.features[Site.parse(site)][:, [int(index)]].toarray()[:, 0]
        value = alone[Site.parse(site)][int(index)]
        shares.append(value / column.max() if column.max() else -1)
        if column.max():
            said_share = re.search(r"(\d+)% of the largest in these prompts", text)
            assert abs(int(said_share[1]) - 100 * shares[-1]) < 0.51  # it is rounded
            assert f"active on {(column[places] > 0).sum()} of {len(places)} ':' there" in text
        else:
            assert "never active in these prompts" in text
    assert np.all(np.diff(shares) <= 1e-5)  # of runs in batches of other sizes
    panel._site.value = str(Site("mlp_in", 4))
    assert {name.partition("/")[0] for name in names(panel)} == {"mlp_in 4"}
    shown_at(panel, names(panel)[0])


TEXT = "Anna went to the store"


def test_a_sentence_lists_what_it_activates_at_any_of_its_tokens(panel):
    """Against encoding what a plain run gives."""
    panel._search.value = TEXT
    model, dictionaries = panel.model, panel.dictionaries
    batch = model.tokenize([TEXT])
    values = {
        s: d.encode(run(model, batch, [s])[s])[0, 1:].numpy() for s, d in dictionaries.items()
    }
    assert len(names(panel)) == sum(int((v > 0).any(0).sum()) for v in values.values()) > 100
    words, shares = model.words(batch)[0][1:], []
    for name, label, what in panel._listing.entries:
        site, index = name.rpartition("/")[::2]
        column = values[Site.parse(site)][:, int(index)]
        most = panel.acts.features[Site.parse(site)][:, [int(index)]].max()
        assert label == panel._labels[Site.parse(site)][int(index)]
        assert f"on “{words[column.argmax()]}”" in what and f"{column.max():.2g} on" in what
        assert ("never there" in what) == (not most)
        assert (f"on {(column > 0).sum()} tokens" in what) == ((column > 0).sum() > 1)
        shares.append(column.max() / most if most else -1)
    assert np.all(np.diff(shares) <= 1e-5)
    assert [word for word, _ in panel._token.options] == ["all tokens", *words]
    assert panel._token.layout.display == "" and "Anna" in said(panel._shown)
    shown_at(panel, names(panel)[0])


def test_one_token_of_a_sentence_and_one_layer_narrow_the_list(panel):
    panel._search.value = TEXT
    every = {*names(panel)}
    panel._token.value = 3  # "to", behind <bos> Anna went
    assert {*names(panel)} < every and "At to this sentence activates" in said(panel._status)
    assert all("on “to”" in each.what for each in panel._listing.entries)
    panel._site.value = str(Site("mlp_in", 2))
    assert {name.partition("/")[0] for name in names(panel)} == {"mlp_in 2"}
    panel._search.value = "Mary"
    assert panel._sentence is None and panel._token.layout.display == "none"
    assert not panel._shown.value and "alone" in said(panel._status)


def test_a_sentence_is_run_once_and_at_every_letter_where_that_is_fast(panel, monkeypatch):
    panel._search.value = TEXT
    assert panel._search.continuous_update
    monkeypatch.setattr(ports, "_trace", None)  # a run would fail
    panel._token.value = 2
    panel._site.value = str(Site("mlp_in", 1))
    panel._filter.value = "an"
    monkeypatch.undo()
    monkeypatch.setattr("circuit_toolkit.panels.features.LIVE", 0.0)
    panel._search.value = f"{TEXT}."
    assert not panel._search.continuous_update, "where it is not, Enter runs it"
    assert said(panel._shown).strip().endswith("store ."), "the same feature, the new sentence"


def test_features_are_found_by_what_is_in_their_labels(panel):
    panel._site.value = ""
    panel._filter.value = "THE"
    assert names(panel) and all("the" in each.label.lower() for each in panel._listing.entries)
    every = [(site, i) for site, each in panel._labels.items() for i, name in enumerate(each)
             if "the" in name.lower()]  # fmt: skip
    assert len(names(panel)) >= len(every) > 3
    panel._filter.value = "no label has this"
    assert not names(panel) and panel._pages.value == "none"


def test_every_feature_is_on_some_page(panel):
    panel._site.value = ""
    every = sum(each.n_features for each in panel.dictionaries.values())
    seen, pages = set(), 0
    panel._page = 0
    panel._fill_page()
    assert panel._before.disabled and panel._pages.value == f"1 to 100 of {every:,}"
    while True:
        seen |= {*on_page(panel)}
        pages += 1
        if panel._after.disabled:
            break
        panel._after.click()
    assert len(seen) == every == 6 * 384 and pages == -(-every // 100)
    panel._before.click()
    assert not panel._after.disabled
    name = names(panel)[250]
    panel._go.value = name
    assert panel._pages.value.startswith("201 to 300"), "the page of the feature"
    shown_at(panel, name)


def test_a_share_may_exceed_what_the_texts_hold(panel, texts):
    few = ct.capture(panel.model, panel.dictionaries, texts[:3], progress=False)
    found = activated_by(panel.model, panel.dictionaries, few, panel.model.token_id("Mary"))
    first = found.features[0]
    largest = few.features[first.site][:, [first.index]].max()
    assert first.alone > largest > 0
    entries, caption = list_activated(found, None, panel._labels)
    assert f"{first.alone / largest:.0%} of the largest in these prompts" in entries[0].line
    assert "<b>Mary</b> does not occur" in caption and "on 0 of 0" not in entries[0].line


def test_menu_list_and_box_follow_the_card(panel):
    panel._search.value = "Mary"
    panel._found.value = names(panel)[3]
    shown_at(panel, names(panel)[3])
    assert panel._search.value == "Mary"
    panel._go.value = names(panel)[0]
    panel._found.value = names(panel)[2]
    panel._go.value = names(panel)[0]  # as before: the box had followed, so this is a change
    shown_at(panel, names(panel)[0])
    other = "mlp_in 3/59"
    panel._go.value = "3/59"
    shown_at(panel, other)
    assert panel._search.value == "" and panel._site.value == str(Site("mlp_in", 3))
    panel.selected = "mlp_in 1/226"
    shown_at(panel, "mlp_in 1/226")


def test_examples_are_run_once_and_clustered_again_without_a_run(panel, monkeypatch):
    sliders = [*panel._examples.values(), *panel._clusters.values()]
    assert {*panel._examples, *panel._clusters} >= {"rho", "eps", "min_samples", "theta_head"}
    panel._go.value = "mlp_in 1/226"
    assert panel.circuits is None and all(each.disabled and each.tooltip for each in sliders)
    panel.analyse()
    assert not any(each.disabled for each in sliders)
    analysis = panel.card.circuit_lens
    assert panel.circuits.feature == panel.selected
    assert analysis["n_examples"] == len(panel.circuits.examples) <= 20
    assert f"{analysis['n_noise']} of {analysis['n_examples']} in no cluster" in said(
        panel._clustered
    )

    monkeypatch.setattr(ports, "_trace", None)  # a run would fail
    for name, value in {"eps": 0.9, "rho": 0.4, "theta_head": 6.0, "min_samples": 2}.items():
        (panel._clusters | panel._examples)[name].value = value
        assert panel.card.circuit_lens["settings"][name] == pytest.approx(value)
    for name, value in {"rho": 0.5, "theta_head": 10.0, "theta_feature": 8.0}.items():
        (panel._clusters | panel._examples)[name].value = value
    assert panel.card.circuit_lens["n_empty"] == 20
    assert "No cluster: nothing stands out often enough in any of 20" in said(panel._clustered)

    panel._words["theta_token"].value += 2  # words in the clusters are those of the sliders
    assert panel.circuits.descriptions is panel.descriptions is not panel._described
    panel.selected = "mlp_in 1/91"
    assert panel.circuits is None and panel.card.circuit_lens is None
    assert panel._clustered.value == "" and all(each.disabled for each in sliders)


def clusters(found) -> str:
    return render("panels/templates/clusters.html", found=found)


def test_a_null_result_is_said_in_words():
    found = {"n_examples": 100, "n_noise": 44, "n_empty": 7, "settings": {"min_samples": 3}}
    assert "44 of 100 in no cluster, in 7 nothing stands out" in clusters(
        {**found, "clusters": [{}, {}]}
    )
    found["n_noise"], found["clusters"] = 100, []
    assert "100 of 100 activating examples in none; in 7 nothing stands out" in clusters(found)
    assert "nothing stands out often enough" in clusters({**found, "n_empty": 100})
    assert "fewer than the 3" in clusters({**found, "n_examples": 2, "n_noise": 2})


def test_sliders_begin_with_what_is_in_force(demo, demo_transcoders, texts, described):
    lens = CircuitLens(min_samples=20, eps=1.0, rho=0.9, theta_head=30.0)
    far = described.at(theta_token=20)
    other = explore_features(demo, demo_transcoders, texts[:5], descriptions=far, lens=lens)
    assert other._words["theta_token"].value == 20
    for name, slider in {**other._examples, **other._clusters}.items():
        assert slider.value == getattr(lens, name)
    other.lens = CircuitLens(min_samples=1)
    assert other._clusters["min_samples"].min == 1


def test_a_panel_without_descriptions_or_chance_still_shows_cards(demo, demo_transcoders, texts):
    lens = ct.WeightLens(n_permuted=0)
    first = lens.describe(demo, demo_transcoders, layers=[0], progress=False)
    other = explore_features(demo, demo_transcoders, texts[:20], descriptions=first)
    assert "preset 'code'" in said(other._status) and "chance" not in said(other._status)
    other._words["theta_token"].value = other._words["theta_token"].max
    other._site.value = str(Site("mlp_in", 3))
    assert "mlp_in 3 was not described. Listed are all, the most often active" in said(
        other._status
    )
    active = np.diff(other.acts.features[Site("mlp_in", 3)].tocsc().indptr)
    assert names(other)[0] == f"mlp_in 3/{active.argmax()}"
    shown_at(other, names(other)[0])

    high = first.at(theta_token=30, theta_feature=30)
    other = explore_features(demo, demo_transcoders, texts[:20], descriptions=high)
    assert said(other._status).startswith("0 of 384 features")
    shown_at(other, names(other)[0])
    other._words["theta_token"].value -= 1
    shown_at(other, names(other)[0])
    other.selected = ""
    other._clusters["eps"].value = 0.9
    assert other._card.value == "" and "names no feature" not in said(other._status)
    other._analyse.click()
    assert "No feature is chosen" in said(other._clustered)


def test_what_the_user_can_mend_is_said_in_the_panel(panel, demo_saes, texts, described):
    card = panel.card
    for typed, expected in {
        "mlp_in 9/3": "No dictionary was given for blocks.9.ln2.hook_normalized, only for mlp_in 0",
        "9/3": "0 transcoders were given at layer 9",
        "59": "'59' names no feature",
        "what?": "'what?' names no feature",
        "mlp_in 0/384": "features 0 to 383, got 384",
    }.items():
        panel._go.value = typed
        assert expected in said(panel._status)
        assert panel.card is card
    panel._go.value = f"mlp_in 0/{card.name.rpartition('/')[2]}"  # the one that is shown
    assert "have a description" in said(panel._status)
    for typed, expected in {
        "mary": "demo has no token 'mary'; did you mean 'Mary'?",
        "Mary Frodo": "demo does not know 'Frodo' in 'Mary Frodo'",
        "y" * 300: "yyy…'; look up another.",
    }.items():
        panel._search.value = typed
        assert expected in said(panel._status)
        assert not panel._found.options and len(said(panel._status)) < 140
    with pytest.raises(InputError, match="features 0 to 383, got 384"):
        panel.selected = "mlp_in 0/384"
    with pytest.raises(InputError, match="No dictionaries were given"):
        explore_features(panel.model, {}, ["x"])
    with pytest.raises(InputError, match="of other dictionaries .384 features at mlp_in 0"):
        explore_features(panel.model, demo_saes, texts[:2], descriptions=described)


def test_sinks_count_for_no_feature_of_the_list(panel):
    def shares(acts):
        return feature_search._densities(acts, Site("mlp_in", 3))

    assert shares(with_sinks(panel.acts)) == shares(without_first(panel.acts))
    loud = with_sinks(panel.acts)
    found = activated_by(panel.model, panel.dictionaries, loud, panel.model.token_id("Mary"))
    assert found.features and all(each.largest < 1000 for each in found.features)

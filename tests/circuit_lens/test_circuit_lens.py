"""CircuitLens as a whole on the bundled model, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import circuit_toolkit as ct
from circuit_toolkit.circuit_lens import CircuitLens
from circuit_toolkit.circuit_lens.activating_examples import strongest_examples
from circuit_toolkit.circuit_lens.clusters import cluster_sentence
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.features.descriptions.explainer import Explainer
from circuit_toolkit.models.ports import run_ports
from circuit_toolkit.sites import Site
from circuit_toolkit.weight_lens import WeightLens
from tests.circuit_lens.bundled import FEATURE, LENS
from tests.dictionaries.published import about, family_model, write
from tests.sinks import with_sinks, without_first
from tests.tiny import TEXTS


@pytest.fixture(scope="module")
def circuits(demo, demo_transcoders, texts, acts):
    return LENS.analyse(demo, demo_transcoders, texts, FEATURE, acts=acts)


def test_examples_are_the_strongest_of_their_prompts(circuits, acts, texts):
    site = Site("mlp_in", 2)
    assert len(circuits.examples) == 60 == len(circuits.labels)
    for row in circuits.examples.itertuples():
        values = acts.of_prompt(row.prompt, site, 6)
        assert row.activation == values.max() and row.position == values.argmax()
        assert row.token == acts.tokens[row.prompt][row.position]
    for words, values, row in zip(
        circuits.words, circuits.values, circuits.examples.itertuples(), strict=True
    ):
        assert words == acts.tokens[row.prompt][: row.position + 1 + LENS.n_outputs]
        assert values[row.position] == pytest.approx(row.activation, rel=1e-4)


def test_sums_hold(circuits):
    examples = circuits.examples
    np.testing.assert_allclose(examples["pre_activation"], examples["activation"], rtol=1e-4)
    assert examples["error"].max() < 1e-4 and examples["origins_error"].max() < 1e-4


def test_cached_activations_save_the_run_and_change_nothing(
    circuits, demo, demo_transcoders, texts, acts, monkeypatch, tmp_path
):
    fresh = LENS.analyse(demo, demo_transcoders, texts, (2, 6))
    assert fresh.sets == circuits.sets
    store = ct.ActivationStore.open(acts.save(tmp_path / "acts"))
    runs = []

    def counting(*args, **kwargs):
        runs.append(1)
        return run_ports(*args, **kwargs)

    monkeypatch.setattr("circuit_toolkit.models.tracing.run_ports", counting)
    lens = replace(LENS, batch_size=20)
    stored = lens.analyse(demo, demo_transcoders, texts, (Site("mlp_in", 2), 6), acts=store)
    assert len(runs) == 3  # one a batch of examples
    assert stored.sets == circuits.sets


def test_sets_are_what_exceeds_the_thresholds(circuits):
    elements = circuits.elements
    heads = elements["head"] >= 0
    for i in (0, 17, 59):
        mine = elements[elements["example"] == i]
        found = set(mine[(mine["head"] >= 0) & (mine["z"] > 5)]["element"])
        found |= set(mine[(mine["head"] < 0) & (mine["z"] > 2)]["element"])
        assert circuits.sets[i] <= found
        rare = found - circuits.sets[i]
        assert all(sum(e in s for s in circuits.sets) == 0 for e in rare)
    assert (elements["layer"][heads] <= 2).all() and (elements["layer"][~heads] < 2).all()
    assert (elements["offset"] <= 0).all()
    example = elements[heads].iloc[0]
    assert example["element"] == f"a{example['layer']}.h{example['head']} {example['offset']}"


def test_new_settings_take_no_run_and_equal_an_analysis(
    circuits, demo, demo_transcoders, texts, acts, monkeypatch
):
    new = {"eps": 0.6, "min_samples": 4, "rho": 0.1, "theta_head": 3.0, "theta_feature": 1.6}
    anew = replace(LENS, **new).analyse(demo, demo_transcoders, texts, FEATURE, acts=acts)
    monkeypatch.setattr("circuit_toolkit.models.tracing.run_ports", None)
    again = circuits.at(**new)
    assert again.sets == anew.sets and again.sets != circuits.sets
    np.testing.assert_array_equal(again.labels, anew.labels)
    np.testing.assert_array_equal(again.distances, anew.distances)
    assert again.clusters == anew.clusters
    with pytest.raises(InputError, match="mode cannot be changed without a run"):
        circuits.at(mode="frozen")
    with pytest.raises(InputError, match="theta_head must be a number, at least 1"):
        circuits.at(theta_head=0.5)


class Words:
    """Stands for the descriptions of upstream features."""

    def of(self, site, index):
        return {"words": [f"word {index}", "other"] if index % 2 else []}


def test_what_few_examples_share_is_not_told():
    rare = {"share": 0.1, "words": [], "token": "Mary"}
    head = {"head": "a3.h6", "often_reads": [], "often_offsets": []}
    card = {
        "tokens": [rare],
        "heads": [{**head, "share": 0.1}],
        "upstream": [{**rare, "feature": "blocks.1.ln2.hook_normalized/3"}],
        "outputs": [rare],
    }
    assert cluster_sentence(card) == "on words such as “Mary”; nothing that they share"
    often = {**card, "tokens": [{"token": " is", "share": 0.25}]}
    assert cluster_sentence(often) == "on “is”; nothing else that they share"
    heads = [{**head, "share": 0.25}]
    assert cluster_sentence({**often, "heads": heads}) == (
        "on “is”; a3.h6 reads various words at various distances"
    )


def test_clusters_are_told_in_words(demo, demo_transcoders, texts, acts):
    found = LENS.analyse(demo, demo_transcoders, texts, FEATURE, acts=acts, descriptions=Words())
    assert len(found.clusters) >= 2
    for each in found.clusters:
        mine = np.flatnonzero(found.labels == each["label"])
        assert each["size"] == len(mine) and each["share"] == len(mine) / 60
        token = each["tokens"][0]
        counts = found.table["token"].iloc[mine].value_counts()
        assert token["share"] == counts.iloc[0] / len(mine) == counts[token["token"]] / len(mine)
        such = "" if token["share"] >= 0.25 else "words such as "
        assert each["description"].startswith(f"on {such}“{token['token']}”")
        for head in each["heads"]:
            has = [any(e.startswith(head["head"] + " ") for e in found.sets[i]) for i in mine]
            assert head["share"] == np.mean(has)
        for feature in each["upstream"]:
            assert feature["share"] == np.mean([feature["feature"] in found.sets[i] for i in mine])
            odd = int(feature["feature"].rpartition("/")[2]) % 2
            assert (feature["words"] != []) == odd
        for token in each["outputs"]:
            assert any(token["token"] in found.words[i] for i in mine)
        for example in each["examples"]:
            assert example["values"][example["position"]] == pytest.approx(
                max(example["values"][: example["position"] + 1])
            )
            n = len(example["tokens"])
            whole = [text for text in acts.tokens if text[:n] == example["tokens"]]
            assert example["after"] == any(len(text) > n for text in whole) and whole
    for each in found.clusters:
        for head in each["heads"]:
            often = ", ".join(f"“{word.strip()}”" for word in head["often_reads"][:3])
            said = f"{head['head']} reads {often or 'various words'} "
            told = [h["head"] for h in each["heads"] if h["share"] >= 0.25][:3]
            assert (said in each["description"]) == (head["head"] in told)
    page = json.loads(json.dumps(found.to_dict()))
    assert page["feature"] == FEATURE and page["n_examples"] == 60 == len(page["examples"])
    assert page["settings"]["eps"] == 0.5 and page["clusters"] == found.clusters
    asked = []
    said = found.explained(lambda text: asked.append(text) or "it is so")
    assert said == dict.fromkeys(range(len(found.clusters)), "it is so")
    assert found.clusters[0]["description"] in asked[0] and "<<" in asked[0]
    assert "FeatureCircuits" in repr(found) and "60 examples" in repr(found)


def test_clusters_have_the_explainer_of_features(circuits):
    n, asked = len(circuits.clusters), []
    with pytest.raises(InputError, match=f"would take {n} calls .* {n - 1} are allowed"):
        circuits.explained(Explainer(asked.append, max_calls=n - 1))
    assert not asked

    def flaky(text):
        asked.append(text)
        return None if len(asked) == 2 else str(len(asked))

    explainer = Explainer(flaky, max_calls=n)
    with pytest.raises(InputError, match="gave NoneType for cluster 1"):
        circuits.explained(explainer)
    said = circuits.explained(explainer)  # goes on with the second
    assert list(said.values()) == ["1", *map(str, range(3, n + 2))] and len(asked) == n + 1


def test_tokens_that_follow_are_what_the_text_says(circuits):
    by_step = circuits.outputs
    assert set(by_step["step"]) <= set(range(1, 6))
    for row in by_step.itertuples():
        at = circuits.table["position"].iloc[row.example]
        assert row.token == circuits.words[row.example][at + row.step]
    # as many as there are
    left = np.array([len(words) for words in circuits.words]) - 1 - circuits.table["position"]
    assert len(by_step) == np.minimum(5, left).sum()


def test_no_outputs_run_no_further_than_the_feature(demo, demo_transcoders, texts, acts):
    lens = replace(LENS, n_outputs=0)
    circuits = lens.analyse(demo, demo_transcoders, texts, FEATURE, acts=acts)
    assert circuits.outputs.empty and all(not each["outputs"] for each in circuits.clusters)
    full = LENS.analyse(demo, demo_transcoders, texts, FEATURE, acts=acts)
    assert circuits.sets == full.sets


def test_a_feature_that_was_not_described_is_called_by_its_name(
    circuits, demo, demo_transcoders, texts, acts
):
    some = WeightLens("robust", n_permuted=0).describe(
        demo, demo_transcoders, layers=[0], progress=False
    )
    told = replace(circuits, descriptions=some).clusters
    plain = circuits.clusters
    upstream = [each for card in told for each in card["upstream"]]
    layers = {Site.parse(each["feature"].rpartition("/")[0]).layer for each in upstream}
    assert layers == {0, 1}
    for each in upstream:
        site, _, index = each["feature"].rpartition("/")
        described = Site.parse(site).layer == 0
        assert each["words"] == (some.of(site, int(index))["words"] if described else [])
    assert any(each["words"] for each in upstream)
    assert [card["size"] for card in told] == [card["size"] for card in plain]


@pytest.mark.parametrize("upstream", ["here", "anywhere"])
def test_frozen_scores_are_terms_of_the_sum(demo, demo_transcoders, texts, acts, upstream):
    lens = replace(LENS, mode="frozen", upstream=upstream)
    circuits = lens.analyse(demo, demo_transcoders, texts, FEATURE, acts=acts)
    assert circuits.examples["error"].max() < 1e-4
    heads = circuits.elements[circuits.elements["head"] >= 0]
    as_stored = replace(LENS, upstream=upstream).analyse(
        demo, demo_transcoders, texts, FEATURE, acts=acts
    )
    # This transcoder reads behind a norm without weight: the factor of an example is all there is
    # between the two, but for what the norm takes away, so the same heads stand out.
    both = heads.merge(as_stored.elements, on=["example", "element"])
    assert len(both) > 0.9 * len(heads)
    ratio = both["contribution_x"] / both["contribution_y"]
    assert ratio.std() > 0.01 and ratio.groupby(both["example"]).std().max() < 0.1 * ratio.mean()


def test_a_dictionary_that_is_no_linear_reading_is_refused(tmp_path):
    model, site = family_model("gpt2"), Site("resid_post", 1)
    write(
        tmp_path / "scaled",
        "standard",
        model.width,
        about(model, str(site)),
        normalize_activations="constant_norm_rescale",
    )
    with pytest.raises(InputError, match="own norm"):
        LENS.analyse(model, ct.load_dictionaries(model, tmp_path), ["the cat"], (site, 0))


def test_what_cannot_be_analysed_is_refused(demo, demo_transcoders, demo_saes, texts, acts):
    def analyse(feature, prompts=TEXTS, dictionaries=demo_transcoders, **options):
        return LENS.analyse(demo, dictionaries, prompts, feature, **options)

    dead = int(np.flatnonzero(~(acts.features[Site("mlp_in", 0)] > 0).sum(0).astype(bool))[0])
    with pytest.raises(InputError, match=f"/{dead} never fires on these {len(texts)} prompts"):
        analyse((0, dead), texts, acts=acts)
    with pytest.raises(InputError, match="features 0 to 383, got 384"):
        analyse((2, 384))
    with pytest.raises(InputError, match="0 transcoders were given at layer 9"):
        analyse((9, 0))
    with pytest.raises(InputError, match="No dictionary was given for blocks.3.hook_resid_post"):
        analyse("resid_post 3/4")
    with pytest.raises(InputError, match="is not a site"):
        analyse("somewhere/4")
    for wrong in ("blocks.3", "17", 17, ("mlp_in 2", "x"), None):
        with pytest.raises(InputError, match="names no feature|is not a site"):
            analyse(wrong)
    with pytest.raises(InputError, match="No prompts were given"):
        analyse((2, 6), [])
    with pytest.raises(InputError, match="not one text"):
        analyse((2, 6), "a text")
    with pytest.raises(MismatchError, match="and 4 were given"):
        analyse((2, 6), acts=acts)
    with pytest.raises(MismatchError, match="of other prompts"):
        analyse((2, 6), texts[1:] + texts[:1], acts=acts)
    with pytest.raises(MismatchError, match="nothing of blocks.3.hook_resid_post"):
        site = Site("resid_post", 3)
        analyse((site, 4), texts, {site: demo_saes[site]}, acts=acts)
    with pytest.raises(InputError, match="Activating examples are tokens"):
        analyse((2, 6), texts, acts=acts.pooled("last"))
    twice = {**demo_transcoders, Site("mlp_norm", 2): demo_transcoders[Site("mlp_in", 2)]}
    other = Site("mlp_norm", 2)
    twice[other] = replace(twice[other], site=other, name="another")
    with pytest.raises(InputError, match="both reconstruct"):
        analyse((3, 6), texts, twice)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("n_examples", 2.5),
        ("min_samples", 2.5),
        ("seed", -1),
        ("eps", 0),
        ("theta_head", float("nan")),
        ("theta_feature", float("nan")),
        ("theta_output", float("nan")),
        ("theta_output", "a"),
        ("n_examples", 0),
        ("min_samples", 0),
        ("n_outputs", -1),
        ("batch_size", 0),
        ("rho", 1.5),
        ("eps", 2),
        ("theta_feature", 0.5),
        ("mode", "raw"),
        ("upstream", "there"),
    ],
)
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(InputError, match=setting):
        CircuitLens(**{setting: value})


def test_only_the_first_tokens_are_looked_at(demo, demo_transcoders, texts, acts, monkeypatch):
    monkeypatch.setattr("circuit_toolkit.circuit_lens.activating_examples.CONTEXT", 9)
    circuits = LENS.analyse(demo, demo_transcoders, texts, FEATURE, acts=acts)
    assert circuits.examples["position"].max() <= 8
    assert max(map(len, circuits.words)) <= 9 + LENS.n_outputs


def test_objects_of_another_kind_are_refused(demo, demo_transcoders, texts, acts):
    with pytest.raises(InputError, match=r"pass it to CircuitLens\(\)\.analyse"):
        CircuitLens(demo, demo_transcoders)
    for model, dictionaries in ((demo_transcoders, demo), (demo, acts), (acts, demo_transcoders)):
        with pytest.raises(InputError, match=r"must be (a|what)"):
            LENS.analyse(model, dictionaries, texts, FEATURE)
    with pytest.raises(InputError, match="not one text"):
        LENS.analyse(demo, demo_transcoders, FEATURE, texts)
    with pytest.raises(InputError, match="acts must be an? Activations"):
        LENS.analyse(demo, demo_transcoders, texts, FEATURE, acts=demo_transcoders)
    named = {str(site): each for site, each in demo_transcoders.items()}
    found = LENS.analyse(demo, named, texts[:60], (np.int64(2), np.int64(6)), progress=False)
    assert found.feature == FEATURE
    assert CircuitLens(np.int64(5)).n_examples == 5


def test_a_sink_is_no_activating_example(demo, demo_transcoders):
    site = Site("mlp_in", 2)
    some = {site: demo_transcoders[site]}
    texts = ["the boys near the cabinet", "Anna went to the store", "Mary met John", "the dog"]
    acts = ct.capture(demo, some, texts, progress=False)
    bare = without_first(acts)
    feature = int(np.argmax(bare.features[site].sum(0)))
    found, expected = (
        strongest_examples(demo, texts, some[site], feature, each)
        for each in (with_sinks(acts), bare)
    )
    for ours, theirs in zip(vars(found).values(), vars(expected).values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)

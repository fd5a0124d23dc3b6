"""Surrogate scores on planted features, and on activations made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import circuit_toolkit as ct
from benchmarks.demo.tokenizer import build_tokenizer
from benchmarks.descriptions.peaks import text_peaks
from benchmarks.descriptions.scores import feature_scores, rated_texts, separation
from benchmarks.descriptions.steering import continued, steer, with_faithfulness
from benchmarks.descriptions.token_lists import Vocabulary, filled, neutral_templates
from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.demo.grammar import Grammar
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions import generate, intervened, put
from circuit_toolkit.models import load_model
from circuit_toolkit.sites import Site
from tests.tiny import WIDTH, random_sae, tiny_hf

FIRST, LAST = Site("resid_pre", 0), Site("resid_post", 2)
RIGHT, SHUFFLED = ["Mary", "store", "cabinet"], ["Paris", "oil", "chess"]
SEED = 3


@pytest.fixture(scope="module")
def planted():
    """A model without positions, and dictionaries with features for words planted in them.

    Feature 0 at the first site fires on RIGHT; at the last site it promotes "Mary", 1 nothing.
    """
    from circuit_toolkit.dictionaries import Dictionary

    module = tiny_hf()
    with torch.no_grad():
        module.transformer.wpe.weight.zero_()
    model = load_model(module, build_tokenizer())
    rows = module.transformer.wte.weight.detach()
    ids = [model.token_id(word) for word in RIGHT]
    with torch.no_grad():
        rows[:, 0] = 0
        rows[ids, 0] = 1  # a direction of their own
    found = {}
    for site in (FIRST, LAST):
        sae = random_sae(model.name, site, WIDTH)
        with torch.no_grad():
            sae.W_enc.zero_(), sae.b_enc.zero_(), sae.b_dec.zero_(), sae.W_dec.zero_()
            sae.W_enc[0, 0] = 1.0
            sae.W_dec[0] = rows[ids[0]]
        found[site] = Dictionary(sae, site, site, str(site))
    return model, found


@pytest.fixture(scope="module")
def texts():
    return [each.text for each in Grammar(SEED).sentences(600)]


def test_a_right_description_scores_near_one_and_a_shuffled_one_near_none(planted, texts):
    model, dictionaries = planted
    acts = ct.capture(model, dictionaries, texts, progress=False)
    templates = neutral_templates(
        model, dictionaries, [t for t in texts if not set(RIGHT) & set(t.split())], n=20
    )
    both = [
        feature_scores(model, dictionaries, {(FIRST, 0): each}, acts, templates, progress=False)[0]
        for each in (RIGHT, SHUFFLED)
    ]
    right, shuffled = both
    fires = (text_peaks(acts, [FIRST]).of(FIRST, 0) > 0).mean()
    assert 0.01 < fires < 0.12
    # natural texts hold the words too, and are then as loud as the synthetic ones
    assert right.clarity == pytest.approx(1 - fires) and right.n_synthetic == 60
    assert right.responsiveness == 1 and right.purity == 1
    # the feature is silent where a wrong list promises it, and louder by chance in some other text
    assert shuffled.clarity == shuffled.responsiveness == 0
    assert shuffled.clarity_signed == pytest.approx(-fires)
    assert -0.25 < shuffled.responsiveness_signed < 0
    assert shuffled.purity < shuffled.base_rate + 0.02
    assert all(each.n_natural == 600 and each.n_shown >= 5 for each in both)
    assert right.to_dict()["kind"] == "surrogate" and right.to_dict()["faithfulness"] is None


def test_perfect_separation_is_one_and_identical_distributions_are_zero():
    assert separation(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert separation(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == -1
    same = np.random.default_rng(0).random(50)
    assert separation(same, same) == pytest.approx(0)
    assert np.isnan(separation(same, same[:0]))


def made(lines: list[list[tuple[str, float]]]) -> Activations:
    prompt = np.repeat(np.arange(len(lines)), [len(line) for line in lines])
    position = np.concatenate([np.arange(len(line)) for line in lines])
    values = np.array([[value] for line in lines for _, value in line], np.float32)
    tokens = [[word for word, _ in line] for line in lines]
    return Activations(
        {FIRST: sp.csr_array(values)}, prompt, position, tokens, np.arange(len(lines))
    )


def test_texts_are_rated_by_what_stands_at_the_activating_position():
    acts = made(
        [
            [("a", 1.0), ("Mary", 3.0), ("b", 0.0)],  # a listed token, there
            [("a", 3.0), ("Mary", 1.0)],  # elsewhere
            [("a", 2.0), ("b", 0.0)],  # absent
            [("a", 0.0), ("Mary", 0.0)],  # silent where it should fire
            [("b", 0.0), ("a", 0.0)],  # silent where it should be
            [("a", -5.0), ("Mary", 2.0)],  # the size counts, the sign is kept
        ]
    )
    peaks = text_peaks(acts, [FIRST])
    assert peaks.ratings(FIRST, 0, ["Mary", "unknown"]).tolist() == [2, 1, 0, 2, 0, 1]
    assert peaks.of(FIRST, 0).tolist() == [3, 3, 2, 0, 0, -5]
    assert peaks.ratings(FIRST, 0, ["a"]).tolist() == [1, 2, 2, 2, 2, 2]


def test_a_store_gives_what_memory_gives(planted, texts, tmp_path):
    model, dictionaries = planted
    some = {FIRST: dictionaries[FIRST]}
    memory = ct.capture(model, some, texts[:40], progress=False)
    store = ct.capture(model, some, texts[:40], batch_size=8, store=tmp_path / "s", progress=False)
    a, b = (text_peaks(acts, [FIRST]) for acts in (memory, store))
    assert (a.of(FIRST, 0) == b.of(FIRST, 0)).all() and a.words == b.words
    assert (a.ratings(FIRST, 0, RIGHT) == b.ratings(FIRST, 0, RIGHT)).all()
    assert (a.holds != b.holds).nnz == 0


def test_chunks_of_synthetic_texts_change_nothing(planted, texts, monkeypatch):
    model, dictionaries = planted
    acts = ct.capture(model, dictionaries, texts[:60], progress=False)
    templates = neutral_templates(model, dictionaries, texts, n=7)
    both = {(FIRST, 0): RIGHT, (LAST, 0): ["Mary", "oil"], (FIRST, 1): ["oil"]}
    args = (model, dictionaries, both, acts, templates)
    whole = feature_scores(*args, progress=False)
    monkeypatch.setattr("benchmarks.descriptions.scores.CHUNK", 5)
    parts = feature_scores(*args, progress=False)
    for a, b in zip(whole, parts, strict=True):
        assert a.feature == b.feature
        # runs of other batches differ by rounding
        assert a.clarity_signed == pytest.approx(b.clarity_signed, abs=1e-6)
    assert whole[2].clarity == 0  # a feature that never fires


def test_rated_texts_are_spread_over_the_bands():
    values = np.arange(1000.0)
    rated = rated_texts(values, 100, np.random.default_rng(0))
    assert len(set(rated.tolist())) == 100
    assert set(range(990, 1000)) <= set(rated.tolist())  # the top tenth of what is rated
    counts = np.histogram(rated[rated < 990], [0, 495, 742, 940, 990])[0]
    assert sorted(counts) == [22, 22, 23, 23]
    assert sorted(rated_texts(values[:5], 100, np.random.default_rng(0))) == [0, 1, 2, 3, 4]


def test_a_planted_direction_is_faithful_and_a_feature_without_one_is_not(planted):
    model, dictionaries = planted
    prompts = ["the boys near the cabinet", "Anna", "the war lasted from the year"]
    found = steer(model, dictionaries, (LAST, 0), ["Mary"], prompts, 5.0, max_new_tokens=3)
    assert found.rates[0] == 0 and found.rates[50] == 1 and found.faithfulness == 1
    nothing = steer(model, dictionaries, (LAST, 1), ["Mary"], prompts, 5.0, max_new_tokens=3)
    assert len(set(nothing.rates.values())) == 1 and nothing.faithfulness == 0
    every = range(model.hf.config.vocab_size)
    always = steer(model, dictionaries, (LAST, 0), every, prompts, 5.0, max_new_tokens=3)
    assert always.rates[0] == 1 and always.faithfulness == 0  # no factor beats it


@pytest.mark.parametrize("kind", ["sae", "transcoder"])
def test_continuations_are_those_of_generate(demo, demo_saes, demo_transcoders, kind):
    dictionaries, site = {
        "sae": (demo_saes, Site("resid_post", 3)),
        "transcoder": (demo_transcoders, Site("mlp_in", 3)),
    }[kind]
    prompts = ["when Mary and John went to the store, John gave a drink to", "the boys"]
    changes = [put(site, 40.0, features=[9])]
    with intervened(demo, changes, dictionaries=dictionaries) as changed:
        said = continued(changed, demo.tokenize(prompts), 6)
    plain = continued(demo, demo.tokenize(prompts), 6)
    for row, before, prompt in zip(said, plain, prompts, strict=True):
        one = generate(demo, prompt, changes, dictionaries=dictionaries, max_new_tokens=6)
        assert demo.tokenizer.decode(row[row >= 0]) == one.after
        assert demo.tokenizer.decode(before[before >= 0]) == one.before
    assert not torch.equal(said, plain)  # the change does something


def test_a_listed_token_counts_wherever_in_a_continuation_it_stands(demo, demo_transcoders):
    prompts = ["when Mary and John went to the", "the boys near the cabinet", "Anna"]
    off = [put("mlp_in 3", 0.0, features=[9])]
    with intervened(demo, off, dictionaries=demo_transcoders) as changed:
        said = continued(changed, demo.tokenize(prompts), 4)
    last = int(said[0, 3])
    assert last >= 0 and last not in said[:, :1]
    found = steer(demo, demo_transcoders, "mlp_in 3/9", [last], prompts, 1.0, max_new_tokens=4)
    assert found.rates[0] == pytest.approx(float((said == last).any(1).float().mean()))


def test_sampling_is_decided_by_the_seed(demo):
    start = demo.tokenize(["the boys near", "Anna went to"])
    a, b, c = (continued(demo, start, 8, temperature=2.0, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_faithfulness_is_run_only_where_it_is_worth_it(planted, texts):
    model, dictionaries = planted
    acts = ct.capture(model, dictionaries, texts[:100], progress=False)
    templates = neutral_templates(model, dictionaries, texts, n=5)
    poor = feature_scores(
        model, dictionaries, {(LAST, 1): ["Mary"]}, acts, templates, progress=False
    )[0]
    options = (["Mary"], ["the boys"], 5.0)
    assert with_faithfulness(model, dictionaries, poor, *options).faithfulness is None
    forced = with_faithfulness(model, dictionaries, poor, *options, always=True, max_new_tokens=2)
    assert forced.faithfulness == 0


def test_templates_and_lists(planted, texts):
    model, dictionaries = planted
    templates = neutral_templates(model, dictionaries, texts, n=30)
    assert len(templates) == 30 == len({tuple(each) for each in templates})
    for each in templates:
        assert each.count(None) == 1 and each[0] == model.bos_id
        assert None not in (each[1], each[-1])
    vocabulary = Vocabulary.of(model)
    mary = model.token_id("Mary")
    assert vocabulary.ids([" mary ", mary]) == [mary]
    assert filled(model, [1, None, 7], mary) == [1, mary, 7]
    text = filled(model, "then {} went", mary)
    assert text == model.tokenize(["then Mary went"]).ids[0].tolist()


def test_what_cannot_be_is_refused(planted, texts):
    model, dictionaries = planted
    acts = ct.capture(model, dictionaries, texts[:5], progress=False)
    templates = neutral_templates(model, dictionaries, texts, n=3)

    def score(described, with_acts=acts, with_templates=templates):
        feature_scores(model, dictionaries, described, with_acts, with_templates, progress=False)

    with pytest.raises(InputError, match="no token 'xyzzy'"):
        score({(FIRST, 0): ["xyzzy"]})
    with pytest.raises(InputError, match="at least one token"):
        score({(FIRST, 0): []})
    with pytest.raises(InputError, match="no feature 80"):
        score({(FIRST, 80): ["Mary"]})
    with pytest.raises(InputError, match="No templates"):
        score({(FIRST, 0): ["Mary"]}, with_templates=[])
    with pytest.raises(InputError, match="needs a place"):
        score({(FIRST, 0): ["Mary"]}, with_templates=["the boys"])
    with pytest.raises(InputError, match="needs a None"):
        score({(FIRST, 0): ["Mary"]}, with_templates=[[1, 2]])
    with pytest.raises(InputError, match="not every token"):
        score({(FIRST, 0): ["Mary"]}, with_acts=acts.pooled("last"))
    with pytest.raises(InputError, match="factor 0"):
        steer(model, dictionaries, (FIRST, 0), ["Mary"], ["Anna"], 1.0, factors=[1])
    with pytest.raises(InputError, match="above 0"):
        steer(model, dictionaries, (FIRST, 0), ["Mary"], ["Anna"], 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"temperature": -1.0}, "temperature must be 0 or more, and finite, got -1"),
        ({"temperature": float("nan")}, "got nan"),
    ],
)
def test_numbers_that_no_text_can_be_written_with_are_refused(planted, options, message):
    with pytest.raises(InputError, match=message):
        steer(*planted, (FIRST, 0), ["Mary"], ["Anna"], 1.0, **options)

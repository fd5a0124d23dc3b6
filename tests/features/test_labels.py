"""Labels: the words that carry a feature, and those that it promotes by the logit lens."""

from collections import Counter

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from circuit_toolkit import tasks
from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.errors import InputError
from circuit_toolkit.features import (
    described_labels,
    feature_labels,
    named_features,
    promoted_words,
)
from circuit_toolkit.features.descriptions.words import spelled
from circuit_toolkit.features.labels import context_words
from circuit_toolkit.features.word_shares import LEAST, activating_words, label_of, sharing
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import ioi
from tests.sinks import with_sinks, without_first
from tests.tiny import FEATURES, LAYERS, tiny_hf

SITE = Site("resid_post", 0)


@pytest.fixture(scope="module")
def acts(tiny, tiny_saes):
    return capture(tiny, tiny_saes, ioi(tiny, n=20), progress=False)


def hand_made(values, words):
    """Activations of one prompt, a token for each word."""
    return Activations(
        features={SITE: sp.csr_array(np.asarray(values, np.float32))},
        prompt=np.zeros(len(words), int),
        position=np.arange(len(words)),
        tokens=[list(words)],
        groups=np.zeros(1, int),
    )


def test_features_of_one_name_are_told_apart_by_what_is_special_to_each():
    """By hand: of to and with all have about three quarters and a fifth."""
    words = ["to", "with", "some", "while", "on"]
    values = np.array([[7, 7, 7, 0], [2, 2, 2, 0], [0.4, 0, 0.09, 0], [0, 0.4, 0, 0], [0, 0, 0, 3]])
    assert feature_labels(hand_made(values, words))[SITE] == [
        "to, some",  # .04 of its activation, where the others have .005
        "to, while",
        "to, with",  # nothing is special: .0098 is under a hundredth
        "on",
    ]
    assert feature_labels(hand_made(values, words), n_words=1)[SITE] == ["to", "to", "to", "on"]


def test_features_that_are_active_on_everything_have_names_too():
    words = [f"w{i:03}" for i in range(200)]  # each word has a 200th of the activation
    values = np.ones((200, 3))
    values[:, 2] += np.arange(200) / 1e3
    names = next(iter(feature_labels(hand_made(values, words)).values()))
    assert len(names) == 3 and all(name.endswith("…") for name in names)


def test_a_word_that_the_others_have_too_tells_nothing_apart():
    words = ["to", "with", "some"]
    less_than_twice = [[7, 7], [2, 2], [0.4, 0.3]]
    assert feature_labels(hand_made(less_than_twice, words))[SITE] == ["to, with"] * 2


def test_fewer_features_of_the_bundled_model_share_a_name(demo, demo_saes):
    """Measured: of 4,552 names 1,208 shared by heaviest words, 771 as told apart, 362 in context.

    The margins leave room for another rounding.
    """
    acts = capture(demo, demo_saes, ioi(demo, n=64), progress=False)
    heaviest = {site: [label_of(each) for each in words] for site, words in
                activating_words(acts).items()}  # fmt: skip
    told, named = feature_labels(acts), named_features(demo, demo_saes, acts)

    def shared(names):
        return sum(len(rows) for each in names.values() for rows in sharing(each))

    assert shared(told) < 0.7 * shared(heaviest)
    assert shared(named) < 0.4 * shared(heaviest)
    for site, names in heaviest.items():
        alone = {i for i in range(len(names))} - {i for rows in sharing(names) for i in rows}
        assert all(told[site][i] == names[i] for i in alone), "a name of its own stays"


def test_labels_by_hand():
    values = np.zeros((6, 4), np.float32)
    values[:, 0] = [5, 1, 3, 0, 0.1, 0]  # a: 5.1, b: 1, c: 3
    values[:, 1] = [0, 2, 0, 2, 0, 3]  # b and d: 2, e: 3
    values[:, 2] = 1
    hand = Activations(
        features={SITE: sp.csr_array(values)},
        prompt=np.array([0, 0, 0, 1, 1, 1]),
        position=np.array([1, 2, 3, 1, 2, 3]),
        tokens=[["<bos>", "a", "b", "c"], ["<bos>", "d", "a", "e"]],
        groups=np.arange(2),
    )
    assert feature_labels(hand)[SITE] == ["a, c, b", "e, b, d", "a, b, c", ""]
    # a: 5.1 of 9.1; e: 3 of 7 and a: 2 of 6 are under half
    assert feature_labels(hand, n_words=1)[SITE] == ["a", "e, …", "a, …", ""]
    found = activating_words(hand, n_words=2)[SITE]
    assert found[1] == [("e", pytest.approx(3 / 7)), ("b", pytest.approx(2 / 7))]
    assert found[3] == []
    with pytest.raises(InputError, match="need the tokens"):
        feature_labels(hand.pooled("mean"))


def test_a_word_with_under_a_twentieth_is_left_out():
    n = 30
    even, uneven = np.ones(n), np.ones(n)
    uneven[7] = 10
    hand = Activations(
        features={SITE: sp.csr_array(np.stack([even, uneven], 1).astype(np.float32))},
        prompt=np.zeros(n, int),
        position=np.arange(1, n + 1),
        tokens=[["<bos>", *(f"w{i}" for i in range(n))]],
        groups=np.zeros(1, int),
    )
    assert feature_labels(hand)[SITE] == ["w0, w1, w10, …", "w7, …"]  # 10 of 39


def test_labels_are_the_words_of_highest_mass(acts):
    labels, activating = feature_labels(acts), activating_words(acts)
    words = [acts.tokens[p][t] for p, t in zip(acts.prompt, acts.position, strict=True)]
    for site in acts.sites:
        assert len(labels[site]) == FEATURES
        for feature in range(0, FEATURES, 7):
            mass = Counter()
            column = acts.features[site][:, [feature]].toarray().ravel()
            for word, value in zip(words, column, strict=True):
                mass[word] += float(value)
            total = sum(mass.values())
            named = [word for word, share in activating[site][feature] if share >= LEAST]
            shares = [mass[word] for word in named]
            assert shares == sorted(shares, reverse=True) and len(named) <= 3
            assert len(named) > 0 or not total  # no word of this vocabulary is so rare
            more = ["…"] if 0 < sum(shares) < total / 2 else []
            assert labels[site][feature] == ", ".join([*map(spelled, named), *more])
            rest = [value for word, value in mass.items() if word not in named]
            if named:
                assert min(shares) >= total / 20 * (1 - 1e-5)
                assert max(rest) <= min(shares) * (1 + 1e-5) or len(named) < 3
            if len(named) < 3:
                assert max(rest) <= total / 20 * (1 + 1e-5)


@pytest.mark.parametrize("site", [SITE, Site("resid_post", LAYERS - 1)], ids=str)
def test_promoted_words_are_those_of_a_logit_lens(tiny, tiny_saes, site):
    module, features = tiny_hf(), np.array([0, 3, 41])
    ours = promoted_words(tiny, tiny_saes[site], features, n_words=5)
    for feature, words in zip(features, ours, strict=True):
        direction = tiny_saes[site].sae.W_dec[feature].double()
        norm = module.transformer.ln_f
        # what a small step along the direction adds to centred logits, around no residual
        step = (direction - direction.mean()) * norm.weight.double()
        logits = module.lm_head.weight.double() @ step
        best = logits.argsort(descending=True)[:5].tolist()
        assert words == [tiny.tokenizer.decode([token]) for token in best]


def test_promoted_words_follow_the_whole_norm(tiny, tiny_saes):
    """A large multiple of the direction alone in the residual stream gives the same words."""
    site = Site("resid_post", LAYERS - 1)
    module = tiny_hf()
    rows = tiny_saes[site].sae.W_dec[:10]
    with torch.no_grad():
        module.transformer.ln_f.bias.zero_()
        best = module.lm_head(module.transformer.ln_f(1e4 * rows)).topk(3).indices.tolist()
    ours = promoted_words(tiny, tiny_saes[site], np.arange(10))
    assert ours == [[tiny.tokenizer.decode([token]) for token in row] for row in best]


def test_padding_is_never_promoted_and_the_end_of_a_text_is(demo, demo_saes):
    site, end = Site("resid_post", 3), demo.tokenizer.eos_token
    every = promoted_words(demo, demo_saes[site], np.arange(768), n_words=3)
    found = {word for words in every for word in words} & {*demo.tokenizer.all_special_tokens}
    assert found == {end} and {len(words) for words in every} == {3}


def test_a_context_word_that_decides_is_found():
    rng = np.random.default_rng(0)
    names, n = ["Ann", "Bob", "Cid"], 60
    who = rng.integers(3, size=n)
    values = np.stack([(who == 1) * 2.0, rng.random(n), np.zeros(n)], 1).astype(np.float32)
    hand = Activations(
        features={SITE: sp.csr_array(values)},
        prompt=np.arange(n),
        position=np.full(n, 2),
        tokens=[["<bos>", names[w], "to"] for w in who],
        groups=np.arange(n),
        settings={"positions": "last"},
    )
    words = context_words(hand, SITE, min_correlation=0.9)
    assert words == [["Bob"], [], []]
    assert context_words(hand, SITE)[2] == [], "a silent feature has no context"


def test_context_needs_one_row_a_prompt(acts):
    with pytest.raises(InputError, match="one row a prompt"):
        context_words(acts, SITE)


def test_names_put_context_first_and_promoted_words_last(tiny, tiny_saes, acts):
    plain, named = feature_labels(acts), named_features(tiny, tiny_saes, acts, promoted_from=0.0)
    activating = activating_words(acts)
    last = Site("resid_post", LAYERS - 1)
    context = context_words(acts.pooled("last"), last)
    promoted = promoted_words(tiny, tiny_saes[last], np.arange(FEATURES), min_z=4.0)
    live = np.flatnonzero(acts.means()[last])
    assert len(live) > 20
    for i in live:
        fires = [(word, share) for word, share in activating[last][i] if share >= LEAST]
        others = [spelled(word) for word in context[i] if word not in dict(fires)]
        two = [spelled(word) for word, _ in fires[:2]]
        two += ["…"] * (sum(share for _, share in fires[:2]) < 0.5)
        start = f"{', '.join(others)} … {', '.join(two)}" if others else plain[last][i]
        end = f" ⇒ {', '.join(map(spelled, promoted[i]))}" if promoted[i] else ""
        assert named[last][i] == f"{start}{end}".lstrip()
    assert all(named[last][i] == "" for i in set(range(FEATURES)) - set(live.tolist()))
    assert not any("⇒" in name for name in named[Site("resid_pre", 0)])


def test_only_words_that_stand_out_are_promoted(tiny, tiny_saes):
    site, some = Site("resid_post", LAYERS - 1), np.arange(5)
    every = promoted_words(tiny, tiny_saes[site], some, n_words=3)
    assert promoted_words(tiny, tiny_saes[site], some, n_words=3, min_z=100.0) == [[]] * 5
    for few, all_ in zip(
        promoted_words(tiny, tiny_saes[site], some, min_z=2.5), every, strict=True
    ):
        assert few == all_[: len(few)]


def test_names_that_are_not_by_weights_stand_in_brackets():
    here, there = Site("mlp_in", 0), Site("mlp_in", 1)

    class FeatureDescriptions:
        def labels(self):
            return {here: ["Mary, Anna", "", ""]}

    names = {here: ["to", "with", ""], there: ["the"]}
    found = described_labels(FeatureDescriptions(), names)
    assert found == {here: ["Mary, Anna", "(with)", ""], there: ["(the)"]}


@pytest.mark.parametrize("promoted_from", [0.0, 0.4, 0.5, 1.0])
def test_promoted_words_are_told_from_their_depth_on_alone(
    demo, demo_saes, promoted_from, monkeypatch
):
    """Every site would promote something here, so the depth alone decides which all are told."""
    monkeypatch.setattr(
        "circuit_toolkit.features.labels.promoted_words",
        lambda model, dictionary, live, min_z: [["word"]] * len(live),
    )
    texts = ["the boys near the cabinet", "Anna went to the store", "Mary met John"]
    acts = capture(demo, demo_saes, texts, progress=False)
    named = named_features(demo, demo_saes, acts, promoted_from=promoted_from)
    told = {site for site, each in named.items() if all("⇒ word" in n for n in each if n)}
    assert told == {
        site
        for site in demo_saes
        if site.kind == "resid_post" and (site.layer + 1) / demo.n_layers > promoted_from
    }
    assert len(told) == {0.0: 6, 0.4: 4, 0.5: 3, 1.0: 0}[promoted_from]


@pytest.mark.parametrize(("n_prompts", "found"), [(4, []), (5, ["Bob"])])
def test_a_context_word_is_of_five_prompts_at_least(n_prompts, found):
    who = np.arange(60) < n_prompts
    hand = Activations(
        features={SITE: sp.csr_array(who[:, None].astype(np.float32))},
        prompt=np.arange(60),
        position=np.full(60, 2),
        tokens=[["<bos>", "Bob" if w else f"name{i}", "to"] for i, w in enumerate(who)],
        groups=np.arange(60),
        settings={"positions": "last"},
    )
    assert context_words(hand, SITE) == [found]


def test_objects_of_another_kind_are_refused(tiny, tiny_saes, acts):
    for wrong in (tiny, tiny_saes, ["a text"], None):
        with pytest.raises(InputError, match="acts must be"):
            feature_labels(wrong)
    with pytest.raises(InputError, match="n_words must be"):
        feature_labels(acts, 1.5)
    with pytest.raises(InputError, match="model must be a Model"):
        named_features(tiny_saes, tiny, acts)
    with pytest.raises(InputError, match="descriptions must be a FeatureDescriptions"):
        described_labels(acts, feature_labels(acts))
    by_name = {str(site): each for site, each in tiny_saes.items()}
    assert named_features(tiny, by_name, acts) == named_features(tiny, tiny_saes, acts)


def test_sinks_name_nothing(acts):
    loud, bare = with_sinks(acts), without_first(acts)
    assert feature_labels(loud) == feature_labels(bare) != feature_labels(acts)
    first = {words[1] for words in acts.tokens}  # behind <bos>
    rest = {word for words in acts.tokens for word in words[2:]}
    named = {
        word
        for names in feature_labels(loud).values()
        for name in names
        for word in name.split(", ")
    }
    assert first - rest and not named & (first - rest)


def test_no_token_of_the_bundled_model_is_outlying(demo, demo_saes, demo_transcoders):
    """Its largest sum of activations is 9 times the median, so its names are what they were."""
    for task in (tasks.ioi, tasks.docstring, tasks.agreement):
        for dictionaries in (demo_saes, demo_transcoders):
            found = capture(demo, dictionaries, task(demo, n=20), progress=False)
            assert all(found.inlying(site).all() for site in found.sites)


def test_a_word_is_one_with_and_without_its_space():
    values = np.array([[4.0, 0], [3, 1], [2, 0], [0, 2]], np.float32)
    hand = Activations(
        features={SITE: sp.csr_array(values)},
        prompt=np.zeros(4, int),
        position=np.arange(4),
        tokens=[[" to", "On", " On", "\n"]],
        groups=np.zeros(1, int),
    )
    assert feature_labels(hand)[SITE] == ["On, to", "“↵”, On"]

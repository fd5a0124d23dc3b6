"""Domain generalisation: rankings against oracles, the protocol on made-up and bundled texts."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import circuit_toolkit as ct
from circuit_toolkit.demo.grammar import LEXICON
from circuit_toolkit.errors import InputError
from circuit_toolkit.generalisation.groups import TiedLabels, groups_of
from circuit_toolkit.generalisation.probes import (
    activation_rows,
    concept_directions,
    concept_rows,
    feature_rows,
    fit_probe,
)
from circuit_toolkit.generalisation.scores import intervals
from circuit_toolkit.generalisation.spurious import (
    Ranking,
    features_with,
    rank_by_gradients,
    rank_by_lasso,
)
from circuit_toolkit.generalisation.study import generalise
from circuit_toolkit.interventions import intervened, zero
from circuit_toolkit.models import run, token_mask
from circuit_toolkit.regression import logistic_path
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task
from circuit_toolkit.views import generalisation_figure

EMBED, MIDDLE = Site("resid_pre", 0), Site("resid_post", 0)
TIED = [
    {"profession": "professor", "gender": "male"},
    {"profession": "nurse", "gender": "female"},
]
FOUR = [{"profession": p, "gender": g} for p in ("professor", "nurse") for g in ("male", "female")]


def labelled(rows):
    texts, professions, genders = zip(*rows, strict=True)
    labels = {"profession": professions, "gender": genders}
    return Task("bios", texts, metric=None, labels=labels)


@pytest.fixture(scope="module")
def small(tiny):
    """Enough texts of the grammar for a tiny random model: tied, balanced, to test on."""
    texts = ct.tasks.bios(tiny, n=2000, strength=0.5, title=False, whole=True)
    other = ct.tasks.bios(tiny, n=2000, seed=1, strength=0.5, title=False, whole=True)
    return (
        groups_of(texts, TIED, 40),
        groups_of(texts, FOUR, 20),
        groups_of(other, FOUR, 20, unlike=texts),
    )


def test_groups_are_equal_shuffled_and_unlike_other_texts():
    rows = [(f"text {i}", "ab"[i % 2], "xy"[i // 2 % 2]) for i in range(43)]
    task = labelled(rows)
    groups = [{"profession": "a", "gender": "x"}, {"profession": "b", "gender": "y"}]
    made = groups_of(task, groups, 5)
    pairs = list(zip(made.labels["profession"], made.labels["gender"], strict=True))
    assert sorted(pairs) == [("a", "x")] * 5 + [("b", "y")] * 5 != pairs
    assert set(zip(made.clean, *made.labels.values(), strict=True)) <= set(rows)
    assert groups_of(task, groups, 5).clean == made.clean
    assert groups_of(task, groups, 5, seed=1).clean != made.clean
    rest = groups_of(task, groups, unlike=made)
    assert not set(rest.clean) & set(made.clean) and len(rest) == 2 * min(11 - 5, 10 - 5)
    with pytest.raises(InputError, match="12 texts of each group .* smallest of 2 has 10"):
        groups_of(task, groups, 12)
    with pytest.raises(InputError, match="no label 'age', only profession, gender"):
        groups_of(task, [{"age": "old"}])


def test_labels_that_are_not_tied_are_refused():
    tied = [("a", "nurse", "female"), ("b", "professor", "male")]
    labels = TiedLabels.of(labelled(tied), "profession", "gender")
    assert labels.classes == ("nurse", "professor") and labels.partners == ("female", "male")
    four = labelled([*tied, ("c", "nurse", "male"), ("d", "professor", "female")])
    assert labels.target(four).tolist() == [False, True, False, True]
    assert labels.spurious(four).tolist() == [False, True, True, False]
    labels.check_all_four(four)
    for rows in ([*tied, ("c", "nurse", "male")], tied[:1], [*tied, ("c", "judge", "male")]):
        with pytest.raises(InputError, match="two classes that go together"):
            TiedLabels.of(labelled(rows), "profession", "gender")
    with pytest.raises(InputError, match="all four groups .* found 2"):
        labels.check_all_four(labelled(tied))
    with pytest.raises(InputError, match="'profession' must be one of .* got 'judge'"):
        labels.target(labelled([("a", "judge", "male")]))


def test_the_classifier_is_scikit_learns_and_does_not_mind_units():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5)) * [1, 2, 3, 1, 1] + 4
    y = X @ [1, -1, 0.5, 0, 0] > 3
    probe = fit_probe(X, y)
    assert (probe.predict(X) == y).mean() > 0.95
    scaled = fit_probe(1000 * X - 7, y)  # one scale for all columns: the same classifier
    np.testing.assert_allclose(scaled.coef_ * 1000, probe.coef_, rtol=1e-3, atol=1e-4)
    assert (scaled.predict(1000 * X - 7) == probe.predict(X)).all()


def test_rows_are_means_over_tokens_and_lack_what_was_removed(tiny, tiny_saes, small):
    texts = small[0].select(range(6))
    pair = {site: tiny_saes[site] for site in (EMBED, MIDDLE)}
    plain = feature_rows(tiny, pair, texts, MIDDLE)
    for row, text in zip(plain, texts.clean, strict=True):
        batch = tiny.tokenize([text])
        x = run(tiny, batch, [MIDDLE])[MIDDLE][0, token_mask(tiny, batch)[0]]
        np.testing.assert_allclose(row, pair[MIDDLE].encode(x).mean(0), atol=1e-5)
    live = np.flatnonzero(plain.any(0))[:3]
    own = feature_rows(tiny, pair, texts, MIDDLE, {MIDDLE: live})
    np.testing.assert_array_equal(np.delete(own, live, 1), np.delete(plain, live, 1))
    assert not own[:, live].any()
    before = np.flatnonzero(feature_rows(tiny, pair, texts, EMBED).any(0))[:5]
    early = feature_rows(tiny, pair, texts, MIDDLE, {EMBED: before})
    with intervened(tiny, [zero(EMBED, features=before)], dictionaries=pair) as changed:
        np.testing.assert_allclose(early, feature_rows(changed, pair, texts, MIDDLE), atol=1e-6)
    assert abs(early - plain).max() > 1e-3


def test_concepts_are_cosines_with_what_is_special_about_a_word(tiny, tiny_saes, small):
    rows = activation_rows(tiny, tiny_saes[MIDDLE], small[0].select(range(4)))
    axes = concept_directions(tiny, tiny_saes[MIDDLE], ["clinic", "academy", "physics"])
    np.testing.assert_allclose(np.linalg.norm(axes, axis=1), 1, rtol=1e-5)
    found = concept_rows(rows, axes)
    for row, cosines in zip(rows, found, strict=True):
        expected = torch.cosine_similarity(torch.tensor(row)[None], torch.tensor(axes))
        np.testing.assert_allclose(cosines, expected, atol=1e-5)


def test_the_lasso_ranks_what_tells_the_label_first(tiny, tiny_saes, small):
    ambiguous = small[0]
    y = TiedLabels.of(ambiguous, "profession", "gender").target(ambiguous)
    one = {EMBED: tiny_saes[EMBED]}
    ranking = rank_by_lasso(tiny, one, ambiguous, y, n=30)
    assert len(ranking) == 30 and len(set(ranking.features.tolist())) == 30
    X = feature_rows(tiny, one, ambiguous, EMBED)
    left, first = np.flatnonzero((X > 0).sum(0) >= 10), 0
    while first < 30:  # fit, set aside what has a weight, fit again
        weights = abs(logistic_path(X[:, left], y, [0.1]).standardised(0).toarray().ravel())
        order = np.argsort(-weights)[: np.count_nonzero(weights)]
        expected = left[order][: 30 - first].tolist()
        assert ranking.features[first : first + len(expected)].tolist() == expected
        left, first = np.delete(left, order), first + len(order)
    table = ranking.table({EMBED: [f"f{i}" for i in range(X.shape[1])]})
    assert list(table["label"][:2]) == [f"f{i}" for i in ranking.features[:2]]


def with_relu(dictionary):
    """The same weights without a choice of the k largest, at which no path is continuous."""
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

    sae = StandardSAE(StandardSAEConfig(d_in=dictionary.sae.cfg.d_in, d_sae=dictionary.n_features))
    sae.load_state_dict(dictionary.sae.state_dict())
    return replace(dictionary, sae=sae)


def test_integrated_gradients_add_up_to_what_removing_all_features_changes(tiny, tiny_saes, small):
    texts = small[0].select(range(8))
    pair = {EMBED: tiny_saes[EMBED], MIDDLE: with_relu(tiny_saes[MIDDLE])}
    F = pair[MIDDLE].n_features
    weights = np.random.default_rng(0).normal(size=F)
    signs = np.array([1, -1] * 4)
    plain = feature_rows(tiny, pair, texts, MIDDLE)
    both = [
        rank_by_gradients(
            tiny, pair, texts, reader=pair[MIDDLE], weights=s * weights, signs=signs,
            n=10**6, steps=10,
        )
        for s in (1, -1)  # each gives the features that support the margin; together all of them
    ]  # fmt: skip
    support = {site: 0.0 for site in pair}
    for sign, ranking in zip((1, -1), both, strict=True):
        for site, score in zip(ranking.sites, ranking.scores, strict=True):
            support[site] += sign * score
    for site in pair:
        gone = np.arange(pair[site].n_features)
        rows = feature_rows(tiny, pair, texts, MIDDLE, {site: gone})
        change = (((plain - rows) @ weights) * signs).mean()
        # Completeness (Sundararajan et al., 2017); the encoder's kinks leave a few percent.
        assert support[site] == pytest.approx(change, rel=0.05, abs=0.02)
    assert (np.diff(both[0].scores) <= 0).all()


def test_gradients_need_autoencoders_of_the_stream(tiny, tiny_saes, tiny_folder, small):
    transcoders = ct.load_dictionaries(tiny, tiny_folder, kind="transcoder")
    with pytest.raises(InputError, match="need autoencoders at resid_pre, .* is a transcoder"):
        rank_by_gradients(
            tiny, transcoders, small[0], reader=tiny_saes[MIDDLE], weights=np.zeros(1),
            signs=np.ones(1),
        )  # fmt: skip


def test_a_ranking_is_cut_down_to_what_was_judged():
    triples = [(MIDDLE, 7, 0.9), (EMBED, 3, 0.8), (MIDDLE, 2, 0.7), (EMBED, 5, 0.1)]
    ranking = Ranking.of(triples, 1.0)
    kept = ranking.those_in({MIDDLE: [2, 7, 9], EMBED: np.array([4])})
    assert list(kept) == [MIDDLE] and kept[MIDDLE].tolist() == [2, 7]
    assert repr(ranking) == "Ranking(4 features at resid_pre 0, resid_post 0, 1.00 s)"


def test_scores_by_hand():
    y, other = np.array([0, 0, 1, 1, 1, 0], bool), np.array([0, 1, 0, 1, 1, 0], bool)
    predicted = np.array([[0, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]], bool)
    target, spurious, worst = intervals(predicted, y, other, seed=0)
    assert target.value == pytest.approx((4 + 1) / 12)
    assert spurious.value == pytest.approx((4 + 3) / 12)
    assert worst.value == pytest.approx((0 + 0) / 2)  # the group of the one text (0, 1)
    single = intervals(
        predicted[:1, [0, 2, 3, 4, 5]], y[[0, 2, 3, 4, 5]], other[[0, 2, 3, 4, 5]], 0
    )
    assert single[2].value == 0.5 and single[2].low <= 0.5 <= single[2].high


def test_words_point_to_the_features_that_go_with_them(tiny, tiny_saes):
    said = [f"{w} saw the {n}." for w in ("she", "he") for n in ("boys", "girls")] * 10
    acts = ct.capture(tiny, {EMBED: tiny_saes[EMBED]}, said, "mean", progress=False)
    found = features_with(acts, {"she"}, {"he"}, min_correlation=0.9)[EMBED]
    X = acts.features[EMBED].toarray().reshape(10, 2, 2, -1).mean(0)  # she or he, boys or girls
    assert len(found) and (abs(X[0] - X[1])[..., found] > 0).all()
    same = np.flatnonzero(abs(X[0] - X[1]).max(0) < 1e-7)
    assert not set(same) & set(found)
    with pytest.raises(InputError, match="20 texts have words of the first list alone and 0"):
        features_with(acts, {"she"}, {"cat"})


def test_what_does_not_fit_the_protocol_is_refused(tiny, tiny_saes, small):
    def ask(*tasks, **options):
        return generalise(tiny, tiny_saes, *tasks, **{"site": MIDDLE, "judged": {}} | options)

    ambiguous, balanced, test = small
    for tasks, options, message in [
        (small, {"site": "mlp_out 0"}, "No dictionary reads blocks.0.hook_mlp_out|mlp_out"),
        (small, {"lasso_sites": ["resid_post 1"]}, "No dictionary reads"),  # after the classifier
        (small, {"methods": ["magic"]}, "Unknown method 'magic'"),
        (small, {"methods": ["cbp"]}, "cbp needs concepts"),
        (small, {"methods": ["label_retrain"]}, "label needs neutral="),
        (small, {"neutral": "texts"}, "neutral must be a Task"),
        (small, {"target": "job"}, "no label 'job'"),
        ((balanced, balanced, test), {}, "two classes that go together"),
        ((ambiguous, ambiguous, test), {}, "all four groups"),
        ((ambiguous, balanced, ambiguous), {}, "all four groups"),
    ]:
        with pytest.raises(InputError, match=message):
            ask(*tasks, **options)


def test_biographies_from_a_data_set_with_labels_alone(tiny, tiny_saes, small, tmp_path):
    """The same call on what `Task.from_hub` reads of Bias in Bios, here from a local folder."""
    pytest.importorskip("datasets")
    codes = {"professor": 21, "nurse": 13, "male": 0, "female": 1}
    for split, tasks in {"train": small[:2], "test": small[2:]}.items():
        lines = [
            json.dumps({"hard_text": t, "profession": codes[p], "gender": codes[g]})
            for task in tasks
            for t, p, g in zip(
                task.clean, task.labels["profession"], task.labels["gender"], strict=True
            )
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    train, test = (
        Task.from_hub(tiny, "bias_in_bios", data=tmp_path, split=split, n=1000)
        for split in ("train", "test")
    )
    result = generalise(
        tiny,
        tiny_saes,
        groups_of(train, TIED, 30),
        groups_of(train, FOUR, 15),
        groups_of(test, FOUR),
        site=MIDDLE,
        judged={EMBED: range(tiny_saes[EMBED].n_features)},
        concepts=["clinic", "academy"],
        n_ranked=10,
        shift_prompts=10,
        shift_steps=2,
        draws=2,
    )
    table = result.table()
    assert list(table.index) == [each.method for each in result.scores] and len(table) == 12
    assert result["circuit_lasso"].n_features == 10  # all that were ranked were judged
    everything = tiny_saes[EMBED].n_features
    assert result["unranked"].n_features == result["unranked_retrain"].n_features == everything
    assert list(table.index)[:3] == ["original", "unranked", "unranked_retrain"]
    assert result["random"].n_features == 10 and result["oracle"].n_features == 0
    assert (table["worst group"] <= table["profession accuracy"] + 1e-9).all()
    assert (table["worst group low"] <= table["worst group"]).all()
    assert table["seconds"].notna().sum() == 4 and (table["seconds"].dropna() > 0).all()
    figure = generalisation_figure(result)
    bars = figure.data[0]
    assert list(bars.y)[-1].startswith("oracle") and len(bars.y) == 12
    np.testing.assert_allclose(bars.x, table["worst group"])


def test_removing_gender_from_the_bundled_model_mends_a_classifier_of_professions(demo, demo_saes):
    site = Site("resid_post", 1)
    near = {where: demo_saes[where] for where in (EMBED, site)}
    texts = ct.tasks.bios(demo, n=2900, strength=0.5, title=False, whole=True)
    other = ct.tasks.bios(demo, n=1700, seed=1, strength=0.5, title=False, whole=True)
    elsewhere = [
        i for i, p in enumerate(texts.labels["profession"]) if p not in ("professor", "nurse")
    ]
    neutral = texts.select(elsewhere[:600])
    acts = ct.capture(demo, {EMBED: near[EMBED]}, neutral.clean, "mean", progress=False)
    women, men = ({w for w, roles in LEXICON.items() if g in roles} for g in ("female", "male"))
    result = generalise(
        demo,
        near,
        groups_of(texts, TIED, 80),
        groups_of(texts, FOUR, 40),
        groups_of(other, FOUR, 40, unlike=texts),
        site=site,
        judged=features_with(acts, women, men),
        neutral=neutral,
        methods=[
            *("original", "unranked_retrain", "label_retrain", "random_retrain"),
            *("circuit_lasso", "circuit_lasso_retrain", "oracle"),
        ],
        n_ranked=80,
        draws=1,
    )
    original, mended, oracle = (
        result[name] for name in ("original", "circuit_lasso_retrain", "oracle")
    )
    assert original.spurious.value > 0.9 and original.worst.value < 0.2  # it learnt gender
    assert oracle.worst.value > 0.9
    # Small sets, for speed: benchmarks/generalisation.py measures the gap on larger ones.
    assert mended.worst.value > oracle.worst.value - 0.1
    assert abs(mended.spurious.value - 0.5) < 0.05
    assert result["random_retrain"].worst.value < 0.3
    # The judge does it: without any ranking as much is won, and the label itself judges as well.
    assert result["unranked_retrain"].worst.value > oracle.worst.value - 0.1
    assert result["label_retrain"].worst.value > 0.8  # of 40 texts in a group
    label = result["label_retrain"]
    assert label.n_features == 300 and set(label.removed) == {site}
    assert result["random_retrain"].n_features == 300  # as many at random do not
    assert mended.n_features == result["circuit_lasso"].n_features < 40
    assert repr(result).startswith("Generalisation(worst group: original 0.0")

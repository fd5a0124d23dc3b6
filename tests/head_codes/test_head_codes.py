"""Head codes on planted heads: those that tell positives from negatives are found, no others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

import circuit_toolkit as ct
from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.benchmark.metrics import roc_auc
from circuit_toolkit.errors import InputError
from circuit_toolkit.head_codes import HeadCodes
from circuit_toolkit.sites import Site

LAYERS, HEADS, WIDTH, PAIRS = 3, 4, 16, 60
PLANTED = {(0, 1), (1, 2), (2, 3)}


@pytest.fixture(scope="module")
def task() -> ct.Task:
    texts = [f"prompt {number}" for number in range(2 * PAIRS)]
    return ct.Task(
        "planted",
        tuple(texts[:PAIRS]),
        tuple(texts[PAIRS:]),
        metric=None,
        labels={"all": ("one",) * PAIRS},
    )


def outputs(task: ct.Task, planted=PLANTED, seed: int = 0) -> Activations:
    """Heads that write one of three directions; planted ones others where a prompt is positive."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    features = {}
    positive = np.arange(2 * PAIRS) < PAIRS
    for layer in range(LAYERS):
        values = np.zeros((2 * PAIRS, HEADS, WIDTH))
        for head in range(HEADS):
            which = np.tile(
                rng.integers(0, 3, PAIRS), 2
            )  # the same for a prompt and its corrupted prompt
            if (layer, head) in planted:
                which = np.where(positive, 3 + which, which)
            size = rng.uniform(1.8, 2.2, 2 * PAIRS)
            values[:, head] = directions[which] * size[:, None]
        features[Site("head_out", layer)] = sp.csr_array(values.reshape(2 * PAIRS, -1), dtype="f4")
    return Activations(
        features=features,
        prompt=np.arange(2 * PAIRS),
        position=np.zeros(2 * PAIRS, dtype=int),
        tokens=[["a"]] * (2 * PAIRS),
        groups=task.groups,
        settings={
            "positions": "last",
            "task": "planted",
            "shapes": {str(site): [HEADS, WIDTH] for site in features},
        },
    )


@pytest.fixture(scope="module")
def acts(task) -> Activations:
    return outputs(task)


def mask() -> np.ndarray:
    found = np.zeros((LAYERS, HEADS), dtype=bool)
    for head in PLANTED:
        found[head] = True
    return found


@pytest.mark.parametrize("score", ["change", "unique"])
@pytest.mark.parametrize("reference", [False, True])
def test_planted_heads_are_found_with_every_seed(acts, task, score, reference):
    fit = HeadCodes(score=score, reference=reference, n_seeds=3, n_features=40).fit(acts, task)
    for scores in fit.per_seed:
        assert roc_auc(mask().ravel(), scores.ravel()) == 1.0
    assert set(map(tuple, fit.table()[["layer", "head"]].to_numpy()[:3])) == PLANTED


def test_published_counts_on_all_prompts_and_mixes_up_code_0(acts, task):
    ours = HeadCodes.published(positions="last", n_seeds=2, n_features=40).fit(acts, task)
    assert ours.counted.all()
    assert ours.codes.max() < 40
    assert not HeadCodes(n_seeds=2, steps=5).fit(acts, task).counted.all()


def test_so_many_pairs_are_counted_and_no_others_matter(acts, task):
    codes = HeadCodes(n_seeds=2, steps=5, n_features=12, n_count=7)
    fit = codes.fit(acts, task)
    assert (fit.counted.sum(1) == 7).all()
    assert not (fit.counted & ~replace(codes, n_count=None).fit(acts, task).counted).any()
    assert HeadCodes.published(positions="last", n_seeds=1, steps=5, n_count=3).fit(
        acts, task
    ).counted.tolist() == [[True] * 3 + [False] * (PAIRS - 3)]
    table = fit.code_table(1, 2)
    assert table["positives"].sum() == table["negatives"].sum() == 7


def test_pairs_of_planted_heads_score_highest(acts, task):
    fit = HeadCodes(score="unique", n_seeds=2, n_features=40).fit(acts, task)
    layer = np.repeat(range(LAYERS), HEADS)
    within = layer[:, None] < layer
    assert not fit.pairs[~within].any()
    true = mask().ravel()[:, None] & mask().ravel() & within
    # A pair with one planted head has codes of its own too: it tells positives from negatives.
    assert fit.pairs[true].min() >= np.median(fit.pairs[within])
    neither = ~mask().ravel()[:, None] & ~mask().ravel() & within
    assert fit.pairs[true].min() > fit.pairs[neither].max()


def test_heads_that_move_on_the_same_pairs_go_together(acts, task):
    fit = HeadCodes(n_seeds=2, steps=60, learning_rate=5e-3, n_features=40).fit(acts, task)
    mine = fit.moved[0][fit.counted[0]]  # (b, L, H)
    expected = np.sqrt(np.mean([pair[1, 2] * pair[2, 3] for pair in mine]))
    assert fit.pairs_per_seed[0, 1 * HEADS + 2, 2 * HEADS + 3] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(mine.mean(0), fit.per_seed[0], rtol=1e-5)
    layer = np.repeat(range(LAYERS), HEADS)
    within, true = layer[:, None] < layer, mask().ravel()[:, None] & mask().ravel()
    assert fit.pairs[true & within].min() > fit.pairs[~true & within].max()


def test_with_labels_shuffled_nothing_is_planted(task):
    # Prompts that are exchanged with their corrupted prompts at random: no head can tell them
    # apart.
    aucs = []
    for seed in range(8):
        acts = outputs(task, seed=seed)
        rng = np.random.default_rng(seed)
        swap = rng.random(PAIRS) < 0.5
        rows = np.arange(2 * PAIRS)
        rows[:PAIRS][swap], rows[PAIRS:][swap] = rows[PAIRS:][swap], rows[:PAIRS][swap].copy()
        mixed = {site: sp.csr_array(x[rows]) for site, x in acts.features.items()}
        fit = HeadCodes(score="unique", n_seeds=1, n_features=40).fit(
            replace(acts, features=mixed), task
        )
        aucs.append(roc_auc(mask().ravel(), fit.scores.ravel()))
    assert abs(np.mean(aucs) - 0.5) < 0.2  # 3 of 12 heads: one AUC scatters by .19, eight by .07


def test_the_seed_decides(acts, task):
    first, again = (HeadCodes(n_seeds=2, steps=20).fit(acts, task) for _ in range(2))
    other = HeadCodes(n_seeds=2, steps=20, seed=1).fit(acts, task)
    np.testing.assert_array_equal(first.per_seed, again.per_seed)
    assert (first.per_seed != other.per_seed).any()
    assert (first.spread > 0).any()


def test_change_is_the_mean_distance_of_reconstructions(acts, task):
    fit = HeadCodes(n_seeds=1, steps=20, n_features=12).fit(acts, task)
    x = acts.features[Site("head_out", 1)].toarray().reshape(2 * PAIRS, HEADS, WIDTH)[:, 2]
    import torch

    x = torch.from_numpy(x - x.mean(1, keepdims=True))
    made = fit.coders.decode(fit.coders.encode(x[None]))[0]
    distance = (made[:PAIRS] - made[PAIRS:]).norm(dim=1)[torch.from_numpy(fit.counted[0])]
    assert fit.per_seed[0, 1, 2] == pytest.approx(float(distance.mean()), rel=1e-5)


def test_circuits_by_threshold_and_by_number(acts, task):
    fit = HeadCodes(score="unique", n_seeds=2, n_features=40).fit(acts, task)
    three = fit.predict(n_heads=3)
    assert three.nodes["label"].tolist() == ["a0.h1", "a1.h2", "a2.h3", "target"]
    assert three.settings["level"] == "heads"
    depths = three.depths()
    assert len(three.edges)
    assert (depths[three.edges["source"]] < depths[three.edges["target"]]).all()
    assert len(fit.predict(0.0).nodes) == LAYERS * HEADS + 1
    best = fit.predict(1.0)
    assert best.nodes["score"][:-1].min() == pytest.approx(fit.scores.max())
    assert len(fit.predict(n_heads=0).nodes) == 1


def test_codes_of_a_head_are_counted_on_the_prompts_that_count(acts, task):
    fit = HeadCodes(n_seeds=2, n_features=40).fit(acts, task)
    table = fit.code_table(1, 2)
    assert table["positives"].sum() == table["negatives"].sum() == fit.counted[0].sum()
    only = (table["positives"] > 0) & (table["negatives"] == 0)
    unique = HeadCodes(score="unique", n_seeds=2, n_features=40).fit(acts, task)
    assert only.sum() == unique.per_seed[0, 1, 2]
    assert len(fit.table()) == LAYERS * HEADS
    assert "HeadCodesFit(12 heads, 2 seeds" in repr(fit)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"score": "best"}, "score must be"),
        ({"n_seeds": 0}, "n_seeds"),
        ({"n_count": 0}, "n_count"),
        ({"n_train": 0}, "leave nothing"),
        ({"n_train": 1000}, "leave nothing"),
        ({"positions": "mean"}, "positions='all'"),
    ],
)
def test_settings_out_of_range_are_refused(acts, task, options, words):
    with pytest.raises(InputError, match=words):
        HeadCodes(**options).fit(acts, task)


def test_activations_of_something_else_are_refused(acts, task):
    features = {Site("resid_post", 0): acts.features[Site("head_out", 0)]}
    with pytest.raises(InputError, match="capture\\(model, 'head_out', task"):
        HeadCodes().fit(replace(acts, features=features), task)
    with pytest.raises(InputError, match="Capture the task that is passed"):
        HeadCodes().fit(acts, replace(task, name="other"))
    with pytest.raises(InputError, match="Capture the task that is passed"):
        HeadCodes().fit(acts, replace(task, corrupted=()))


@pytest.mark.parametrize(
    "options",
    [{}, {"threshold": 0.5, "n_heads": 3}, {"threshold": 1.5}, {"n_heads": 13}, {"n_heads": -1}],
)
def test_a_circuit_needs_one_choice_in_range(acts, task, options):
    fit = HeadCodes(n_seeds=1, steps=1).fit(acts, task)
    with pytest.raises(InputError):
        fit.predict(**options)
    with pytest.raises(InputError):
        fit.code_table(9, 0)

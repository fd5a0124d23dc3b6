"""Choices of a strength are those of their definitions, and adaptive weights help."""

from functools import partial

import numpy as np
import pytest
from sklearn.linear_model import Lasso

from circuit_toolkit.errors import InputError
from circuit_toolkit.regression import (
    GramStatistics,
    adaptive_lasso,
    adaptive_logistic,
    adaptive_weights,
    cross_validate,
    fold_labels,
    held_out_rows,
    lasso_path,
    logistic_path,
    one_standard_error,
    smallest_bic,
)
from tests.regression.problems import codes

STRENGTHS = [1, 0.5, 0.2, 0.1, 0.03]


def test_prompts_stay_together_and_folds_are_even():
    groups = np.repeat(np.arange(23), 3)
    labels = fold_labels(groups, 5, seed=1)
    assert all(len(set(labels[groups == g])) == 1 for g in range(23))
    assert set(np.bincount(labels[::3])) == {4, 5}
    assert not np.array_equal(labels, fold_labels(groups, 5, seed=2))
    with pytest.raises(InputError, match="from 2 to 23"):
        fold_labels(groups, 24)


@pytest.mark.parametrize("seed", range(8))
def test_folds_and_what_is_held_out_have_their_share_of_a_rare_class(seed):
    """7 of 60 prompts, with their corrupted prompts: each of 5 folds has one or two."""
    label = np.tile(np.arange(60) % 9 == 4, 2)
    groups = np.tile(np.arange(60), 2)
    folds = fold_labels(groups, 5, seed, label)
    assert set(np.bincount(folds)) == {24} and (folds[:60] == folds[60:]).all()
    assert set(np.bincount(folds[label])) <= {2, 4}
    held_out = held_out_rows(groups, 0.2, seed, label)
    assert held_out.sum() == 24 and held_out[label].sum() == 2
    assert (held_out[:60] == held_out[60:]).all()
    assert not np.array_equal(held_out, held_out_rows(groups, 0.2, seed + 1, label))


@pytest.mark.parametrize(("share", "n"), [(0.01, 1), (0.5, 1), (0.99, 1)])
def test_two_of_a_class_are_one_to_train_on_and_one_to_hold_out(share, n):
    label = np.arange(40) < 2
    assert held_out_rows(np.arange(40), share, label=label)[label].sum() == n
    with pytest.raises(InputError, match="1 of 40 prompts. Capture more .* no other held_out"):
        held_out_rows(np.arange(40), share, label=np.arange(40) < 1)
    with pytest.raises(InputError, match="All 1 groups of prompts would be held out"):
        held_out_rows(np.zeros(3), share)


def test_a_label_that_corrupted_prompts_do_not_share_is_on_both_sides():
    label = np.repeat([True, False], 20)  # of every pair one is of each class
    held_out = held_out_rows(np.tile(np.arange(20), 2), 0.2, label=label)
    assert held_out.sum() == 8 and held_out[label].sum() == 4


def folds_of(X, Y, labels):
    rows = (labels == fold for fold in range(labels.max() + 1))
    return [GramStatistics.from_arrays(X[some], Y[some]) for some in rows]


def test_cross_validation_equals_fits_on_the_rows():
    X, Y = codes(q=2)
    labels = fold_labels(np.arange(400), 4)
    folds = [fold.centred() for fold in folds_of(X, Y, labels)]
    found = cross_validate(folds, partial(lasso_path, strengths=STRENGTHS))
    assert found.shape == (4, 5, 2)
    for fold in range(4):
        train, test = labels != fold, labels == fold
        x, y = X[train] - X[train].mean(0), Y[train] - Y[train].mean(0)
        for k, strength in enumerate(STRENGTHS):
            for j in range(2):
                alpha = strength * np.abs(x.T @ y[:, j]).max() / len(x)
                model = Lasso(alpha, tol=1e-12, max_iter=10**6).fit(X[train], Y[train, j])
                residual = Y[test, j] - model.predict(X[test])
                want = 1 - (residual**2).sum() / ((Y[test, j] - Y[test, j].mean()) ** 2).sum()
                assert found[fold, k, j] == pytest.approx(want, abs=1e-6)
    with pytest.raises(InputError, match="at least two folds"):
        cross_validate(folds[:1])


def test_one_standard_error_is_counted_from_the_best():
    scores = np.array([[0.0, 0.30, 0.52, 0.60, 0.5], [0.1, 0.36, 0.58, 0.70, 0.7]])
    assert one_standard_error(scores) == 3  # .65 less .05 is .60: .55 is below it
    scores[:, 2] += 0.05
    assert one_standard_error(scores) == 2
    scores[0, 0] = np.nan
    with pytest.raises(InputError, match="constant on some fold"):
        one_standard_error(scores)


def test_the_information_criterion_is_that_of_least_squares_on_the_support():
    X, Y = codes(q=5)
    path = lasso_path(GramStatistics.from_arrays(X, Y).standardised())
    counts = np.array([np.diff(b.indptr) for b in path.coefficients])
    found = smallest_bic(400 * np.log(1 - path.r2), counts, 400)
    for j in range(5):
        fitted = [X @ b[:, [j]].toarray()[:, 0] + path.intercepts(k)[j]
                  for k, b in enumerate(path.coefficients)]  # fmt: skip
        errors = np.array([((Y[:, j] - each) ** 2).mean() for each in fitted])
        want = 400 * np.log(errors) + counts[:, j] * np.log(400)
        assert found[j] == want.argmin()
    assert (smallest_bic(np.zeros((2, 1)) - [[0], [1e9]], np.array([[0], [60]]), 100) == 0).all()


@pytest.mark.parametrize("fit", ["lasso", "logistic"])
def test_adaptive_fits_find_what_is_planted_and_little_else(fit):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 30)) + rng.normal(size=(400, 1))
    y = X[:, [2, 5, 9]] @ [1.0, -1.0, 0.5]
    strengths = np.geomspace(1, 0.01, 20)
    if fit == "lasso":
        noisy = (y + 0.3 * rng.normal(size=400))[:, None]
        stats = GramStatistics.from_arrays(X, noisy).standardised()
        plain, ours = lasso_path(stats, strengths), adaptive_lasso(stats, strengths)
        again = lasso_path(stats, strengths, weights=adaptive_weights(plain))
        assert abs(ours.coefficients[9] - again.coefficients[9]).max() == 0
    else:
        label = y + 0.3 * rng.normal(size=400) > 0
        plain = logistic_path(X, label, strengths)
        ours = adaptive_logistic(X, label, strengths)
    assert ours.converged.all()
    found, other = (set(path.coefficients[-1].indices) for path in (ours, plain))
    assert found >= {2, 5, 9} and len(found) < 8 < 12 < len(other)


def test_a_target_without_sources_gets_none():
    rng = np.random.default_rng(0)
    stats = GramStatistics.from_arrays(rng.normal(size=(500, 20)), rng.normal(size=(500, 3)))
    path = adaptive_lasso(stats.standardised(), [1, 0.5, 0.1])
    assert path.converged.all() and sum(b.nnz for b in path.coefficients) < 9

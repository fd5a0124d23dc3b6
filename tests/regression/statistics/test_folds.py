"""Folds kept apart give what fits on their rows give: held-out fit and choices."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import Lasso

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression import (
    Folds,
    GramStatistics,
    cross_validate,
    edge_budget,
    fold_labels,
    lasso_path,
)
from tests.regression.problems import codes
from tests.regression.statistics.test_gram import assert_same

STRENGTHS = [1, 0.5, 0.2, 0.1, 0.03]


def dense(path):
    return np.stack([b.toarray() for b in path.coefficients])


def test_prompts_stay_together_and_folds_are_even():
    groups = np.repeat(np.arange(23), 3)
    labels = fold_labels(groups, 5, seed=1)
    assert all(len(set(labels[groups == g])) == 1 for g in range(23))
    assert set(np.bincount(labels[::3])) == {4, 5}
    assert not np.array_equal(labels, fold_labels(groups, 5, seed=2))
    with pytest.raises(InputError, match="from 2 to 23"):
        fold_labels(groups, 24)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("blocks", [1, 4])
def test_folds_are_the_statistics_of_their_rows(form, blocks):
    X, Y = codes()
    labels, weights = fold_labels(np.arange(400), 5), np.random.default_rng(0).random(400)
    parts = np.array_split(np.random.default_rng(1).permutation(400), blocks)
    folds = Folds.from_blocks((form(X[r]), form(Y[r]), labels[r], weights[r]) for r in parts)
    assert len(folds) == 5
    for fold in range(5):
        here = labels == fold
        assert_same(folds.parts[fold], GramStatistics.from_arrays(X[here], Y[here], weights[here]))
        rest = GramStatistics.from_arrays(X[~here], Y[~here], weights[~here])
        assert_same(folds.without(fold), rest)
    assert_same(folds.total(), GramStatistics.from_arrays(X, Y, weights))
    some = folds.select(x=[3, 1], y=[0])
    assert_same(some.total(), GramStatistics.from_arrays(X[:, [3, 1]], Y[:, :1], weights))


def test_weights_are_repeated_rows():
    X, Y = codes(n=60)
    times = np.random.default_rng(0).integers(0, 4, 60)
    stats = GramStatistics.from_arrays(sp.csr_array(X), Y, times)
    repeated = GramStatistics.from_arrays(np.repeat(X, times, 0), np.repeat(Y, times, 0))
    for field in ("weight", "mean_x", "mean_y", "xx", "xy", "yy"):
        np.testing.assert_allclose(getattr(stats, field), getattr(repeated, field), atol=1e-12)
    for bad in (-times, times[1:], np.zeros(60), np.full(60, np.nan)):
        with pytest.raises(InputError, match="weights must be 60"):
            GramStatistics.from_arrays(X, Y, bad)


def test_cross_validation_equals_fits_on_the_rows():
    X, Y = codes(q=2)
    labels = fold_labels(np.arange(400), 4)
    folds = Folds.from_arrays(X, Y, labels).centred()
    found = cross_validate(folds, STRENGTHS)
    assert found.held_out.shape == (4, 5, 2)
    for fold in range(4):
        train, test = labels != fold, labels == fold
        x, y = X[train] - X[train].mean(0), Y[train] - Y[train].mean(0)
        for k, strength in enumerate(found.path.strengths):
            for j in range(2):
                alpha = strength * np.abs(x.T @ y[:, j]).max() / len(x)
                model = Lasso(alpha, tol=1e-12, max_iter=10**6).fit(X[train], Y[train, j])
                residual = Y[test, j] - model.predict(X[test])
                want = 1 - (residual**2).sum() / ((Y[test, j] - Y[test, j].mean()) ** 2).sum()
                assert found.held_out[fold, k, j] == pytest.approx(want, abs=1e-6)
    mean = found.held_out.mean(2)
    error = mean.std(0, ddof=1) / 2
    best = mean.mean(0).argmax()
    assert found.best() == best
    chosen = found.one_standard_error()
    assert chosen <= best and mean.mean(0)[chosen] >= mean.mean(0)[best] - error[best]
    assert chosen == 0 or mean.mean(0)[chosen - 1] < mean.mean(0)[best] - error[best]


def test_an_edge_budget_is_kept_and_used():
    path = lasso_path(GramStatistics.from_arrays(*codes()).standardised())
    counts = [b.nnz for b in path.coefficients]
    for budget in (0, 1, 20, counts[-1], 10**6):
        k = edge_budget(path, budget)
        assert counts[k] <= budget and all(count > budget for count in counts[k + 1 :])
    back = replace(path, coefficients=tuple(path.coefficients[k] for k in (0, 20, 29, 20)))
    assert edge_budget(back, counts[20]) == 3  # sources leave, too, as penalties fall
    with pytest.raises(InputError, match="more than 0"):
        edge_budget(lasso_path(path.stats, [0.1]), 0)


def test_input_is_checked():
    X, Y = codes(n=20)
    for labels in (np.zeros(19, int), np.zeros((20, 1), int)):
        with pytest.raises(MismatchError, match="labels"):
            Folds.from_arrays(X, Y, labels)
    for labels in (np.full(20, -1), np.zeros(20)):
        with pytest.raises(InputError, match="counted from 0"):
            Folds.from_arrays(X, Y, labels)
    with pytest.raises(InputError, match="without gaps"):
        Folds.from_arrays(X, Y, np.full(20, 3))
    folds = Folds.from_arrays(X, Y, np.zeros(20, int))
    with pytest.raises(InputError, match="at least two folds"):
        cross_validate(folds)
    with pytest.raises(MismatchError, match="1 and 2 folds"):
        folds + Folds(folds.parts * 2)


def test_folds_that_are_not_there_are_refused():
    X, Y = codes(n=30, q=2)
    folds = Folds.from_arrays(X, Y, np.arange(30) % 3)
    for wrong in (3, -1):
        with pytest.raises(InputError, match=f"from 0 to 2; got {wrong}"):
            folds.without(wrong)
    for wrong in ([], [0, 0], [-1], [3]):
        with pytest.raises(InputError, match="each once and at least one"):
            folds.of(wrong)
    with pytest.raises(InputError, match="no blocks"):
        Folds.from_blocks([])
    with pytest.raises(InputError, match="All weights of fold 1 are 0"):
        Folds.from_arrays(X, Y, np.arange(30) % 3, np.arange(30) % 3 != 1)

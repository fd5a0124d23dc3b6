"""Penalties in the units of the caller: the lasso of a path, scikit-learn, and the conditions."""

import numpy as np
import pytest

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression import ConvergenceWarning, GramStatistics, lasso_path
from circuit_toolkit.regression.at_penalty import lasso_at
from circuit_toolkit.regression.group import group_lasso_at, group_lasso_path, group_penalties


def moments(n=300, p=20, q=6, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) @ rng.normal(size=(p, p)) * np.geomspace(1, 5, p)
    Y = X[:, :8] @ rng.normal(size=(8, q)) + rng.normal(size=(n, q))
    X, Y = X - X.mean(0), Y - Y.mean(0)
    return X, Y, X.T @ X / n, X.T @ Y / n


def test_on_standardised_columns_it_is_the_lasso_of_a_path():
    X, Y, *_ = moments()
    X, Y = X / X.std(0), Y / Y.std(0)
    C = X.T @ Y / len(X)
    path = lasso_path(GramStatistics.from_arrays(X, Y).standardised(), [0.1])
    found = lasso_at(X.T @ X / len(X), C, 0.1 * np.abs(C).max(0))
    np.testing.assert_allclose(found, path.standardised(0).toarray(), atol=1e-6)
    assert 0 < np.count_nonzero(found) < found.size


def test_in_raw_units_it_is_scikit_learns():
    from sklearn.linear_model import Lasso

    X, Y, G, C = moments()
    alphas = 0.05 * np.abs(C).max(0)
    found = lasso_at(G, C, alphas)
    for j, alpha in enumerate(alphas):
        want = Lasso(alpha=alpha, fit_intercept=False, tol=1e-10, max_iter=10**6).fit(X, Y[:, j])
        np.testing.assert_allclose(found[:, j], want.coef_, atol=1e-5)


def test_groups_of_one_source_and_all_targets_are_scikit_learns_multi_task_lasso():
    from sklearn.linear_model import MultiTaskLasso

    X, Y, G, C = moments(seed=1)
    alpha = 0.1 * np.sqrt(np.square(C).sum(1)).max()
    rows, columns = np.arange(20), np.zeros(6, int)
    found = group_lasso_at(G, C, np.array([alpha]), rows, columns, tol=1e-9, max_iter=10**5)
    want = MultiTaskLasso(alpha=alpha, fit_intercept=False, tol=1e-10, max_iter=10**6).fit(X, Y)
    np.testing.assert_allclose(found, want.coef_.T, atol=1e-6)
    assert 0 < found.any(1).sum() < 20


def test_the_conditions_of_a_group_lasso_hold_block_by_block():
    _, _, G, C = moments(p=24, q=6, seed=2)
    rows, columns = np.repeat([0, 1, 2, 3], [3, 5, 8, 8]), np.array([0, 0, 1, 1, 1, 2])
    whole = group_penalties(C, rows, columns)
    alphas = np.array([0.3, 0.5, 1.0001]) * whole
    B = group_lasso_at(G, C, alphas, rows, columns, tol=1e-10, max_iter=10**5)
    pull, zero = C - G @ B, 0
    for a in range(4):
        for b in range(3):
            block = np.ix_(rows == a, columns == b)
            bound = alphas[b] * np.sqrt((rows == a).sum())
            size = np.linalg.norm(B[block])
            if size:
                np.testing.assert_allclose(pull[block], bound * B[block] / size, atol=1e-6 * bound)
            else:
                assert np.linalg.norm(pull[block]) <= bound
            zero += size == 0
    assert 3 < zero < 12 and not B[:, columns == 2].any()  # above the largest penalty: nothing
    just = group_lasso_at(G, C, 0.999 * whole, rows, columns)
    assert all(just[:, columns == b].any() for b in range(3))


def test_what_is_not_solved_is_said():
    _, _, G, C = moments(seed=3)
    alphas = 0.01 * np.abs(C).max(0)
    with pytest.warns(ConvergenceWarning, match="solutions are not within"):
        lasso_at(G, C, alphas, max_iter=1)
    with pytest.warns(ConvergenceWarning):
        group_lasso_at(G, C, alphas, np.arange(20), np.arange(6), max_iter=1)


def group_objectives(x, y, path, k, unit, rows, columns):
    """Objective of each group of targets, from the data."""
    B = path.coefficients[k].toarray() * unit
    losses = np.bincount(columns, ((y - x @ B) ** 2).mean(axis=0)) / 2
    for g, alpha in enumerate(path.alphas[k]):
        for a in np.unique(rows):
            block = B[np.ix_(rows == a, columns == g)]
            losses[g] += alpha * np.sqrt((rows == a).sum()) * np.linalg.norm(block)
    return losses


def test_a_group_path_is_certified_and_carries_whole_blocks():
    X, Y, *_ = moments(p=24, q=6, seed=2)
    rows, columns = np.repeat([0, 1, 2, 3], 6), np.array([0, 0, 1, 1, 1, 2])
    stats = GramStatistics.from_arrays(X + 3, Y - 2)
    for form in (stats.centred(), stats.standardised()):
        path = group_lasso_path(form, rows, columns, [1, 0.5, 0.1])
        assert path.converged.all() and path.kkt.max() <= 1e-4
        blocks = [
            [b[rows == a][:, columns == g].nnz for a in range(4) for g in range(3)]
            for b in path.coefficients
        ]
        assert not any(blocks[0]) and 0 < sum(map(bool, blocks[1])) < 12
        assert {n for n in blocks[1] if n} <= {6, 12, 18}  # all of a block, or nothing
        x, y = X - X.mean(0), Y - Y.mean(0)
        if form.form == "standardised":
            x, y = x / X.std(0), y / Y.std(0)
        unit = (X.std(0)[:, None] / Y.std(0)) if form.form == "standardised" else 1.0
        for k, b in enumerate(path.coefficients):
            B = b.toarray() * unit
            pull = x.T @ (y - x @ B) / len(x)
            for g in range(3):
                for a in range(4):
                    size = np.linalg.norm(pull[np.ix_(rows == a, columns == g)])
                    assert size <= path.alphas[k, g] * np.sqrt(6) * (1 + 1e-3)
        exact = group_lasso_path(form, rows, columns, [1, 0.5, 0.1], tol=1e-10)
        for k in range(3):
            far, near = (group_objectives(x, y, p, k, unit, rows, columns) for p in (path, exact))
            empty = np.bincount(columns, (y**2).mean(axis=0)) / 2
            assert (far - near <= (path.gap[k] + 1e-12) * empty).all()
            predicted = (X + 3) @ path.coefficients[k].toarray() + path.intercepts(k)
            r2 = 1 - ((Y - 2 - predicted) ** 2).mean(axis=0) / Y.var(axis=0)
            np.testing.assert_allclose(path.held_out_r2(form)[k], r2, atol=1e-10)
        assert path.gap.min() >= -1e-12 and path.gap.max() < 1e-3 and exact.gap.max() < 1e-9
    with pytest.warns(ConvergenceWarning):
        assert not group_lasso_path(stats, rows, columns, [0.1], max_iter=1).converged.all()
    with pytest.raises(MismatchError, match="24 sources and 6 targets"):
        group_lasso_path(stats, rows[1:], columns)
    with pytest.raises(InputError, match="from 0"):
        group_lasso_path(stats, rows + 1, columns)
    with pytest.raises(InputError, match="a source and a target at least"):
        group_lasso_path(stats.select(x=[]), np.zeros(0, int), columns)

"""Penalties in the units of the caller: the lasso of a path, scikit-learn, and the conditions."""

import numpy as np
import pytest

from circuit_toolkit.regression import ConvergenceWarning, GramStatistics, lasso_path
from circuit_toolkit.regression.certificate import violation
from circuit_toolkit.regression.paths.lasso import lasso_at
from tests.regression.problems import objective


def rows(n=300, p=20, q=6, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) @ rng.normal(size=(p, p)) * np.geomspace(1, 5, p)
    Y = X[:, :8] @ rng.normal(size=(8, q)) + rng.normal(size=(n, q))
    return X - X.mean(0), Y - Y.mean(0)


def penalties(X, Y, share):
    return share * np.abs(X.T @ Y / len(X)).max(0)


def test_on_standardised_columns_it_is_the_lasso_of_a_path():
    X, Y = (each / each.std(0) for each in rows())
    path = lasso_path(GramStatistics.from_arrays(X, Y).standardised(), [0.1])
    found = lasso_at(X, Y, penalties(X, Y, 0.1))
    np.testing.assert_allclose(found, path.standardised(0).toarray(), atol=1e-6)
    assert 0 < np.count_nonzero(found) < found.size


@pytest.mark.parametrize("size", [{}, {"n": 40, "p": 300}])
def test_in_raw_units_it_is_scikit_learns(size):
    from sklearn.linear_model import Lasso

    X, Y = rows(**size)
    alphas = penalties(X, Y, 0.05)
    found = lasso_at(X, Y, alphas)
    for j, alpha in enumerate(alphas):
        want = Lasso(alpha=alpha, fit_intercept=False, tol=1e-10, max_iter=10**6).fit(X, Y[:, j])
        np.testing.assert_allclose(found[:, j], want.coef_, atol=1e-5)


def test_where_sources_are_many_and_alike_every_condition_holds():
    """30 rows of 12 kinds, 2,000 columns that are mixtures of 20: most are nearly copies."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(12, 20))[np.arange(30) % 12] @ rng.normal(size=(20, 2000))
    X += 0.05 * rng.normal(size=X.shape)
    X[:, 1000:1200] = X[:, :200]  # and some are
    X[:, 5] = 0
    Y = rng.normal(size=(30, 8))
    X, Y = X - X.mean(0), Y - Y.mean(0)
    alphas = penalties(X, Y, 0.02)
    found = lasso_at(X, Y, alphas)
    pull = X.T @ (Y - X @ found) / len(X)
    # Certified to 1e-8 of alpha_max, which is 50 alphas; no solution has more sources than rows.
    assert np.all(violation(pull, found, alphas) <= 50e-8 * alphas)
    assert not found[5].any() and 10 < np.count_nonzero(found, axis=0).max() < 30
    stats = GramStatistics.from_arrays(X, Y).centred()
    path = lasso_path(stats, alphas=alphas[None])
    reference = path.coefficients[0].toarray()
    np.testing.assert_allclose(
        objective(X, Y, found, alphas), objective(X, Y, reference, alphas), rtol=1e-9
    )


def test_at_the_largest_penalty_nothing_has_a_source():
    X, Y = rows()
    Y[:, 2] = 0
    assert not lasso_at(X, Y, penalties(X, Y, 1.0)).any()


def test_what_is_not_solved_is_said():
    X, Y = rows(seed=3)
    with pytest.warns(ConvergenceWarning, match="solutions are not certified"):
        lasso_at(X, Y, penalties(X, Y, 0.01), max_iter=1)

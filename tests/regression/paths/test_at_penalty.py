"""Penalties in the units of the caller: the lasso of a path, scikit-learn, and the conditions."""

import numpy as np
import pytest

from circuit_toolkit.regression import ConvergenceWarning, GramStatistics, lasso_path
from circuit_toolkit.regression.paths.lasso import lasso_at


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


def test_what_is_not_solved_is_said():
    _, _, G, C = moments(seed=3)
    alphas = 0.01 * np.abs(C).max(0)
    with pytest.warns(ConvergenceWarning, match="solutions are not certified"):
        lasso_at(G, C, alphas, max_iter=1)

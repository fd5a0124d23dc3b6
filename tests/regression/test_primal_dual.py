import numpy as np
import pytest

from circuit_toolkit.regression import GramStatistics, lasso_path
from circuit_toolkit.regression.active_set import active_set
from circuit_toolkit.regression.primal_dual import primal_dual
from tests.regression.problems import codes, standardised


def problem():
    X, Y = (standardised(values) for values in codes())
    return X.T @ X / len(X), X.T @ Y / len(X), np.full(8, 0.1), np.full(8, 1e-12)


def exact(G, C, alphas):
    solved = [active_set(G, C[:, j], alphas[j], np.zeros(40), 1e-12, 1000) for j in range(8)]
    return np.transpose(solved)


def test_all_targets_end_where_the_search_for_each_ends():
    G, C, alphas, tol = problem()
    start = np.zeros((40, 8))
    B, _, left = primal_dual(G, C, alphas, start, start, tol, 20)
    assert len(left) == 0 and not start.any()
    np.testing.assert_allclose(B, exact(G, C, alphas), atol=1e-10)


def test_what_is_optimal_costs_no_step():
    G, C, alphas, tol = problem()
    B = exact(G, C, alphas)
    again, slopes, left = primal_dual(G, C, alphas, B, B, tol, 0)
    np.testing.assert_array_equal(again, B)
    np.testing.assert_array_equal(slopes, B)
    assert len(left) == 0


def test_slopes_lead_to_the_solution_at_a_nearby_penalty():
    G, C, alphas, tol = problem()
    start = np.zeros((40, 8))
    B, slopes, _ = primal_dual(G, C, alphas, start, start, tol, 20)
    np.testing.assert_allclose(B + 1e-7 * slopes, exact(G, C, alphas - 1e-7), atol=1e-10)


def test_dependent_sources_are_left_and_the_path_is_certified_all_the_same():
    """Shares that add up to one, as those of tokens at the first site do."""
    rng = np.random.default_rng(0)
    X = rng.dirichlet(np.full(30, 0.3), size=200)
    Y = X @ rng.normal(size=(30, 8)) + 0.01 * rng.normal(size=(200, 8))
    stats = GramStatistics.from_arrays(X, Y)
    G, C = stats.correlation_xx, stats.correlation_xy
    assert np.linalg.eigvalsh(G)[0] < 1e-12
    start = np.ones((30, 8)) * np.sign(C)
    weak = np.full(8, 1e-9)
    assert len(primal_dual(G, C, weak, start, start, weak / 1e8, 8)[2]) > 0
    path = lasso_path(stats, np.geomspace(1, 1e-3, 10))
    assert path.converged.all() and path.kkt.max() <= 1e-8


@pytest.mark.parametrize("strength", [0.3, 0.03, 0.003])
def test_a_cold_start_ends_where_the_path_ends(strength):
    stats = GramStatistics.from_arrays(*codes(n=60, p=50))
    cold = lasso_path(stats, [strength])
    warm = lasso_path(stats, np.geomspace(1, strength, 20))
    assert cold.converged.all()
    np.testing.assert_allclose(cold.r2[-1], warm.r2[-1], atol=1e-9)

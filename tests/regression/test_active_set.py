import numpy as np

from circuit_toolkit.regression.active_set import active_set, guess, largest_eigenvalue
from tests.regression.problems import codes, standardised


def test_the_guess_approaches_what_the_active_set_finds():
    X, Y = (standardised(values) for values in codes())
    G, C, alphas = X.T @ X / len(X), X.T @ Y / len(X), np.full(8, 0.1)
    exact = [active_set(G, C[:, j], 0.1, np.zeros(40), 1e-12, 1000) for j in range(8)]
    start, lipschitz = np.zeros((40, 8)), largest_eigenvalue(G)
    error = [
        np.abs(guess(G, C, alphas, start, lipschitz, steps) - np.transpose(exact)).max()
        for steps in (0, 15, 60, 240)
    ]
    assert error[0] > 0.1 and error[1] < 0.3 * error[0] and error[3] < 1e-6
    assert not start.any()


def test_the_active_set_reaches_the_same_solution_from_any_start():
    rng = np.random.default_rng(0)
    X, Y = (standardised(values) for values in codes(topics=2))
    G, c = X.T @ X / len(X), X.T @ Y[:, 0] / len(X)
    cold = active_set(G, c, 0.02, np.zeros(40), 1e-12, 1000)
    assert 0 < np.count_nonzero(cold) < 40
    for scale in (1e-6, 1, 1e3):
        start = scale * rng.normal(size=40)
        np.testing.assert_allclose(active_set(G, c, 0.02, start, 1e-12, 1000), cold, atol=1e-9)


def test_the_largest_eigenvalue_is_bounded_closely():
    X = standardised(codes()[0])
    G = X.T @ X / len(X)
    exact = np.linalg.eigvalsh(G)[-1]
    assert exact <= largest_eigenvalue(G) <= 1.03 * exact
    assert largest_eigenvalue(np.zeros((3, 3))) == 0

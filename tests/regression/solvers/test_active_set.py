import numpy as np

from circuit_toolkit.regression.solvers.active_set import active_set
from tests.regression.problems import codes, standardised


def test_the_active_set_reaches_the_same_solution_from_any_start():
    rng = np.random.default_rng(0)
    X, Y = (standardised(values) for values in codes(topics=2))
    G, c = X.T @ X / len(X), X.T @ Y[:, 0] / len(X)
    cold = active_set(G, c, 0.02, np.zeros(40), 1e-12, 1000)
    assert 0 < np.count_nonzero(cold) < 40
    for scale in (1e-6, 1, 1e3):
        start = scale * rng.normal(size=40)
        np.testing.assert_allclose(active_set(G, c, 0.02, start, 1e-12, 1000), cold, atol=1e-9)

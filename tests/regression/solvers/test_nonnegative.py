"""Non-negative effects are those of other solvers, and small ones are seen beside large ones."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from circuit_toolkit.errors import InputError
from circuit_toolkit.regression.solvers.nonnegative import TOGETHER, nonnegative_lasso


def swaps(n, effects, rho=0.3, seed=0):
    """Bits, and responses whose scatter grows with their size."""
    rng = torch.Generator().manual_seed(seed)
    X = (torch.rand(n, len(effects), generator=rng) < rho).float()
    each = X * effects * torch.empty(n, len(effects)).exponential_(generator=rng)
    return X, each.sum(1, keepdim=True)


def test_unweighted_fits_are_those_of_scipy():
    X, Y = swaps(400, torch.tensor([3.0, 1.0, 0.3, 0.0, 0.0, 0.1]))
    Y = torch.cat([Y, 2 + Y.flip(0)], 1)  # the second does not depend on X
    B = nonnegative_lasso(X, Y, rounds=1)
    centred = (X - X.mean(0)).double().numpy(), (Y - Y.mean(0)).double().numpy()
    for column in range(2):
        coefficients = nnls(centred[0], centred[1][:, column])[0]
        np.testing.assert_allclose(B[:, column], coefficients, atol=2e-3 * B.max())


def test_a_small_effect_is_learnt_from_rows_without_large_ones():
    effects = torch.tensor([100.0, 1.0, 0.0])
    errors = {1: [], 3: []}
    for seed in range(10):
        X, Y = swaps(1000, effects, seed=seed)
        for rounds, found in errors.items():
            B = nonnegative_lasso(X, Y, rounds=rounds)[:, 0]
            assert abs(float(B[0]) - 100) < 30
            found.append(abs(float(B[1]) - 1))
    assert np.mean(errors[3]) < np.mean(errors[1]) / 2


def test_one_in_thirty_is_seen_beside_four_large_effects():
    each = torch.tensor([30.0, 30.0, 30.0, 30.0, 1.0])[:, None]
    found = []
    for seed in range(10):  # lengths of sums of independent steps, as of a component's output
        rng = torch.Generator().manual_seed(seed)
        X = (torch.rand(1000, 5, generator=rng) < 0.5).float()
        steps = (X[:, :, None] * each * torch.randn(1000, 5, 4, generator=rng)).sum(1)
        found.append(float(nonnegative_lasso(X, steps.norm(dim=1, keepdim=True))[4, 0]))
    # A step of size 1 has length 1.88 on average; only the 1 in 16 rows without others show it.
    assert min(found) > 0.9 and np.median(found) == pytest.approx(1.88, rel=0.3)


def test_scale_and_what_is_not_allowed():
    X, Y = swaps(300, torch.tensor([2.0, 1.0, 0.5]))
    B = nonnegative_lasso(X, Y)
    for factor in (1e-10, 1e15):  # squares of such numbers do not fit float32
        torch.testing.assert_close(nonnegative_lasso(X, factor * Y), factor * B)
    allowed = torch.tensor([[True], [False], [True]])
    only = nonnegative_lasso(X, Y, allowed=allowed)
    assert only[1] == 0 and only[0] > 0
    torch.testing.assert_close(
        only[[0, 2]], nonnegative_lasso(X[:, [0, 2]], Y), rtol=1e-3, atol=1e-3
    )
    assert nonnegative_lasso(X, torch.full((300, 1), 3.0)).abs().max() == 0
    assert nonnegative_lasso(X, torch.zeros(300, 1)).abs().max() == 0


def test_shapes_and_settings_are_checked():
    X, Y = swaps(20, torch.tensor([1.0, 1.0]))
    with pytest.raises(InputError, match="must have shapes"):
        nonnegative_lasso(X, Y[1:])


def test_responses_are_solved_by_themselves_whatever_is_beside_them():
    n, p, q = 30, 50, TOGETHER + 3  # more sources than rows, and more responses than go together
    rng = torch.Generator().manual_seed(0)
    X = (torch.rand(n, p, generator=rng) < 0.5).float()
    Y = X[:, :q] + 0.5 * X[:, 1 : q + 1] + torch.rand(n, q, generator=rng)
    allowed = torch.arange(p)[:, None] <= torch.arange(q) + 1
    for rounds in (1, 5):
        B = nonnegative_lasso(X, Y, allowed=allowed, rounds=rounds)
        assert not B[~allowed].any()
        for j in range(q):
            only = nonnegative_lasso(X[:, : j + 2], Y[:, [j]], rounds=rounds)[:, 0]
            np.testing.assert_allclose(B[: j + 2, j], only, atol=1e-3)
    centred = (X - X.mean(0)).double().numpy(), (Y - Y.mean(0)).double().numpy()
    wide = nonnegative_lasso(X, Y, rounds=1).double().numpy()
    for j in range(q):  # with more sources than rows what is fitted is unique, coefficients are not
        least = nnls(centred[0], centred[1][:, j])[1] ** 2
        found = ((centred[1][:, j] - centred[0] @ wide[:, j]) ** 2).sum()
        assert found <= least + 1e-3 * (centred[1][:, j] ** 2).sum()

from functools import reduce
from operator import add

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression import GramStatistics
from tests.regression.problems import codes

FIELDS = ("n", "mean_x", "mean_y", "xx", "xy", "yy", "active_x")


def assert_same(a, b, rtol=1e-10, atol=1e-12):
    for field in FIELDS:
        np.testing.assert_allclose(getattr(a, field), getattr(b, field), rtol, atol, err_msg=field)


def direct(X, Y):
    dx, dy = X - X.mean(axis=0), Y - Y.mean(axis=0)
    moments = (dx.T @ dx / len(X), dx.T @ dy / len(X), (dy**2).mean(axis=0))
    return GramStatistics(len(X), X.mean(axis=0), Y.mean(axis=0), *moments, (X != 0).sum(axis=0))


@pytest.mark.parametrize(
    "form",
    [
        np.asarray,
        np.asfortranarray,
        sp.csr_array,
        sp.csc_matrix,
        sp.coo_array,
        torch.tensor,
        lambda X: torch.tensor(X).to_sparse(),
        pytest.param(
            lambda X: torch.tensor(X).to_sparse_csr(),
            marks=pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta"),
        ),
        lambda X: torch.tensor(X, requires_grad=True),
    ],
)
def test_every_form_of_input_gives_the_same_float64_statistics(form):
    X, Y = codes()
    X[:, 0] += 1  # one dense column among sparse ones
    assert 0.05 < (X != 0).mean() < 0.5
    stats = GramStatistics.from_arrays(form(X), form(Y))
    assert_same(stats, direct(X, Y))
    assert stats.xx.dtype == stats.xy.dtype == stats.mean_y.dtype == np.float64
    assert stats.xx.shape == (40, 40) and stats.xy.shape == (40, 8) and stats.yy.shape == (8,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_low_precision_input_is_summed_in_float64(dtype):
    X = (100 * torch.rand(500, 6)).to(dtype)
    stats = GramStatistics.from_arrays(X, X[:, :2])
    exact = X.double().numpy()
    assert_same(stats, direct(exact, exact[:, :2]))


def test_chunks_in_any_number_and_order_add_up_to_the_whole():
    X, Y = codes()
    rng = np.random.default_rng(0)
    whole = GramStatistics.from_arrays(X, Y)
    for pieces in (2, 7, 60):
        rows = np.array_split(rng.permutation(len(X)), pieces)
        rng.shuffle(rows)
        parts = [GramStatistics.from_arrays(sp.csr_array(X[r]), Y[r]) for r in rows]
        assert_same(reduce(add, parts), whole)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_no_digits_are_lost_when_means_dwarf_variances(form):
    X, Y = codes()
    far = GramStatistics.from_arrays(form(X + 1e6), form(Y - 1e6))
    near = GramStatistics.from_arrays(X, Y)
    # adding 1e6 rounds each value to 1e-10, so eight digits of the moments can be asked for
    for field in ("xx", "xy", "yy"):
        np.testing.assert_allclose(getattr(far, field), getattr(near, field), 1e-7, 1e-9)
    halves = [
        GramStatistics.from_arrays(form(X[s] + 1e6), Y[s]) for s in (slice(150), slice(150, None))
    ]
    np.testing.assert_allclose((halves[0] + halves[1]).xx, near.xx, 1e-7, 1e-9)


def test_constant_columns_have_exactly_zero_scale_and_no_correlation():
    X, Y = codes()
    X[:, 3], Y[:, 2] = 0.1, -1e5 / 3
    parts = [GramStatistics.from_arrays(X[r], Y[r]) for r in np.array_split(np.arange(400), 7)]
    for stats in (reduce(add, parts), GramStatistics.from_arrays(sp.csr_array(X), Y)):
        assert stats.scale_x[3] == stats.scale_y[2] == 0
        assert (np.delete(stats.scale_x, 3) > 0).all() and (np.delete(stats.scale_y, 2) > 0).all()
        assert not stats.correlation_xx[3].any() and not stats.correlation_xy[:, 2].any()
    varying = np.delete(np.arange(40), 3)
    np.testing.assert_allclose(
        stats.correlation_xx[np.ix_(varying, varying)], np.corrcoef(X[:, varying].T), atol=1e-12
    )


def test_selecting_statistics_is_selecting_columns():
    X, Y = codes()
    stats, mask = GramStatistics.from_arrays(X, Y), np.arange(8) % 3 == 0
    selected = stats.select(x=[5, 1, 30], y=mask)
    assert_same(selected, GramStatistics.from_arrays(X[:, [5, 1, 30]], Y[:, mask]))
    assert stats.select(x=[]).xy.shape == (0, 8)
    for bad in ([40], [-1], np.ones(39, bool), [0.5], [[1]]):
        with pytest.raises(InputError, match="x must hold column numbers from 0 to 39"):
            stats.select(x=bad)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array, torch.tensor])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_by_name(form, value):
    X, Y = codes()
    X[[1, 5, 7], 4] = value
    X[2, 9] = value
    with pytest.raises(
        InputError, match=r"X holds .* 2 of 40 columns; column 4 has 3 such rows of"
    ):
        GramStatistics.from_arrays(form(X), Y)
    with pytest.raises(InputError, match="Y holds NaN"):
        GramStatistics.from_arrays(Y, form(X))


def test_wrong_shapes_and_kinds_are_refused():
    X, Y = codes()
    for bad in (Y[:, 0], Y[:0], np.zeros((2, 3, 4))):
        with pytest.raises(InputError, match="Y must have shape"):
            GramStatistics.from_arrays(X, bad)
    with pytest.raises(InputError, match="X must hold real numbers"):
        GramStatistics.from_arrays(X.astype(str), Y)
    with pytest.raises(MismatchError, match="X has 400 rows and Y has 399"):
        GramStatistics.from_arrays(X, Y[1:])
    with pytest.raises(MismatchError, match="do not add up"):
        GramStatistics.from_arrays(X, Y) + GramStatistics.from_arrays(X, Y[:, 1:])


def test_arguments_are_not_written_to():
    X, Y = codes()
    before = X.copy(), Y.copy()
    a = GramStatistics.from_arrays(X, Y)
    xx = a.xx.copy()
    _ = a + a, a.correlation_xx, a.select(x=[0])
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(Y, before[1])
    np.testing.assert_array_equal(a.xx, xx)

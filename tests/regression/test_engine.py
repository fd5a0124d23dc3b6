"""The engine on awkward data, in every form and with every penalty, against scikit-learn."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.linear_model import ElasticNet, Lasso

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression import (
    GramStatistics,
    adaptive_weights,
    compiled,
    lasso_path,
)
from tests.regression.problems import codes, nothing_compiled

STRENGTHS = [0.7, 0.2, 0.05, 0.01]


@pytest.fixture(autouse=True)
def our_warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def awkward(kind, seed):
    """Sparse non-negative sources (n, p) and targets (n, q), with something wrong."""
    rng = np.random.default_rng(seed)
    n, p = {"wide": (30, 120), "long": (2000, 15)}.get(kind, (150, 40))
    X = rng.exponential(size=(n, p)) * (rng.random((n, p)) < 0.3)
    B = rng.normal(size=(p, 4)) * (rng.random((p, 4)) < 0.2)
    Y = X @ B + 0.3 * rng.normal(size=(n, 4))
    if kind == "copies":
        X[:, 5], X[:, 6], X[:, 7] = X[:, 0], 2 * X[:, 0], X[:, 1] + X[:, 2]
    elif kind == "constants":
        X[:, 3], X[:, 4], Y[:, 1] = 0, 2.5, 7
    elif kind == "zero targets":
        Y[:, [0, 2]] = 0
    elif kind == "scales":
        X = X * 10.0 ** rng.uniform(-6, 6, p)
        Y = Y * 10.0 ** rng.uniform(-6, 6, 4)
    elif kind == "rare":
        X[:, :10] = 0
        X[rng.integers(0, n, 10), np.arange(10)] = 1
    return X, Y


KINDS = ("copies", "constants", "zero targets", "scales", "rare", "wide", "long")


def in_form(X, Y, form):
    if form == "raw":
        return X, Y
    X, Y = X - X.mean(0), Y - Y.mean(0)
    if form == "standardised":
        X, Y = (np.divide(v, v.std(0), out=0 * v, where=v.std(0) > 1e-12) for v in (X, Y))
    return X, Y


def in_form_of(path, index):
    standard = path.stats.form == "standardised"
    return (path.standardised(index) if standard else path.coefficients[index]).toarray()


def objective(X, Y, B, alphas, l1_ratio=1.0, weights=1.0):
    """Elastic net objective of each target, from the data."""
    penalty = l1_ratio * (weights * np.abs(B)).sum(0) + (1 - l1_ratio) * (B**2).sum(0) / 2
    return ((Y - X @ B) ** 2).mean(0) / 2 + alphas * penalty


@pytest.mark.parametrize("form", ["raw", "centred", "standardised"])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_objectives_are_those_of_scikit_learn(loops, kind, seed, form):
    X, Y = awkward(kind, seed)
    stats = GramStatistics.from_arrays(sp.csr_array(X), Y)
    stats = {"centred": stats.centred, "standardised": stats.standardised}.get(
        form, lambda: stats
    )()
    path = lasso_path(stats, STRENGTHS)
    assert path.converged.all()
    x, y = in_form(X, Y, form)
    for k in range(len(STRENGTHS)):
        B = in_form_of(path, k)
        for j in range(4):
            alpha = path.alphas[k, j]
            if alpha == 0:
                assert not B[:, j].any()
                continue
            if kind == "scales":  # scikit-learn's descent stalls: the conditions say it all
                slope = x.T @ (y[:, j] - x @ B[:, j]) / len(x)
                on = B[:, j] != 0
                assert (np.abs(slope) <= alpha * (1 + 1e-6)).all()
                np.testing.assert_allclose(slope[on], alpha * np.sign(B[on, j]), rtol=1e-5)
                continue
            model = Lasso(alpha, fit_intercept=False, tol=1e-13, max_iter=10**6)
            theirs = model.fit(x, y[:, j]).coef_[:, None]
            ours = objective(x, y[:, [j]], B[:, [j]], alpha)[0]
            np.testing.assert_allclose(ours, objective(x, y[:, [j]], theirs, alpha)[0], rtol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_gaps_bound_the_distance_to_the_optimum_and_equal_those_of_the_data(kind):
    X, Y = awkward(kind, 2)
    stats = GramStatistics.from_arrays(X, Y).standardised()
    x, y = in_form(X, Y, "standardised")
    exact = lasso_path(stats, STRENGTHS)
    for tol in (1e-1, 1e-2, 1e-4):
        rough = lasso_path(stats, STRENGTHS, tol)
        assert rough.gap.min() >= -1e-12
        assert (rough.kkt <= (1 + 1e-12) * tol * rough.alphas[0] / STRENGTHS[0]).all()
        for k in range(len(STRENGTHS)):
            values = [objective(x, y, in_form_of(p, k), p.alphas[k]) for p in (rough, exact)]
            # the gap is a share of the objective of the empty model, 1/2
            assert (values[0] - values[1] <= rough.gap[k] / 2 + 1e-12).all()
            B = in_form_of(rough, k)
            slope, alpha = x.T @ (y - x @ B) / len(x), rough.alphas[k]
            slack = np.where(B != 0, np.abs(slope - alpha * np.sign(B)), np.abs(slope) - alpha)
            np.testing.assert_allclose(rough.kkt[k], slack.max(0).clip(0), atol=1e-12)


@pytest.mark.parametrize("form", ["raw", "centred"])
@pytest.mark.parametrize("l1_ratio", [0.9, 0.3])
@pytest.mark.parametrize("positive", [False, True])
def test_elastic_nets_and_signs_are_those_of_scikit_learn(loops, form, l1_ratio, positive):
    X, Y = awkward("copies", 3)
    stats = GramStatistics.from_arrays(X, Y)
    path = lasso_path(
        stats.centred() if form == "centred" else stats,
        STRENGTHS,
        l1_ratio=l1_ratio,
        positive=positive,
    )
    assert path.converged.all() and path.gap.max() < 1e-8 and path.gap.min() > -1e-12
    for k in range(len(STRENGTHS)):
        for j in range(4):
            model = ElasticNet(
                path.alphas[k, j],
                l1_ratio=l1_ratio,
                positive=positive,
                fit_intercept=form == "centred",
                tol=1e-13,
                max_iter=10**6,
            ).fit(X, Y[:, j])
            ours = path.coefficients[k][:, [j]].toarray()[:, 0]
            np.testing.assert_allclose(ours, model.coef_, atol=1e-6)
            np.testing.assert_allclose(path.intercepts(k)[j], model.intercept_, atol=1e-6)
            error = Y[:, j] - model.predict(X)
            assert path.r2[k, j] == pytest.approx(1 - (error**2).mean() / Y[:, j].var(), abs=1e-6)


def test_weights_are_scaled_columns_and_infinite_ones_keep_out(loops):
    X, Y = awkward("long", 4)
    weights = np.random.default_rng(0).uniform(0.3, 3, X.shape[1])
    weights[[2, 9]] = np.inf
    path = lasso_path(GramStatistics.from_arrays(X, Y).centred(), STRENGTHS, weights=weights)
    scaled = lasso_path(GramStatistics.from_arrays(X / weights, Y).centred(), STRENGTHS)
    for k in range(len(STRENGTHS)):
        want = scaled.coefficients[k].toarray() / weights[:, None]
        np.testing.assert_allclose(path.coefficients[k].toarray(), want, atol=1e-10)
        assert not path.coefficients[k].toarray()[[2, 9]].any()
    np.testing.assert_allclose(path.gap, scaled.gap, atol=1e-12)
    each = lasso_path(path.stats, STRENGTHS, weights=np.tile(weights[:, None], 4))
    np.testing.assert_array_equal(each.coefficients[3].toarray(), path.coefficients[3].toarray())


def test_alphas_are_those_of_scikit_learn():
    X, Y = awkward("long", 5)
    stats = GramStatistics.from_arrays(X, Y)
    alphas = [0.1, 0.02]
    path = lasso_path(stats, alphas=alphas)
    for k, alpha in enumerate(alphas):
        model = Lasso(alpha, fit_intercept=False, tol=1e-12).fit(X, Y)
        np.testing.assert_allclose(path.coefficients[k].toarray(), model.coef_.T, atol=1e-7)
    largest = np.abs(X.T @ Y).max(0) / len(X)
    np.testing.assert_allclose(path.strengths, np.array(alphas) / largest.min())
    same = lasso_path(stats, alphas=np.array([0.1, 0.02])[:, None] * np.ones(4))
    np.testing.assert_array_equal(same.alphas, path.alphas)
    above = lasso_path(stats, alphas=[2 * largest.max()])
    assert above.coefficients[0].nnz == 0 and above.converged.all()


def test_large_supports_are_solved_exactly(loops):
    """More sources than the compiled loop takes: LAPACK goes on from there."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 300))
    Y = X @ rng.normal(size=(300, 2)) + rng.normal(size=(600, 2))
    path = lasso_path(GramStatistics.from_arrays(X, Y), [0.5, 0.02])
    assert path.converged.all() and path.coefficients[1].nnz / 2 > 250
    for j in range(2):
        model = Lasso(path.alphas[1, j], fit_intercept=False, tol=1e-13).fit(X, Y[:, j])
        np.testing.assert_allclose(
            path.coefficients[1][:, [j]].toarray()[:, 0], model.coef_, atol=1e-8
        )


def test_both_loops_give_the_same_statistics_and_paths(monkeypatch):
    pytest.importorskip("numba")
    while compiled.kernels(wait=True) is None:
        pass
    rng = np.random.default_rng(0)
    X = sp.random_array((500, 80), density=0.1, rng=rng, format="csr")
    Y = (X @ rng.normal(size=(80, 200))) * (rng.random((500, 200)) < 0.5)
    for targets in (Y, sp.csc_array(Y)):
        stats = GramStatistics.from_arrays(X, targets)
        path = lasso_path(stats, STRENGTHS)
        with monkeypatch.context() as patch:
            patch.setattr(compiled, "_compiling", nothing_compiled)
            plain = GramStatistics.from_arrays(X, targets)
            again = lasso_path(plain, STRENGTHS)
        for field in ("mean_x", "mean_y", "xx", "xy", "yy"):
            np.testing.assert_allclose(
                getattr(stats, field), getattr(plain, field), rtol=1e-12, atol=1e-15
            )
        for a, b in zip(path.coefficients, again.coefficients, strict=True):
            np.testing.assert_allclose(a.toarray(), b.toarray(), atol=1e-10)


def test_threads_change_nothing():
    stats = GramStatistics.from_arrays(*codes(p=30, q=200)).standardised()
    before = torch.get_num_threads()
    try:
        paths = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            paths.append(lasso_path(stats, STRENGTHS))
    finally:
        torch.set_num_threads(before)
    for a, b in zip(*(path.coefficients for path in paths), strict=True):
        np.testing.assert_array_equal(a.toarray(), b.toarray())


def test_supports_are_those_planted_at_strengths_in_between():
    rng = np.random.default_rng(0)
    X = rng.exponential(size=(3000, 100)) * (rng.random((3000, 100)) < 0.1)
    B = np.zeros((100, 5))
    for j in range(5):
        B[rng.choice(100, 6, replace=False), j] = rng.uniform(1, 2, 6) * rng.choice([-1, 1], 6)
    Y = X @ B + 0.1 * rng.normal(size=(3000, 5))
    path = lasso_path(GramStatistics.from_arrays(X, Y).centred(), [0.1])
    np.testing.assert_array_equal(path.coefficients[0].toarray() != 0, B != 0)


def test_adaptive_weights_spare_what_was_strong():
    X, Y = awkward("long", 6)
    first = lasso_path(GramStatistics.from_arrays(X, Y).standardised(), [0.01])
    weights = adaptive_weights(first, 0)
    size = np.abs(first.standardised(0).toarray())
    assert np.isinf(weights[size == 0]).all()
    on = size > 0
    np.testing.assert_allclose(weights[on], (size.max(0) / np.where(on, size, 1))[on])
    second = lasso_path(first.stats, [0.1], weights=weights)
    assert second.converged.all() and not second.standardised(0).toarray()[~on].any()


def test_rows_and_columns_of_what_is_not_finite_are_named():
    X, Y = awkward("long", 0)
    X[[3, 8], 4] = np.nan
    with pytest.raises(InputError, match=r"column 4 has 2 such rows of 2000 \(3, 8\)"):
        GramStatistics.from_arrays(sp.csr_array(X), Y)
    X[:, 4] = np.inf
    with pytest.raises(InputError, match=r"column 4 has 2000 .* \(0, 1, 2, 3, 4, \.\.\.\)"):
        GramStatistics.from_arrays(X, Y)


def test_blocks_far_from_the_first_lose_no_digits():
    """The first block says nothing of where a column will be."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(300, 4)), rng.normal(size=(300, 2))
    X[:100, 0], Y[:100, 1] = 0, 0
    X[100:, 0] += 1e6
    Y[100:, 1] -= 1e6
    parts = [slice(0, 100), slice(100, 200), slice(200, 300)]
    for form in (np.asarray, sp.csr_array):
        stats = GramStatistics.from_blocks((form(X[s]), form(Y[s])) for s in parts)
        late = GramStatistics.from_blocks((form(X[s]), form(Y[s])) for s in parts[1:])
        whole = np.cov(X.T, Y.T, bias=True)
        np.testing.assert_allclose(stats.xx, whole[:4, :4], rtol=1e-9, atol=1e-6)
        exact = np.cov(X[100:].T, Y[100:].T, bias=True)
        np.testing.assert_allclose(late.xx, exact[:4, :4], rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(late.xy, exact[:4, 4:], rtol=1e-7, atol=1e-9)
    twice = (stats + GramStatistics.from_arrays(X, Y)).xx
    doubled = np.cov(np.tile(X, (2, 1)).T, bias=True)
    np.testing.assert_allclose(twice, doubled, rtol=1e-9, atol=1e-6)


def test_what_cannot_be_summed_is_refused():
    X, Y = awkward("long", 0)
    with pytest.raises(InputError, match=r"shape \(rows, columns\) .* got \(15,\)"):
        GramStatistics.from_arrays(sp.coo_array(X[0]), Y)
    with pytest.raises(InputError, match="real numbers, got torch.complex64"):
        GramStatistics.from_arrays(torch.as_tensor(X).to(torch.complex64), Y)
    X[:, 3] *= 1e200
    with np.errstate(over="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for x, y in ((X, Y), (sp.csr_array(X), Y)):
            with pytest.raises(InputError, match="Squares of X overflow in 1 of 15 .* such as 3"):
                GramStatistics.from_arrays(x, y)
        with pytest.raises(InputError, match="Squares of Y overflow in 4 of 4"):
            GramStatistics.from_arrays(X[:, :3], Y * 1e160)


def test_settings_are_checked():
    stats = GramStatistics.from_arrays(*codes())
    with pytest.raises(InputError, match="stats must be GramStatistics, got ndarray"):
        lasso_path(np.ones((3, 2)))
    for bad in ({"strengths": ["a"]}, {"alphas": ["a"]}, {"weights": ["a"] * 40}):
        with pytest.raises(InputError, match="must be numbers, got"):
            lasso_path(stats, **bad)
    with pytest.raises(InputError, match="tol and max_iter"):
        lasso_path(stats, [0.1], np.nan)
    assert "targets=0, certified=100%" in repr(lasso_path(stats.select(y=[]), [0.1]))
    for bad in ({"l1_ratio": 0}, {"l1_ratio": 1.1}):
        with pytest.raises(InputError, match=r"l1_ratio must be in \(0, 1\]"):
            lasso_path(stats, [0.1], **bad)
    with pytest.raises(InputError, match="tol and max_iter"):
        lasso_path(stats, [0.1], max_iter=0)
    with pytest.raises(InputError, match="not both"):
        lasso_path(stats, [0.1], alphas=[0.1])
    for bad in ([0.0], [], [np.nan], [-1.0]):
        with pytest.raises(InputError, match="alphas must be positive"):
            lasso_path(stats, alphas=bad)
    with pytest.raises(MismatchError, match="alphas must have shape"):
        lasso_path(stats, alphas=np.ones((2, 3)))
    with pytest.raises(MismatchError, match="weights must have shape"):
        lasso_path(stats, [0.1], weights=np.ones(3))
    for bad in (0.0, -1.0, np.nan):
        with pytest.raises(InputError, match="weights must be positive"):
            lasso_path(stats, [0.1], weights=np.full(40, bad))
    with pytest.raises(MismatchError, match="do not add up"):
        stats + stats.centred()
    with pytest.raises(InputError, match="no blocks"):
        GramStatistics.from_blocks([])

"""Logistic paths: their settings against scikit-learn, and their certificates."""

import inspect
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression import ConvergenceWarning, lasso_path, logistic_path
from circuit_toolkit.regression.labels.problem import Problem, Sources
from circuit_toolkit.regression.matrices import reciprocal
from tests.regression.problems import codes

STRENGTHS = [0.7, 0.2, 0.05]
# No solution lies below the optimum: one that others undercut by more than rounding is wrong.
RTOL = 1e-8


def labelled(n=200, p=20, seed=0):
    X, Y = codes(n=n, p=p, q=2, seed=seed)
    noise = 0.3 * Y.std(0) * np.random.default_rng(seed).normal(size=Y.shape)
    return X, (Y + noise).argmax(axis=1)


def in_deviations(X, share):
    """Columns about their weighted means, in standard deviations."""
    centred = X - share @ X
    return centred * reciprocal(np.sqrt(share @ centred**2))


def loss(decision, y, share):
    return share @ np.logaddexp(0, np.where(y == 1, -1, 1) * decision[:, 0])


def penalty(B, w, l1_ratio):
    w = np.broadcast_to(w[:, None], B.shape)
    live = B != 0
    return l1_ratio * (w[live] @ abs(B[live])) + (1 - l1_ratio) * (B**2).sum() / 2


def objective(path, k, X, y, share, w, l1_ratio=1.0):
    B = path.standardised(k).toarray()
    return loss(path.decision(X, k), y, share) + path.alphas[k] * penalty(B, w, l1_ratio)


def test_the_interface_is_that_of_the_lasso():
    wanted = {
        name: value.default
        for name, value in inspect.signature(lasso_path).parameters.items()
        if name not in ("stats", "tol", "max_iter", "device")  # the last is of the Gram matrix
    }
    ours = inspect.signature(logistic_path).parameters
    assert all(ours[name].default == default for name, default in wanted.items())


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
@pytest.mark.parametrize("weighted", [None, "sources", "rows"])
def test_scikit_learn_finds_nothing_lower(l1_ratio, weighted):
    X, y = labelled()
    rng, n = np.random.default_rng(1), len(y)
    w, rows = np.ones(X.shape[1]), np.ones(n)
    if weighted == "sources" and l1_ratio == 1:  # else their ridge would be weighted too
        w = rng.uniform(0.3, 3, X.shape[1])
    if weighted == "rows":
        rows = rng.exponential(size=n) * (rng.random(n) < 0.8)
    share = rows / rows.sum()
    path = logistic_path(X, y, STRENGTHS, l1_ratio=l1_ratio, weights=w, sample_weights=rows)
    assert path.converged.all()
    x = in_deviations(X, share)
    for k, alpha in enumerate(path.alphas):
        C = 1 / (alpha * rows.sum())
        model = LogisticRegression(
            C=C, l1_ratio=l1_ratio, solver="saga", tol=1e-10, max_iter=10**5, random_state=0
        ).fit(x / w, y, sample_weight=rows)
        B = model.coef_.T / w[:, None]
        theirs = loss(x @ B + model.intercept_, y, share) + alpha * penalty(B, w, l1_ratio)
        ours = objective(path, k, X, y, share, w, l1_ratio)
        assert ours <= theirs * (1 + RTOL)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)  # the same problem was solved
        np.testing.assert_allclose(path.standardised(k).toarray(), B, atol=1e-4)


def test_alphas_are_strengths_times_the_largest():
    X, y = labelled()
    path = logistic_path(X, y, STRENGTHS)
    top = path.alphas[0] / 0.7
    other = logistic_path(X, y, alphas=[path.alphas[2], 2 * top, *path.alphas[:2]])
    np.testing.assert_allclose(other.strengths, [2, *STRENGTHS])
    assert other.coefficients[0].nnz == 0 and other.converged.all()
    for k in range(3):
        a, b = path.coefficients[k].toarray(), other.coefficients[k + 1].toarray()
        np.testing.assert_allclose(a, b, atol=1e-6 * abs(a).max())
    assert [path.at(strength) for strength in (1, 0.3, 0.09, 1e-3)] == [0, 1, 2, 2]


def test_coefficients_and_intercepts_are_those_of_the_data():
    X, y = labelled()
    path = logistic_path(X * 10.0 ** np.linspace(-4, 4, 20) + 3, y, STRENGTHS)
    X = X * 10.0 ** np.linspace(-4, 4, 20) + 3
    for k in range(3):
        B = path.coefficients[k]
        assert B.shape == (20, 1) and B.format == "csc"
        np.testing.assert_allclose(path.decision(X, k), X @ B + path.intercepts(k), atol=1e-9)
        expected = B.toarray() * X.std(axis=0)[:, None]
        np.testing.assert_allclose(path.standardised(k).toarray(), expected, rtol=1e-9)


def test_a_row_of_weight_two_is_two_rows():
    X, y = labelled()
    times = np.random.default_rng(0).integers(0, 4, len(y))
    path = logistic_path(X, y, STRENGTHS, sample_weights=times)
    other = logistic_path(np.repeat(X, times, axis=0), np.repeat(y, times), STRENGTHS)
    np.testing.assert_allclose(path.alphas, other.alphas, rtol=1e-12)
    np.testing.assert_allclose(path.scale_x, other.scale_x, rtol=1e-12)
    np.testing.assert_allclose(path.train_accuracy, other.train_accuracy, rtol=1e-12)
    for k in range(3):
        np.testing.assert_allclose(path.decision(X, k), other.decision(X, k), atol=1e-6)


@pytest.mark.parametrize("form", [np.array, sp.csr_array])
def test_sources_of_infinite_weight_stay_out(form):
    X, y = labelled()
    free = np.flatnonzero(logistic_path(X, y, [0.2]).coefficients[0].sum(axis=1))
    weights = np.ones(20)
    weights[free[:2]] = np.inf
    path = logistic_path(form(X), y, STRENGTHS, weights=weights)
    rest = np.delete(np.arange(20), free[:2])
    other = logistic_path(form(X[:, rest]), y, STRENGTHS)
    assert path.converged.all()
    for k in range(3):
        B = path.coefficients[k].toarray()
        assert not B[free[:2]].any()
        np.testing.assert_allclose(B[rest], other.coefficients[k].toarray(), atol=1e-7)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_positive_coefficients_are_the_best_of_these(l1_ratio):
    X, y = labelled()
    path = logistic_path(X, y, STRENGTHS, positive=True, l1_ratio=l1_ratio)
    free = logistic_path(X, y, STRENGTHS, l1_ratio=l1_ratio)
    assert path.converged.all() and path.coefficients[2].nnz > 3
    assert free.coefficients[2].min() < 0 <= min(b.min() for b in path.coefficients)
    share = np.full(len(y), 1 / len(y))
    x, ones = in_deviations(X, share), np.ones(20)
    for k, alpha in enumerate(path.alphas):

        def value(free, alpha=alpha):
            decision = x @ free[1:] + free[0]
            residual = (y - expit(decision)) / len(y)
            total = loss(decision[:, None], y, share)
            total += alpha * penalty(free[1:, None], ones, l1_ratio)
            slope = alpha * (l1_ratio + (1 - l1_ratio) * free[1:]) - x.T @ residual
            return total, np.concatenate([[-residual.sum()], slope])

        bounds = [(None, None), *[(0, None)] * 20]
        options = {"ftol": 1e-16, "gtol": 1e-10, "maxiter": 10**4}
        best = minimize(value, np.zeros(21), jac=True, bounds=bounds, options=options)
        ours = objective(path, k, X, y, share, ones, l1_ratio)
        assert ours <= best.fun * (1 + RTOL)
        np.testing.assert_allclose(ours, best.fun, rtol=1e-7)


def test_no_source_that_entered_ends_below_zero():
    """Sources that are much alike enter together, and without the condition some turn back."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(100, 8)) + 3 * rng.normal(size=(100, 1))
        y = X @ rng.normal(0.3, 1, size=8) + rng.normal(size=100) > 0
        path = logistic_path(X, y, [0.7, 0.1, 0.01, 0.001], positive=True)
        assert path.converged.all() and min(b.min() for b in path.coefficients) >= 0
        assert path.kkt.max() < 1e-6


def test_where_all_sources_speak_against_the_label_none_is_positive():
    X, y = labelled()
    up = (X - X.mean(0)).T @ (y - y.mean()) > 0
    path = logistic_path(X[:, ~up], y, positive=True)
    assert path.converged.all() and not any(b.nnz for b in path.coefficients)
    assert not path.alphas.any() and not path.gap.max() > 1e-12


@pytest.mark.parametrize("offset", [1e3, 1e5, 1e6, 1e7, 1e9])
@pytest.mark.parametrize("far", [1, 4])
def test_sparse_columns_far_from_zero_certify_like_those_that_are_not(offset, far):
    """Not centred, they cost the gap its digits: it came out below zero, and was certified."""
    for seed in (24, 25, 26):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(60, 8))
        X[:, 7] *= rng.random(60) < 0.2  # stays sparse
        y = X[:, 1] + X[:, 4] + rng.normal(size=60) > 0
        # what is left of X once the offset has taken its digits
        near = X.copy()
        near[:, :far] = (X[:, :far] + offset) - offset
        moved = X.copy()
        moved[:, :far] += offset
        path, other = (logistic_path(sp.csr_array(each), y, STRENGTHS) for each in (near, moved))
        assert other.converged.all() and other.gap.min() > -1e-12
        for k in range(3):
            # means of numbers of this size are off by an ulp of theirs
            a, b = (each.standardised(k).toarray() for each in (path, other))
            np.testing.assert_allclose(b, a, atol=1e-7)


def test_what_stays_sparse_is_what_is_zero_in_half_of_the_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 6)) * (rng.random((50, 6)) < [0.1, 0.9, 0.2, 1, 0, 0.4])
    share = rng.dirichlet(np.ones(50))
    whole, mixed = Sources.of(X, share), Sources.of(sp.csc_array(X), share)
    np.testing.assert_array_equal(mixed.columns.is_sparse, [True, False, True, False, True, True])
    some, rows = np.array([0, 1, 3, 5]), rng.normal(size=50)
    np.testing.assert_allclose(mixed.scale, whole.scale, rtol=1e-12)
    rows -= share @ rows
    for dense, sparse in ((whole, mixed), (whole.select(some), mixed.select(some))):
        np.testing.assert_allclose(dense.back(share * rows), sparse.back(share * rows), atol=1e-14)
        H = dense.curvature(share)[0]  # with the intercept: centring does not matter
        np.testing.assert_allclose(sparse.curvature(share)[0], H, atol=1e-12)
        b = rng.normal(size=(len(H), 2))
        off = dense.times(b) - sparse.times(b)
        np.testing.assert_allclose(off - off[0], 0, atol=1e-12)


def test_residuals_that_do_not_sum_to_zero_give_no_bound():
    X, y = labelled()
    share = np.full(len(y), 1 / len(y))
    Z = Sources.of(X, share)
    problem = Problem(Z, y.astype(float), share, np.ones(20), 0, False)
    b, best = np.zeros(20), np.log(y.mean() / (1 - y.mean()))
    alpha = abs(in_deviations(X, share).T @ (y - y.mean())).max() / len(y)
    gap, kkt = problem.certificate(np.full(200, best), b, alpha)
    assert abs(gap) < 1e-14 and kkt < 1e-14
    gap, kkt = problem.certificate(np.full(200, best + 0.1), b, 10 * alpha)
    assert gap == np.inf
    np.testing.assert_allclose(kkt, abs(y.mean() - expit(best + 0.1)))


@st.composite
def problems(draw):
    """Sources, labels and settings, with flaws."""
    n, p = draw(st.integers(6, 60)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    X = rng.exponential(size=(n, p)) * (rng.random((n, p)) < draw(st.sampled_from([0.1, 0.4, 1])))
    values = X @ rng.normal(size=(p, 2)) * (rng.random(2) < 0.9)
    y = (values + draw(st.sampled_from([0.1, 1])) * rng.normal(size=values.shape)).argmax(axis=1)
    y[:2] = range(2)
    if draw(st.booleans()):
        X[:, rng.integers(p)] = X[:, rng.integers(p)]
    if draw(st.booleans()):
        X[:, rng.integers(p)] += 100
    if draw(st.booleans()):
        X *= 10.0 ** rng.uniform(-4, 4, p)
    options = {"l1_ratio": draw(st.sampled_from([1.0, 0.5, 0.01])), "positive": draw(st.booleans())}
    if draw(st.booleans()):
        options["weights"] = 10.0 ** rng.uniform(-1, 1, p)
        options["weights"][rng.random(p) < 0.1] = np.inf
    if draw(st.booleans()):
        options["sample_weights"] = rng.exponential(size=n)
    return X, y, draw(st.booleans()), options


@settings(max_examples=80, derandomize=True, deadline=None)
@given(problems(), st.sampled_from([1, 2, 4]))
def test_certificates_are_those_of_the_data_and_true(problem, max_iter):
    X, y, is_sparse, options = problem
    n, p = X.shape
    matrix = sp.csr_array(X) if is_sparse else X
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        rough = logistic_path(matrix, y, STRENGTHS, max_iter=max_iter, **options)
        exact = logistic_path(matrix, y, STRENGTHS, max_iter=2000, **options)
    rows = options.get("sample_weights", np.ones(n))
    share, w = rows / rows.sum(), options.get("weights", np.ones(p))
    x, l1_ratio = in_deviations(X, share), options["l1_ratio"]
    x[:, x.std(axis=0) < 1e-10] = 0  # constant, but for the rounding of its mean
    ones = share @ y
    null = loss(np.full((n, 1), np.log(ones / (1 - ones))), y, share)
    assert exact.converged.all()
    for k, alpha in enumerate(exact.alphas):
        best = objective(exact, k, X, y, share, w, l1_ratio)
        for path in (rough, exact):
            above = (objective(path, k, X, y, share, w, l1_ratio) - best) / null
            assert path.gap[k] >= -1e-12 and above <= path.gap[k] + 1e-10
            assert path.converged[k] == (path.gap[k] <= 1e-6)
            decision, B = path.decision(X, k), path.standardised(k).toarray()
            residual = share[:, None] * (y[:, None] - expit(decision))
            pull = x.T @ residual - alpha * (1 - l1_ratio) * B
            level = np.full(p, np.inf)  # alpha may be 0
            np.multiply(alpha * l1_ratio, w, out=level, where=np.isfinite(w))
            level = np.broadcast_to(level[:, None], B.shape)
            size = pull if options.get("positive") else abs(pull)
            off = np.where(B == 0, size - level, 0).max(initial=0)
            live = B != 0
            on = abs(pull[live] - level[live] * np.sign(B[live])).max(initial=0)
            kkt = max(off, on, abs(residual.sum(axis=0)).max())
            assert abs(path.kkt[k] - kkt) <= 1e-10


def test_a_gap_below_zero_is_not_certified(monkeypatch):
    X, y = labelled()
    monkeypatch.setattr(Problem, "certificate", lambda *_: (-1e-5, 0.0))
    with pytest.warns(ConvergenceWarning, match="3 of 3 logistic regressions"):
        assert not logistic_path(X, y, STRENGTHS).converged.any()


def test_settings_are_checked():
    X, y = labelled()
    for wrong, kind, said in (
        ({"l1_ratio": 0}, InputError, "l1_ratio in"),
        ({"tol": 0}, InputError, "must be positive"),
        ({"strengths": [0.5], "alphas": [0.1]}, InputError, "not both"),
        ({"alphas": [0.1, -1]}, InputError, "alphas must be positive"),
        ({"weights": np.zeros(20)}, InputError, "weights must be positive"),
        ({"weights": np.ones(19)}, MismatchError, "weights must have shape"),
        ({"sample_weights": np.ones(3)}, MismatchError, r"sample_weights must have shape \(200,\)"),
        ({"sample_weights": -np.ones(200)}, InputError, "sample_weights must be finite"),
        ({"sample_weights": (y == 0) * 1.0}, InputError, "labels are"),
    ):
        with pytest.raises(kind, match=said):
            logistic_path(X, y, **wrong)
    with pytest.raises(InputError, match="shares of alpha_max"):
        logistic_path(X, y, STRENGTHS).at(2)
    for bad in (y.astype(str), y + 7, np.where(y == 1, np.nan, 0)):
        with pytest.raises(InputError, match="y must hold only 0 and 1"):
            logistic_path(X, y, STRENGTHS).held_out_accuracy(X, bad)

"""Logistic paths: their settings against scikit-learn, and their certificates."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression import ConvergenceWarning, logistic_path
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


def in_deviations(X):
    """Columns about their means, in standard deviations."""
    centred = X - X.mean(0)
    return centred * reciprocal(np.sqrt((centred**2).mean(0)))


def loss(decision, y):
    return np.logaddexp(0, np.where(y == 1, -1, 1) * decision[:, 0]).mean()


def penalty(B, w):
    live = B[:, 0] != 0
    return w[live] @ abs(B[live, 0])


def objective(path, k, X, y, w):
    B = path.standardised(k).toarray()
    return loss(path.decision(X, k), y) + path.alphas[k] * penalty(B, w)


@pytest.mark.parametrize("weighted", [False, True])
def test_scikit_learn_finds_nothing_lower(weighted):
    X, y = labelled()
    w = np.ones(X.shape[1])
    if weighted:
        w = np.random.default_rng(1).uniform(0.3, 3, X.shape[1])
    path = logistic_path(X, y, STRENGTHS, weights=w)
    assert path.converged.all()
    x = in_deviations(X)
    for k, alpha in enumerate(path.alphas):
        model = LogisticRegression(
            C=1 / (alpha * len(y)), l1_ratio=1, solver="saga", tol=1e-10, max_iter=10**5,
            random_state=0,
        ).fit(x / w, y)  # fmt: skip
        B = model.coef_.T / w[:, None]
        theirs = loss(x @ B + model.intercept_, y) + alpha * penalty(B, w)
        ours = objective(path, k, X, y, w)
        assert ours <= theirs * (1 + RTOL)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)  # the same problem was solved
        np.testing.assert_allclose(path.standardised(k).toarray(), B, atol=1e-4)


def test_alphas_are_strengths_times_the_largest():
    X, y = labelled()
    path = logistic_path(X, y, STRENGTHS)
    top = abs(in_deviations(X).T @ (y - y.mean())).max() / len(y)
    np.testing.assert_allclose(path.alphas, top * np.array(STRENGTHS))
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
    share = rng.dirichlet(np.ones(50))  # weights of a curvature
    whole, mixed = Sources.of(X), Sources.of(sp.csc_array(X))
    np.testing.assert_array_equal(mixed.columns.is_sparse, [True, False, True, False, True, True])
    some, rows = np.array([0, 1, 3, 5]), rng.normal(size=50)
    np.testing.assert_allclose(mixed.scale, whole.scale, rtol=1e-12)
    rows -= rows.mean()
    for dense, sparse in ((whole, mixed), (whole.select(some), mixed.select(some))):
        np.testing.assert_allclose(dense.back(rows / 50), sparse.back(rows / 50), atol=1e-14)
        H = dense.curvature(share)  # with the intercept: centring does not matter
        np.testing.assert_allclose(sparse.curvature(share), H, atol=1e-12)
        b = rng.normal(size=(len(H), 2))
        off = dense.times(b) - sparse.times(b)
        np.testing.assert_allclose(off - off[0], 0, atol=1e-12)


def test_residuals_that_do_not_sum_to_zero_give_no_bound():
    X, y = labelled()
    problem = Problem(Sources.of(X), y.astype(float), np.ones(20))
    b, best = np.zeros(20), np.log(y.mean() / (1 - y.mean()))
    alpha = abs(in_deviations(X).T @ (y - y.mean())).max() / len(y)
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
    options = {}
    if draw(st.booleans()):
        options["weights"] = 10.0 ** rng.uniform(-1, 1, p)
        options["weights"][rng.random(p) < 0.1] = np.inf
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
    x, w = in_deviations(X), options.get("weights", np.ones(p))
    x[:, x.std(axis=0) < 1e-10] = 0  # constant, but for the rounding of its mean
    ones = y.mean()
    null = loss(np.full((n, 1), np.log(ones / (1 - ones))), y)
    assert exact.converged.all()
    for k, alpha in enumerate(exact.alphas):
        best = objective(exact, k, X, y, w)
        for path in (rough, exact):
            above = (objective(path, k, X, y, w) - best) / null
            assert path.gap[k] >= -1e-12 and above <= path.gap[k] + 1e-10
            assert path.converged[k] == (path.gap[k] <= 1e-6)
            decision, B = path.decision(X, k), path.standardised(k).toarray()
            residual = (y[:, None] - expit(decision)) / n
            pull = x.T @ residual
            level = np.full(p, np.inf)  # alpha may be 0
            np.multiply(alpha, w, out=level, where=np.isfinite(w))
            level = np.broadcast_to(level[:, None], B.shape)
            off = np.where(B == 0, abs(pull) - level, 0).max(initial=0)
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
        ({"tol": 0}, InputError, "must be positive"),
        ({"weights": np.zeros(20)}, InputError, "weights must be positive"),
        ({"weights": np.ones(19)}, MismatchError, "weights must have shape"),
    ):
        with pytest.raises(kind, match=said):
            logistic_path(X, y, **wrong)
    with pytest.raises(InputError, match="shares of alpha_max"):
        logistic_path(X, y, STRENGTHS).at(2)
    for bad in (y.astype(str), y + 7, np.where(y == 1, np.nan, 0)):
        with pytest.raises(InputError, match="y must hold only 0 and 1"):
            logistic_path(X, y, STRENGTHS).held_out_auroc(X, bad)

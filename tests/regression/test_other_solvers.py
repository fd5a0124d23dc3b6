"""Drawn problems: no other solver finds a lower objective, and the certificates are true."""

import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import ElasticNet, LogisticRegression

from circuit_toolkit.regression import GramStatistics, lasso_path, logistic_path
from circuit_toolkit.regression.matrices import reciprocal

# No solution lies below the optimum: one that others undercut by more than rounding is wrong.
RTOL = 1e-8
FLAWS = ("copy", "scaled copy", "sum", "zero", "constant", "rare", "no target", "scales", "zeros")


@st.composite
def problems(draw):
    """Sources (n, p) and targets (n, q), from one row and one source up, with flaws."""
    n, p, q = draw(st.integers(1, 60)), draw(st.integers(1, 40)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    X = rng.exponential(size=(n, p)) * (rng.random((n, p)) < draw(st.sampled_from([0.05, 0.3, 1])))
    B = rng.normal(size=(p, q)) * (rng.random((p, q)) < 0.2)
    Y = X @ B + draw(st.sampled_from([0, 0.1, 1])) * rng.normal(size=(n, q))
    for flaw in draw(st.sets(st.sampled_from(FLAWS), max_size=4)):
        a, b, c = rng.integers(0, p, 3)
        if flaw == "copy":
            X[:, a] = X[:, b]
        elif flaw == "scaled copy":
            X[:, a] = -3 * X[:, b]
        elif flaw == "sum":
            X[:, a] = X[:, b] + X[:, c]
        elif flaw == "zero":
            X[:, a] = 0
        elif flaw == "constant":
            X[:, a] = 2.5
        elif flaw == "rare":
            X[:, a] = np.arange(n) == rng.integers(n)
        elif flaw == "no target":
            Y[:, rng.integers(q)] = draw(st.sampled_from([0.0, 7.0]))
        elif flaw == "scales":
            X, Y = X * 10.0 ** rng.uniform(-6, 6, p), Y * 10.0 ** rng.uniform(-6, 6, q)
        elif flaw == "zeros":
            Y[rng.random(Y.shape) < 0.5] = 0
    return X, Y


def in_form(X, Y, form):
    """Statistics in a form, and the columns as the objective has them."""
    stats = GramStatistics.from_arrays(sp.csr_array(X), Y)
    if form == "raw":
        return stats, X, Y
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    if form == "centred":
        return stats.centred(), X, Y
    stats = stats.standardised()
    return stats, X * reciprocal(stats.scale_x), Y * reciprocal(stats.scale_y)


@pytest.fixture(params=["skglm", "celer"])
def peer(request, tmp_path):
    """Another solver of lasso problems: X, Y, alphas to coefficients (k, q, p)."""
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed; celer is not among the test dependencies")

    def solve(X, Y, alphas):
        np.savez(tmp_path / "problem.npz", X=X, Y=Y, alphas=alphas)
        subprocess.run(
            [sys.executable, "-m", "tests.regression.peer_solutions", request.param, tmp_path],
            check=True,
            cwd=Path(__file__).parents[2],
            timeout=300,
        )
        return np.load(tmp_path / f"{request.param}.npy")

    return solve


@pytest.mark.parametrize("shape", [(400, 60), (60, 200)])
def test_objectives_and_supports_are_those_of_working_set_solvers(peer, shape):
    rng = np.random.default_rng(0)
    X = rng.exponential(size=shape) * (rng.random(shape) < 0.2)
    B = np.where(rng.random((shape[1], 4)) < 6 / shape[1], rng.choice([-2, 2], (shape[1], 4)), 0)
    Y = X @ B + 0.1 * rng.normal(size=(shape[0], 4))
    path = lasso_path(GramStatistics.from_arrays(X, Y), [0.5, 0.1, 0.02])
    assert path.converged.all() and path.coefficients[2].nnz > 24
    found = peer(X, Y, path.alphas)
    for k, j, y, alpha, b in solutions(path, X, Y):
        theirs = objective(X, y, found[k, j], alpha)
        np.testing.assert_allclose(objective(X, y, b, alpha), theirs, RTOL)
        np.testing.assert_array_equal(b != 0, np.abs(found[k, j]) > 1e-9)


def test_no_sign_is_wrong_where_sources_are_many(loops):
    """Newton steps overshoot below zero there, and such points can look optimal."""
    for seed in (74, 218, 295, 353):  # where steps ended below zero
        rng = np.random.default_rng(seed)
        X = np.maximum(rng.normal(size=(20, 30)), 0)
        y = X[:, :6] @ rng.normal(size=6) + 0.3 * rng.normal(size=20)
        weights = rng.exponential(size=30)
        stats = GramStatistics.from_arrays(X, y[:, None])
        path = lasso_path(stats, [0.01], positive=True, l1_ratio=0.5, weights=weights)
        b = path.coefficients[0].toarray()[:, 0]
        assert path.converged.all() and b.min() >= 0
        pull = X.T @ (y - X @ b) / 20 - 0.5 * path.alphas[0, 0] * b
        penalties = 0.5 * path.alphas[0, 0] * weights
        wrong = np.where(b > 0, np.abs(pull - penalties), pull - penalties)
        assert wrong.max() <= 1e-8 * path.alphas[0, 0] / 0.01


@pytest.mark.parametrize("form", ["raw", "centred"])
def test_a_target_that_only_rounding_ties_to_sources_has_none(loops, form):
    """Two sources that are copies cannot explain errors that differ."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X, Y = np.zeros((60, 3)), rng.normal(size=(60, 2)) * 10.0 ** rng.uniform(-6, 6)
        X[27, :2] = np.array([-3, 1]) * 10.0 ** rng.uniform(-6, 6)
        Y[27] = 0 if form == "raw" else (Y.sum(axis=0) - Y[27]) / 59  # orthogonal, but for rounding
        path = lasso_path(in_form(X, Y, form)[0], [0.7, 0.1, 0.01])
        assert path.converged.all() and not path.alphas.any()
        assert not any(b.nnz for b in path.coefficients)


def objective(x, y, b, alpha, l1_ratio=1.0):
    penalty = l1_ratio * np.abs(b).sum() + (1 - l1_ratio) * (b**2).sum() / 2
    return ((y - x @ b) ** 2).mean() / 2 + alpha * penalty


def solutions(path, x, y):
    """Strength, target, column of y, alpha and coefficients in the unit of the form."""
    unit = path.stats.form == "standardised"
    for k in range(len(path.strengths)):
        b = (path.standardised(k) if unit else path.coefficients[k]).toarray()
        for j in np.flatnonzero(path.alphas[k]):
            yield k, j, y[:, j], path.alphas[k, j], b[:, j]


def quiet(model, *data):
    """Fit another solver; where it stops early its objective is a bound all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(*data)


drawn = settings(max_examples=150, derandomize=True, deadline=None)
forms = st.sampled_from(["raw", "centred", "standardised"])


@drawn
@given(problems(), forms, st.sampled_from([1.0, 0.5]), st.booleans())
def test_scikit_learn_finds_nothing_lower(problem, form, l1_ratio, positive):
    stats, x, y = in_form(*problem, form)
    path = lasso_path(stats, [0.7, 0.1, 0.01], l1_ratio=l1_ratio, positive=positive)
    assert path.converged.all()
    for _, _, target, alpha, b in solutions(path, x, y):
        model = ElasticNet(
            alpha, l1_ratio=l1_ratio, positive=positive, fit_intercept=False, tol=1e-12
        )
        theirs = objective(x, target, quiet(model, x, target).coef_, alpha, l1_ratio)
        assert objective(x, target, b, alpha, l1_ratio) <= theirs * (1 + RTOL)


@drawn
@given(problems(), forms, st.sampled_from([1e-1, 1e-2, 1e-4]))
def test_certificates_are_those_of_the_data_and_true(problem, form, tol):
    stats, x, y = in_form(*problem, form)
    rough, exact = (lasso_path(stats, [0.7, 0.1, 0.01], each) for each in (tol, 1e-9))
    assert rough.gap.min() >= -1e-12 and rough.converged.all()
    best = [objective(x, *each[2:3], each[4], each[3]) for each in solutions(exact, x, y)]
    for (k, j, target, alpha, b), lowest in zip(solutions(rough, x, y), best, strict=True):
        empty = (target**2).mean() / 2
        above = objective(x, target, b, alpha) - lowest
        assert above <= (rough.gap[k, j] + 1e-12) * empty
        pull = x.T @ (target - x @ b) / len(x)
        wrong = np.where(b != 0, np.abs(pull - alpha * np.sign(b)), np.abs(pull) - alpha)
        # of alpha_max, and of what products of these columns round to
        rounding = 1e-13 * np.sqrt((x**2).mean(axis=0).max() * (target**2).mean())
        largest = rough.alphas[0, j] / 0.7
        assert abs(rough.kkt[k, j] - max(wrong.max(), 0)) <= 1e-10 * largest + rounding


@drawn
@given(problems(), st.sampled_from(["liblinear", "saga"]))
def test_scikit_learn_finds_nothing_lower_for_labels(problem, solver):
    X, Y = problem
    label = Y[:, 0] > np.median(Y[:, 0])
    if not 0 < label.mean() < 1:
        return
    path = logistic_path(X, label, [0.7, 0.1])
    scale = X.std(axis=0)
    x = np.divide(X - X.mean(axis=0), scale, out=np.zeros_like(X), where=scale > 1e-12)
    for k, alpha in enumerate(path.alphas):
        if alpha == 0:
            continue
        model = LogisticRegression(
            C=1 / (len(label) * alpha), l1_ratio=1, solver=solver, tol=1e-9, max_iter=2000
        )
        quiet(model, x, label)
        margin = model.decision_function(x)
        theirs = np.logaddexp(0, margin).mean() - (label * margin).mean()
        theirs += alpha * np.abs(model.coef_).sum()
        margin = path.decision(X, k)[:, 0]
        ours = np.logaddexp(0, margin).mean() - (label * margin).mean()
        ours += alpha * np.abs(path.standardised(k).toarray()).sum()
        assert ours <= theirs * (1 + RTOL)

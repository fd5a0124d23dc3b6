import warnings
from functools import reduce
from operator import add

import numpy as np
import pytest
from sklearn.linear_model import Lasso

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression import ConvergenceWarning, GramStatistics, lasso_path
from tests.regression.problems import codes, objective, standardised

STRENGTHS = [1, 0.5, 0.2, 0.1, 0.03, 0.01]


@pytest.fixture(autouse=True)
def our_warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def fit(X, Y, strengths=None, **settings):
    return lasso_path(GramStatistics.from_arrays(X, Y).standardised(), strengths, **settings)


def dense(path):
    """Coefficients (k, p, q) in standardised units."""
    return np.stack([path.standardised(k).toarray() for k in range(len(path.strengths))])


def raw(path, index):
    return path.coefficients[index], path.intercepts(index)


def ill_conditioned(n=300, p=60, q=5, seed=0):
    """Random walks over columns: neighbours correlate by 0.99 and more."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)).cumsum(axis=1)
    return X, X[:, ::12][:, :q] + rng.normal(size=(n, q))


PROBLEMS = {
    "pooled codes": codes(),
    "strong correlation": codes(topics=2, seed=1),
    "fewer rows than sources": codes(n=30, p=60, seed=2),
    "ill-conditioned": ill_conditioned(),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_solutions_are_optimal_and_equal_scikit_learn(problem):
    X, Y = PROBLEMS[problem]
    path = fit(X, Y, STRENGTHS)
    Xs, Ys = standardised(X), standardised(Y)
    for b, alphas, r2 in zip(dense(path), path.alphas, path.r2, strict=True):
        reference = np.empty_like(b)
        for j, alpha in enumerate(alphas):
            model = Lasso(alpha, fit_intercept=False, tol=1e-12, max_iter=10**6)
            reference[:, j] = model.fit(Xs, Ys[:, j]).coef_
        ours, theirs = objective(Xs, Ys, b, alphas), objective(Xs, Ys, reference, alphas)
        np.testing.assert_allclose(ours, theirs, rtol=1e-8)
        # scikit-learn stops at a gap of 1e-12; over the smallest eigenvalues here that is 1e-6
        np.testing.assert_allclose(b, reference, atol=1e-5)
        np.testing.assert_allclose(r2, 1 - ((Ys - Xs @ b) ** 2).mean(axis=0), atol=1e-10)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_certificates_hold_and_equal_those_of_the_data(problem):
    X, Y = PROBLEMS[problem]
    path = fit(X, Y)
    assert path.converged.all() and path.gap.shape == path.kkt.shape == (30, Y.shape[1])
    assert path.gap.max() <= 1e-9 and path.gap.min() >= -1e-10
    alpha_max = path.alphas[0]
    assert (path.kkt <= 1e-8 * alpha_max).all()
    Xs, Ys = standardised(X), standardised(Y)
    for b, alphas, gap in zip(dense(path), path.alphas, path.gap, strict=True):
        residual = Ys - Xs @ b
        pull = Xs.T @ residual / len(X)  # (p, q)
        assert (np.abs(pull) <= alphas + 1e-8).all()
        on = b != 0
        np.testing.assert_allclose(pull[on], (alphas * np.sign(b))[on], atol=1e-8)
        dual = residual * np.minimum(1, alphas / np.abs(pull).max(axis=0))
        bound = ((Ys**2).mean(axis=0) - ((Ys - dual) ** 2).mean(axis=0)) / 2
        np.testing.assert_allclose(2 * (objective(Xs, Ys, b, alphas) - bound), gap, atol=1e-7)


def test_certificate_of_a_poor_solution_is_the_gap_of_the_data():
    from circuit_toolkit.regression.certificate import certificate, summarise

    X, Y = (standardised(values) for values in codes())
    n, rng = len(X), np.random.default_rng(0)
    B = 0.1 * rng.normal(size=(40, 8)) * (rng.random((40, 8)) < 0.3)
    alphas, w = np.full(8, 0.05), np.ones(40)
    C = X.T @ Y / n
    pull = C - X.T @ X @ B / n
    summary = np.array(
        [summarise(C[:, j], pull[:, j], B[:, j], 0.05 * w, w, False) for j in range(8)]
    )
    gap, kkt, error = certificate(summary, np.ones(8), alphas)
    residual = Y - X @ B
    bound = alphas / np.abs(X.T @ residual / n).max(axis=0)
    scale = np.clip((residual * Y).sum(axis=0) / (residual**2).sum(axis=0), 0, bound)
    dual = ((Y**2).mean(axis=0) - ((Y - scale * residual) ** 2).mean(axis=0)) / 2
    np.testing.assert_allclose(gap, 2 * (objective(X, Y, B, alphas) - dual), rtol=1e-12)
    np.testing.assert_allclose(error, (residual**2).mean(axis=0), rtol=1e-10)
    slow = [
        max(
            abs(g - a * np.sign(b)) if b else max(abs(g) - a, 0)
            for g, b in zip(pull[:, j], B[:, j], strict=True)
        )
        for j, a in enumerate(alphas)
    ]
    np.testing.assert_allclose(kkt, slow, rtol=1e-10)
    assert gap.min() > 0


def test_no_certificate_is_given_to_a_sign_that_is_not_allowed():
    from circuit_toolkit.regression.certificate import violation

    pull, B = np.array([-0.3, 0.3, 0.1]), np.array([-2.0, 1.0, 0.0])
    assert violation(pull, B, 0.3) == 0
    assert violation(pull, B, 0.3, positive=True) == np.inf
    assert violation(pull, np.abs(B) * (pull > 0.2), 0.3, positive=True) == 0


def test_orthonormal_sources_give_the_soft_threshold():
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(200, 12))
    X = np.linalg.qr(raw - raw.mean(axis=0))[0] * np.sqrt(200)  # centred, X'X / n = 1
    Y = standardised(rng.normal(size=(200, 4)) + X[:, :4])
    path = fit(X, Y, STRENGTHS)
    C = X.T @ Y / 200
    for b, alphas in zip(dense(path), path.alphas, strict=True):
        np.testing.assert_allclose(b, np.sign(C) * np.maximum(np.abs(C) - alphas, 0), atol=1e-9)


def test_nothing_enters_at_alpha_max_and_the_best_source_enters_just_below():
    X, Y = codes()
    path = fit(X, Y, [1, 1 - 1e-6])
    assert path.coefficients[0].nnz == 0
    correlation = np.abs(standardised(X).T @ standardised(Y))
    entered, targets = path.coefficients[1].toarray().nonzero()
    assert sorted(targets) == list(range(8))  # one source each
    np.testing.assert_array_equal(entered, correlation.argmax(axis=0)[targets])


def test_targets_are_solved_independently():
    X, Y = codes()
    whole, order = dense(fit(X, Y, STRENGTHS)), np.random.default_rng(0).permutation(8)
    np.testing.assert_allclose(dense(fit(X, Y[:, order], STRENGTHS)), whole[:, :, order], atol=1e-8)
    for j in range(8):
        single = dense(fit(X, Y[:, [j]], STRENGTHS))[:, :, 0]
        np.testing.assert_allclose(single, whole[:, :, j], atol=1e-8)


def test_planted_support_is_recovered_and_refit_is_exact():
    rng = np.random.default_rng(0)
    X, planted = rng.normal(size=(4096, 64)), np.zeros((64, 6))
    for j in range(6):
        rows = rng.choice(64, size=8, replace=False)
        planted[rows, j] = rng.choice([-1, 1], 8) * rng.uniform(0.5, 1.5, 8)
    Y = X @ planted + 3
    path = fit(X, Y, [0.01])
    support = path.coefficients[0].toarray() != 0
    np.testing.assert_array_equal(support, planted != 0)
    for j in range(6):
        centred = X[:, support[:, j]] - X[:, support[:, j]].mean(axis=0)
        refit = np.linalg.lstsq(centred, Y[:, j] - Y[:, j].mean(), rcond=None)[0]
        np.testing.assert_allclose(refit, planted[support[:, j], j], atol=1e-5)


def test_a_copy_shares_the_weight_and_changes_nothing_else():
    X, Y = codes()
    copied = np.column_stack([X, X[:, :5]])
    single, double = fit(X, Y, STRENGTHS), fit(copied, Y, STRENGTHS)
    assert double.converged.all()
    B, D = dense(single), dense(double)
    merged = D[:, :40].copy()
    merged[:, :5] += D[:, 40:]
    np.testing.assert_allclose(merged, B, atol=1e-7)
    np.testing.assert_allclose(double.r2, single.r2, atol=1e-9)


def test_every_source_twice_with_both_signs_still_certifies():
    X, Y = codes(n=60, p=50)
    path = fit(np.hstack([X, -2 * X]), Y)
    assert path.converged.all() and path.kkt.max() < 1e-8


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_units_do_not_matter(factor):
    X, Y = codes()
    x_scale, y_scale = factor ** np.linspace(-1, 1, 40), factor ** np.linspace(1, -1, 8)
    path, other = fit(X, Y, STRENGTHS), fit(X * x_scale, Y * y_scale, STRENGTHS)
    np.testing.assert_allclose(dense(other), dense(path), atol=1e-8)
    for k in range(len(STRENGTHS)):
        (b, intercept), (c, other_intercept) = raw(path, k), raw(other, k)
        np.testing.assert_allclose(
            c.toarray() * x_scale[:, None] / y_scale, b.toarray(), rtol=1e-6, atol=1e-9
        )
        np.testing.assert_allclose(other_intercept / y_scale, intercept, rtol=1e-6, atol=1e-9)


def test_raw_coefficients_predict_what_scikit_learn_predicts():
    X, Y = codes()
    X = X + 5
    path = fit(X, Y, [0.1])
    b, intercept = raw(path, 0)
    Xs = standardised(X)
    for j in range(8):
        alpha = path.alphas[0, j] * Y[:, j].std()
        model = Lasso(alpha, tol=1e-12, max_iter=10**6).fit(Xs, Y[:, j])
        ours = X @ b[:, [j]].toarray()[:, 0] + intercept[j]
        np.testing.assert_allclose(ours, model.predict(Xs), atol=1e-8)


@pytest.mark.parametrize("constant", [0.0, 3.7])
def test_constant_sources_and_targets_get_no_coefficients(constant):
    X, Y = codes()
    X[:, 4], Y[:, 1] = constant, constant
    path = fit(X, Y)
    assert path.converged.all() and not dense(path)[:, 4].any() and not dense(path)[:, :, 1].any()
    assert not path.gap[:, 1].any() and np.isnan(path.r2[:, 1]).all()
    assert np.isfinite(np.delete(path.r2, 1, axis=1)).all()
    b, intercept = raw(path, 20)
    assert np.isfinite(b.toarray()).all()
    assert intercept[1] == pytest.approx(constant)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (5, 1), (0, 2), (3, 0)])
def test_small_and_empty_problems(shape):
    X, Y = codes(p=6, q=3)
    stats = GramStatistics.from_arrays(X, Y).select(range(shape[0]), range(shape[1]))
    path = lasso_path(stats.standardised())
    assert path.converged.all() and path.coefficients[0].shape == shape
    assert path.solve(0.37).coefficients[0].shape == shape


def test_residual_identity_is_found_exactly():
    """A sum of its sources: without a penalty to speak of, all coefficients are one."""
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(3, 100, 10))
    path = fit(np.hstack(list(parts)), parts.sum(axis=0), [1, 1e-3, 1e-6])
    np.testing.assert_allclose(raw(path, 2)[0].toarray(), np.vstack([np.eye(10)] * 3), atol=1e-5)
    assert path.converged.all()


@pytest.mark.parametrize("strength", [0.9, 0.33, 0.05, 0.0123, 1.0, 0.004])
def test_solving_between_points_equals_a_fresh_solve(strength):
    X, Y = codes()
    path = fit(X, Y, np.geomspace(1, 0.01, 12))
    near, fresh = path.solve(strength), fit(X, Y, [strength])
    np.testing.assert_allclose(near.strengths, [strength])
    np.testing.assert_allclose(dense(near), dense(fresh), atol=1e-8)
    np.testing.assert_allclose(near.r2, fresh.r2, atol=1e-9)
    assert near.converged.all()


def test_at_finds_the_nearest_point():
    path = fit(*codes(), [0.1, 1, 0.01])
    assert path.strengths.tolist() == [1, 0.1, 0.01]
    assert [path.at(s) for s in (1, 0.4, 0.3, 0.1, 0.02, 0.001)] == [0, 0, 1, 1, 2, 2]


def test_held_out_r2_equals_the_direct_value():
    X, Y = codes(n=600)
    X[400:] += 0.1  # a shift between training and test rows
    path = fit(X[:400], Y[:400], STRENGTHS)
    chunks = np.array_split(np.arange(400, 600), 3)
    other = reduce(add, [GramStatistics.from_arrays(X[c], Y[c]) for c in chunks])
    scores, test_X, test_Y = path.held_out_r2(other), X[400:], Y[400:]
    assert scores.shape == (len(STRENGTHS), 8)
    for k in range(len(STRENGTHS)):
        b, intercept = raw(path, k)
        residual = test_Y - (test_X @ b.toarray() + intercept)
        direct = 1 - (residual**2).sum(axis=0) / ((test_Y - test_Y.mean(axis=0)) ** 2).sum(axis=0)
        np.testing.assert_allclose(scores[k], direct, atol=1e-10)
    np.testing.assert_allclose(path.held_out_r2(path.stats), path.r2, atol=1e-10)
    constant = GramStatistics.from_arrays(test_X, np.full_like(test_Y, 0.1))
    assert np.isnan(path.held_out_r2(constant)).all()
    with pytest.raises(MismatchError, match="Select the same columns"):
        path.held_out_r2(other.select(y=[0]))


def test_what_is_not_certified_is_flagged_with_one_warning():
    X, Y = ill_conditioned()
    with pytest.warns(ConvergenceWarning, match="are not certified") as caught:
        path = fit(X, Y, STRENGTHS, max_iter=1)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert not path.converged.all() and path.converged[0].all()
    np.testing.assert_array_equal(path.converged, path.kkt <= path.tol * path.alphas[0])


def test_settings_are_checked():
    X, Y = codes()
    for bad in ([0.0], [1.5], [], [-1], [np.nan]):
        with pytest.raises(InputError, match=r"shares of alpha_max, in \(0, 1\]"):
            fit(X, Y, bad)
    with pytest.raises(InputError, match="must be positive"):
        fit(X, Y, tol=0)


def test_stored_points_do_not_change_when_more_are_solved():
    path = fit(*codes(), STRENGTHS)
    before = dense(path)
    path.solve(0.15)
    path.held_out_r2(path.stats)
    np.testing.assert_array_equal(dense(path), before)

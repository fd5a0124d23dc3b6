import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression import ConvergenceWarning, logistic_path
from circuit_toolkit.regression.labels.newton import best_intercept
from tests.regression.problems import codes, standardised

STRENGTHS = [1, 0.5, 0.2, 0.05]


@pytest.fixture(autouse=True)
def our_warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def labelled(n=300, p=30, seed=0):
    X, Y = codes(n=n, p=p, q=1, seed=seed)
    noisy = Y[:, 0] + 0.3 * Y.std() * np.random.default_rng(seed).normal(size=n)
    return X, noisy > np.quantile(noisy, 0.6)


def column(path, k):
    """Coefficients (p,) per standard deviation."""
    return path.standardised(k).toarray()[:, 0]


def decisions(path, X):
    """Log odds (m, k) at every strength."""
    return np.column_stack([path.decision(X, k) for k in range(len(path.strengths))])


def logistic_objective(X, y, b, intercept, alpha):
    f = X @ b + intercept
    return np.mean(np.logaddexp(0, f) - y * f) + alpha * np.abs(b).sum()


def test_agrees_with_scikit_learn():
    X, y = labelled()
    path = logistic_path(X, y, STRENGTHS)
    Xs = standardised(X)
    for k in range(1, len(STRENGTHS)):
        alpha, b = path.alphas[k], column(path, k)
        model = LogisticRegression(
            C=1 / (len(y) * alpha), l1_ratio=1, solver="saga", tol=1e-9, max_iter=10**5
        ).fit(Xs, y)
        intercept = path.intercepts(k)[0] + X.mean(axis=0) @ path.coefficients[k].toarray()[:, 0]
        ours = logistic_objective(Xs, y, b, intercept, alpha)
        theirs = logistic_objective(Xs, y, model.coef_[0], model.intercept_[0], alpha)
        assert ours <= theirs * (1 + 1e-12)
        np.testing.assert_allclose(ours, theirs, rtol=1e-8)
        # saga stops on the size of its steps, which bounds its coefficients to about 1e-6
        np.testing.assert_allclose(b, model.coef_[0], atol=1e-4)
        np.testing.assert_allclose(intercept, model.intercept_[0], atol=1e-4)
        np.testing.assert_allclose(
            path.decision(X, k)[:, 0], model.decision_function(Xs), atol=1e-4
        )


@pytest.mark.parametrize("n", [300, 40, 25])
def test_solutions_are_optimal(n):
    """Also when the classes can be told apart without error, at n = 25."""
    X, y = labelled(n=n)
    X = X[:, X.std(axis=0) > 0]
    path = logistic_path(X, y)
    assert path.converged.all() and path.gap.min() >= -1e-12 and path.gap.max() <= 1e-6
    Xs, decision = standardised(X), decisions(path, X)
    assert path.coefficients[0].nnz == 0
    np.testing.assert_allclose(decision[:, 0], np.log(y.mean() / (1 - y.mean())))
    for k, alpha in enumerate(path.alphas):
        residual = expit(decision[:, k]) - y
        pull, b = Xs.T @ residual / n, column(path, k)
        assert abs(residual.mean()) < 1e-10  # the intercept is free
        assert (np.abs(pull) <= alpha + 1e-8).all()
        np.testing.assert_allclose(pull[b != 0], -alpha * np.sign(b[b != 0]), atol=1e-8)


def test_alpha_max_is_where_the_first_source_enters():
    X, y = labelled()
    path = logistic_path(X, y, [1, 1 - 1e-6])
    np.testing.assert_allclose(
        path.alphas[0], np.abs(standardised(X).T @ (y.mean() - y)).max() / len(y)
    )
    assert [path.coefficients[k].nnz for k in (0, 1)] == [0, 1]


@pytest.mark.parametrize("form", [sp.csr_array, sp.csc_matrix, torch.tensor])
def test_sparse_and_dense_input_give_the_same_path(form):
    X, y = labelled()
    X[:, 0] += 2  # a column without zeros
    path, other = logistic_path(X, y), logistic_path(form(X), torch.tensor(y))
    for k in range(30):
        np.testing.assert_allclose(column(other, k), column(path, k), atol=1e-6)
        np.testing.assert_allclose(other.intercepts(k), path.intercepts(k), atol=1e-6)
    np.testing.assert_allclose(decisions(other, form(X)), decisions(path, X), atol=1e-6)


def test_swapping_the_labels_swaps_the_signs():
    X, y = labelled()
    path, swapped = logistic_path(X, y, STRENGTHS), logistic_path(X, 1 - y.astype(int), STRENGTHS)
    np.testing.assert_allclose(decisions(swapped, X), -decisions(path, X), atol=1e-7)


def test_units_and_shifts_do_not_matter():
    X, y = labelled()
    moved = (X + 4) * 10.0 ** np.linspace(-6, 6, 30)
    path, other = logistic_path(X, y, STRENGTHS), logistic_path(moved, y, STRENGTHS)
    for k in range(len(STRENGTHS)):
        np.testing.assert_allclose(column(other, k), column(path, k), atol=1e-6)
    np.testing.assert_allclose(decisions(other, moved), decisions(path, X), atol=1e-6)


def test_constant_and_copied_columns():
    X, y = labelled()
    extended = np.column_stack([X, X[:, :10], np.full(len(X), 2.5)])
    path, other = logistic_path(X, y), logistic_path(extended, y)
    assert other.converged.all()
    for k in range(30):
        b = column(other, k)
        assert not b[40]
        b[:10] += b[30:40]
        np.testing.assert_allclose(b[:30], column(path, k), atol=1e-6)


def test_rare_labels_certify():
    X, _ = labelled()
    y = np.zeros(300)
    y[[3, 50, 299]] = 1
    assert logistic_path(X, y).converged.all()


def test_sources_that_say_nothing():
    X = np.tile([[0.0], [1.0]], (20, 1))
    path = logistic_path(X, np.repeat([0, 1], 20))  # exactly uncorrelated
    assert path.converged.all() and not any(b.nnz for b in path.coefficients)
    assert not path.alphas.any() and not path.kkt.max() > 1e-15


def test_auroc_is_that_of_scikit_learn_and_chance_without_sources():
    X, y = labelled(n=500)
    path = logistic_path(X[:300], y[:300])
    found, decision = path.held_out_auroc(X[300:], y[300:]), decisions(path, X[300:])
    assert found.shape == (30,) and found[0] == 0.5 < 0.9 < found.max()
    for k in range(30):
        assert found[k] == pytest.approx(roc_auc_score(y[300:], decision[:, k]), abs=1e-12)
    assert np.isnan(path.held_out_auroc(X[300:], np.ones(200))).all()


def test_training_accuracy_is_the_share_of_rows_on_the_right_side():
    X, y = labelled()
    path = logistic_path(X, y)
    right = (decisions(path, X) > 0) == y[:, None]
    np.testing.assert_allclose(path.train_accuracy, right.mean(0), rtol=1e-12)
    np.testing.assert_allclose(path.train_accuracy[0], max(y.mean(), 1 - y.mean()), rtol=1e-12)


def test_input_is_checked():
    X, y = labelled()
    with pytest.raises(InputError, match="All 300 labels are 0"):
        logistic_path(X, np.zeros(300))
    for bad in (y * 2, np.where(y, 1, -1), np.where(y, np.nan, 0), y.astype(str)):
        with pytest.raises(InputError, match="y must hold only 0 and 1"):
            logistic_path(X, bad)
    with pytest.raises(MismatchError, match=r"y must have shape \(300,\)"):
        logistic_path(X, y[1:])
    with pytest.raises(InputError, match="shares of alpha_max"):
        logistic_path(X, y, [2])
    with pytest.raises(MismatchError, match="X has 29 columns"):
        logistic_path(X, y, [0.5]).decision(X[:, 1:], 0)
    X[0, 7] = np.nan
    with pytest.raises(InputError, match="column 7 has 1 such rows"):
        logistic_path(X, y)


def test_what_is_not_certified_is_flagged_with_one_warning():
    X, y = labelled()
    with pytest.warns(ConvergenceWarning, match="are not certified") as caught:
        path = logistic_path(X, y, [0.01], max_iter=1)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert not path.converged.any()


@pytest.mark.parametrize("start", [-700.0, -30.0, 0.0, 30.0, 700.0])
def test_the_intercept_is_found_from_anywhere(start):
    rng = np.random.default_rng(0)
    decision, labels = 5 * rng.normal(size=200), (rng.random(200) < 0.02).astype(float)
    labels[0] = 1
    intercept = best_intercept(decision, labels, start)
    assert abs(np.mean(labels - expit(decision + intercept))) < 1e-12


@pytest.mark.parametrize("seed", [6, 25, 28])
@pytest.mark.parametrize("strength", [1e-2, 1e-4])
def test_a_cold_start_at_a_weak_penalty_certifies(seed, strength):
    """With outliers this heavy, full Newton steps overshoot and never come back."""
    rng = np.random.default_rng(seed)
    X = rng.standard_t(1, size=(60, 8))
    y = X.sum(axis=1) > 0
    cold = logistic_path(X, y, [strength])
    warm = logistic_path(X, y, np.geomspace(1, strength, 20))
    assert cold.converged.all() and warm.converged.all()
    np.testing.assert_allclose(cold.decision(X, 0), warm.decision(X, 19), rtol=1e-3)

"""Sparse multinomial regression against scikit-learn, its conditions, and the binary path."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression import ConvergenceWarning, logistic_path, multinomial_path
from tests.regression.problems import codes, standardised

STRENGTHS = [1, 0.5, 0.2, 0.05]


def labelled(n=300, p=30, classes=4, seed=0):
    X, Y = codes(n=n, p=p, q=classes, seed=seed)
    noise = 0.3 * Y.std(0) * np.random.default_rng(seed).normal(size=Y.shape)
    return X, np.array(["d", "a", "c", "b"])[(Y + noise).argmax(axis=1)]


def objective(X, number, B, b0, alpha):
    values = log_softmax(X @ B + b0, axis=1)[np.arange(len(X)), number]
    return -values.mean() + alpha * np.abs(B).sum()


def test_agrees_with_scikit_learn():
    X, y = labelled()
    path, Xs = multinomial_path(X, y, STRENGTHS), standardised(X)
    classes, number = np.unique(y, return_inverse=True)
    np.testing.assert_array_equal(path.classes, classes)
    assert path.converged.all() and path.coefficients[0].nnz == 0
    for k in range(1, len(STRENGTHS)):
        alpha, B = path.alphas[k], path.standardised(k).toarray()
        model = LogisticRegression(
            C=1 / (len(y) * alpha), l1_ratio=1, solver="saga", tol=1e-10, max_iter=10**5
        ).fit(Xs, y)
        b0 = path.intercepts(k) + X.mean(0) @ path.coefficients[k]
        theirs = objective(Xs, number, model.coef_.T, model.intercept_, alpha)
        np.testing.assert_allclose(objective(Xs, number, B, b0, alpha), theirs, rtol=1e-8)
        np.testing.assert_allclose(B, model.coef_.T, atol=1e-4)
        assert (path.held_out_accuracy(X, y)[k] == path.train_accuracy[k]) == (
            (model.predict(Xs) == y).mean() == pytest.approx(path.train_accuracy[k], abs=1e-9)
        )


@pytest.mark.parametrize("n", [300, 40])
def test_conditions_and_gaps_hold(n):
    X, y = labelled(n=n)
    X = X[:, X.std(0) > 0]
    path, Xs = multinomial_path(X, y), standardised(X)
    number = np.unique(y, return_inverse=True)[1]
    assert path.converged.all() and path.gap.min() >= -1e-12
    for k, alpha in enumerate(path.alphas):
        B = path.standardised(k).toarray()
        residual = np.eye(len(path.classes))[number] - softmax(path.decision(X, k), axis=1)
        pull = Xs.T @ residual / n
        assert np.abs(residual.mean(0)).max() < 1e-9  # the intercepts are free
        assert (np.abs(pull) <= alpha * (1 + 1e-6)).all()
        np.testing.assert_allclose(pull[B != 0], alpha * np.sign(B[B != 0]), rtol=1e-6)


def test_of_two_classes_it_predicts_what_the_binary_path_predicts():
    """With one column per class the same function costs half: b / 2 and -b / 2."""
    X, y = labelled(classes=2)
    both = multinomial_path(X, y, STRENGTHS)
    one = logistic_path(X, y == both.classes[1], STRENGTHS)
    for k in range(len(STRENGTHS)):
        decision = both.decision(X, k)
        np.testing.assert_allclose(
            decision[:, 1] - decision[:, 0], one.decision(X, k)[:, 0], atol=1e-5
        )
    np.testing.assert_allclose(both.alphas, one.alphas)


def test_sparse_and_dense_input_give_the_same_path():
    X, y = labelled()
    X[:, 0] += 2
    path, other = multinomial_path(X, y, STRENGTHS), multinomial_path(sp.csr_array(X), y, STRENGTHS)
    for k in range(len(STRENGTHS)):
        a, b = path.standardised(k).toarray(), other.standardised(k).toarray()
        np.testing.assert_allclose(a, b, atol=1e-6)
        np.testing.assert_allclose(path.intercepts(k), other.intercepts(k), atol=1e-5)


def test_input_is_checked_and_what_is_not_certified_said():
    X, y = labelled()
    with pytest.raises(InputError, match="nothing to tell apart"):
        multinomial_path(X, np.full(300, "a"))
    with pytest.raises(MismatchError, match=r"y must have shape \(300,\)"):
        multinomial_path(X, y[1:])
    with pytest.raises(InputError, match="must be positive"):
        multinomial_path(X, y, tol=0)
    with pytest.raises(MismatchError, match="29 columns"):
        multinomial_path(X, y, [0.5]).decision(X[:, 1:], 0)
    with pytest.warns(ConvergenceWarning, match="are not certified"):
        assert not multinomial_path(X, y, [0.01], max_iter=1).converged.any()

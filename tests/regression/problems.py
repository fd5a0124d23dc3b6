"""Data that look like pooled codes of sparse autoencoders, and reference formulas."""

from concurrent.futures import Future

import numpy as np


def codes(n=400, p=40, q=8, seed=0, topics=6):
    """Mean-pooled sparse codes (n, p) that fire by topic, and codes (n, q) computed from them."""
    rng = np.random.default_rng(seed)
    rate = rng.dirichlet(np.full(topics, 0.2), size=n) @ (0.1 + rng.gamma(0.3, 1, size=(topics, p)))
    weights = (rng.random((p, q)) < 0.15) * rng.normal(0.6, 1, size=(p, q))
    X, Y = np.zeros((n, p)), np.zeros((n, q))
    for _ in range(8):  # positions
        token = (rng.random((n, p)) < 1 - np.exp(-0.2 * rate)) * rng.gamma(2, 0.5, size=(n, p))
        X += token / 8
        Y += np.maximum(token @ weights + 0.3 * rng.normal(size=(n, q)) - 0.3, 0) / 8
    return X, Y


def standardised(X):
    return (X - X.mean(axis=0)) / X.std(axis=0)


def objective(X, Y, B, alphas):
    """Lasso objective per target, from the data."""
    return ((Y - X @ B) ** 2).mean(axis=0) / 2 + alphas * np.abs(B).sum(axis=0)


def nothing_compiled():
    """Stand in for the compiler where numba is not installed."""
    future = Future()
    future.set_result(None)
    return future, 0.0

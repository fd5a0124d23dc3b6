"""Are the edges right? Planted sparse graphs of 20 sites, and what the lasso finds of them.

    OMP_NUM_THREADS=1 python benchmarks/recovery.py

Every site has 5 features, which read on average 2 features of earlier sites: coefficients of size
0.5 to 1.5 and either sign, plus normal noise of 5 % to 20 % of the standard deviation, and for the
kind `relu` what is below 0 is cut off. The first two sites are independent, and sparse. Every site
is regressed on all earlier ones, as CircuitLasso does for components; an edge is a coefficient of
one feature on another that is not zero, and true if the graph has it.

Columns: precision and recall of the edges at the strength within one standard error of the best
held-out fit (10 folds); the same once more, with adaptive weights from the first (gamma 1); and at
the weakest strength of the first path with no more edges than there are true ones. Means over 3
graphs.
"""

import argparse
from functools import partial, reduce
from operator import add

import numpy as np

from circuit_toolkit.regression import (
    GramStatistics,
    adaptive_weights,
    cross_validate,
    lasso_path,
    one_standard_error,
)

SITES, WIDTH, PARENTS = 20, 5, 2
STRENGTHS = np.geomspace(1, 0.01, 20)


def graph(rng):
    """Draw coefficients (features, features): row source, column target, earlier to later."""
    n = SITES * WIDTH
    B = np.zeros((n, n))
    for target in range(2 * WIDTH, n):
        earlier = target // WIDTH * WIDTH
        sources = rng.choice(earlier, rng.integers(1, 2 * PARENTS), replace=False)
        size = rng.uniform(0.5, 1.5, len(sources)) * rng.choice([-1, 1], len(sources))
        B[sources, target] = size
    return B


def values(B, n, noise, kind, rng):
    """Draw activations (n, features) of a graph, scaled site by site so that nothing explodes."""
    X = rng.exponential(size=(n, len(B))) * (rng.random((n, len(B))) < 0.3)
    for target in range(2 * WIDTH, len(B)):
        y = X @ B[:, target]
        y = y / y.std() if y.std() > 0 else y
        y += noise * rng.normal(size=n)
        X[:, target] = np.maximum(y, 0) if kind == "relu" else y
    return X


def score(found, true):
    """Precision and recall of edges."""
    right = np.count_nonzero(found & true)
    return right / max(np.count_nonzero(found), 1), right / np.count_nonzero(true)


def checked(folds, **settings):
    """Fit all rows and choose within one standard error, by targets that vary on every fold."""
    fit = partial(lasso_path, strengths=STRENGTHS, **settings)
    scores = cross_validate(folds, fit)
    usable = np.isfinite(scores).all(axis=(0, 1))
    return fit(reduce(add, folds)), one_standard_error(scores[:, :, usable].mean(axis=2))


def one(n, noise, kind, seed):
    """All measures of one graph."""
    rng = np.random.default_rng(seed)
    B = graph(rng)
    X, true = values(B, n, noise, kind, rng), B != 0
    labels = rng.permutation(n) % 10
    names = ("standard error", "adaptive", "budget")
    found = {name: np.zeros_like(true) for name in names}
    for site in range(2, SITES):
        here = slice(site * WIDTH, (site + 1) * WIDTH)
        Xs, Ys = X[:, : here.start], X[:, here]
        parts = [labels == fold for fold in range(10)]
        folds = [GramStatistics.from_arrays(Xs[some], Ys[some]).standardised() for some in parts]
        path, chosen = checked(folds)
        again, best = checked(folds, weights=adaptive_weights(path, chosen))
        sizes = np.array([b.nnz for b in path.coefficients])
        budget = np.flatnonzero(sizes <= np.count_nonzero(true[:, here]))[-1]
        for name, edges in (
            ("standard error", path.coefficients[chosen] != 0),
            ("adaptive", again.coefficients[best] != 0),
            ("budget", path.coefficients[budget] != 0),
        ):
            found[name][: here.start, here] = edges.toarray()
    return [x for name in names for x in score(found[name], true)]


def main():
    """Print a row for each kind, noise and number of rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--graphs", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="*", default=[100, 300, 1000, 3000])
    chosen = parser.parse_args()
    print("| kind, noise | rows | one standard error: precision, recall | adaptive | budget |")
    print("|---|---|---|---|---|")
    for kind in ("linear", "relu"):
        for noise in (0.05, 0.1, 0.2):
            for n in chosen.rows:
                each = [one(n, noise, kind, seed) for seed in range(chosen.graphs)]
                scores = np.mean(each, axis=0)
                pairs = zip(scores[::2], scores[1::2], strict=True)
                cells = [f"{kind}, {noise:.0%}", str(n), *(f"{a:.2f}, {b:.2f}" for a, b in pairs)]
                print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()

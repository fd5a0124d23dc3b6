"""The lasso engine against other solvers, on problems of the shape that circuits have.

    OMP_NUM_THREADS=1 python benchmarks/lasso.py              # all rows; about 25 minutes
    OMP_NUM_THREADS=2 python benchmarks/lasso.py
    OMP_NUM_THREADS=1 python benchmarks/lasso.py wide small --repeats 1

One row of sources X serves many targets. X is sparse and not negative: its non-zeros are drawn from
an exponential distribution, at random places. A target is X times planted normal coefficients
of a few sources, plus normal noise, and is dense. Without intercept; `alpha` is a share of the
smallest penalty at which a target has no sources.

Every solver must reach the same certificate: no optimality condition violated by more than 1e-4 of
alpha_max, which is checked on the data and printed. Of a list of tolerances the loosest that gets
there is timed. Times are CPU seconds (`time.process_time`), the median of the repeats, all solvers
in one run; those of other solvers are for targets one after the other, which is how they work, and
where a problem has many targets they are measured on some and scaled up (the column `of`). Ours are
for statistics and solution of all of them.

Other solvers that are not installed are left out, by name. skglm is there for the tests. To have
celer and adelie beside this environment (adelie wants matplotlib and what that needs, too):

    python -m pip install --no-deps --target FOLDER celer adelie
    PYTHONPATH=FOLDER python benchmarks/lasso.py
"""

import argparse
import importlib.util
import os
import statistics
import time
import warnings

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.regression import GramStatistics, lasso_path
from circuit_toolkit.regression.compiled import kernels

WANTED = 1e-4
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
PATH = np.geomspace(1, 0.01, 50)
# name: rows, sources, density, targets, strengths, planted sources, noise, targets for others
ROWS = {
    "many": (20_000, 4_096, 0.01, 2_048, [0.1], 10, 0.1, 64),
    "many, path": (20_000, 4_096, 0.01, 2_048, PATH, 10, 0.1, 4),
    "wide": (2_000, 5_000, 0.02, 500, [0.02], 20, 0.1, 100),
    "weak": (4_096, 6_000, 0.05, 16, [0.01], 50, 0.3, 16),
    "small": (4_096, 2_048, 0.05, 32, [0.05], 8, 0.1, 32),
    "samples": (1_000_000, 4_096, 0.01, 512, [0.1], 10, 0.1, 2),
}


def design(n, p, density, rng):
    """Draw sparse sources that are not negative (n, p), by columns."""
    draw = lambda size: rng.exponential(size=size)  # noqa: E731
    return sp.random_array((n, p), density=density, rng=rng, data_sampler=draw, format="csc")


def planted(p, q, count, rng):
    """Draw coefficients (p, q), `count` for each target."""
    rows = np.concatenate([rng.choice(p, count, replace=False) for _ in range(q)])
    columns = np.repeat(np.arange(q), count)
    return sp.csc_array((rng.normal(size=count * q), (rows, columns)), shape=(p, q))


def responses(X, B, noise, rng):
    """Targets (n, q) in order of columns, as other solvers like them."""
    Y = np.asfortranarray((X @ B).toarray())
    return Y + noise * Y.std(axis=0) * rng.standard_normal(Y.shape[::-1]).T


def violation(X, Y, B, alphas, alpha_max):
    """Largest violation of the optimality conditions over alpha_max, from the data."""
    pull = X.T @ (Y - X @ B) / X.shape[0]
    wrong = np.where(B != 0, np.abs(pull - alphas * np.sign(B)), np.abs(pull) - alphas)
    return float((wrong.max(axis=0) / alpha_max).max())


def sklearn(X, y, alphas, tol):
    """Scikit-learn on sparse columns."""
    from sklearn.linear_model import Lasso, lasso_path

    if len(alphas) == 1:
        model = Lasso(alphas[0], fit_intercept=False, tol=tol, max_iter=10**6)
        return model.fit(X, y).coef_[:, None]
    return lasso_path(X, y, alphas=alphas, tol=tol, max_iter=10**6)[1]


def celer(X, y, alphas, tol):
    """Celer: working sets and extrapolation in the dual."""
    from celer import celer_path

    return celer_path(X, y, pb="lasso", alphas=alphas, tol=tol, max_iter=1000)[1]


def skglm(X, y, alphas, tol):
    """Skglm: working sets and Anderson acceleration."""
    from skglm import Lasso

    model = Lasso(fit_intercept=False, tol=tol, warm_start=True, max_iter=1000)
    found = []
    for alpha in alphas:
        model.alpha = alpha
        found.append(model.fit(X, y).coef_)
    return np.array(found).T


def adelie(X, y, alphas, tol):
    """Adelie: block coordinate descent in C++ for group lassos, here of single sources."""
    import adelie as ad

    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    matrix = ad.matrix.sparse(sp.csc_matrix(X), method="naive", n_threads=threads)
    path = {"lmda_path": alphas, "early_exit": False, "adev_tol": 1, "ddev_tol": 0}
    settings = {"intercept": False, "tol": tol, "progress_bar": False, "n_threads": threads}
    return ad.grpnet(matrix, ad.glm.gaussian(y), **path, **settings).betas.toarray().T


OTHERS = {"scikit-learn": sklearn, "celer": celer, "skglm": skglm, "adelie": adelie}


def others(X, Y, strengths, repeats):
    """CPU seconds a target, non-zeros and violation of each other solver."""
    alpha_max = np.abs(X.T @ Y).max(axis=0) / len(Y)
    for name, solver in OTHERS.items():
        if importlib.util.find_spec(name.replace("scikit-learn", "sklearn")) is None:
            print(f"| {name} is not installed |")
            continue
        solver(X[:200], np.ascontiguousarray(Y[:200, 0]), alpha_max[:1], 1e-2)  # compiles
        for tol in TOLERANCES:
            times, worst, count = [], 0.0, 0
            for repeat in range(repeats):
                begun = time.process_time()
                found = [
                    solver(X, np.ascontiguousarray(Y[:, j]), strengths * alpha_max[j], tol)
                    for j in range(Y.shape[1])
                ]
                times.append(time.process_time() - begun)
                if repeat == 0:
                    for k, strength in enumerate(strengths):
                        B = np.stack([b[:, k] for b in found], axis=1)
                        alphas = strength * alpha_max
                        worst = max(worst, violation(X, Y, B, alphas, alpha_max))
                        count = np.count_nonzero(B) / Y.shape[1]
                    if worst > WANTED:
                        break
            if worst <= WANTED:
                yield name, statistics.median(times) / Y.shape[1], count, worst
                break


def ours(X, Y, strengths, repeats):
    """CPU seconds for statistics and for solutions, non-zeros, and violation."""
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        stats = GramStatistics.from_arrays(X, Y)
        between = time.process_time()
        path = lasso_path(stats, strengths, tol=WANTED)
        times.append((between - begun, time.process_time() - between))
    assert path.converged.all()
    some = slice(0, 64)
    worst = max(
        violation(X, Y[:, some], b[:, some].toarray(), alphas[some], path.alphas[0, some] / first)
        for b, alphas, first in zip(
            path.coefficients, path.alphas, [path.strengths[0]] * len(strengths), strict=True
        )
    )
    return np.median(times, axis=0), path.coefficients[-1].nnz / Y.shape[1], worst


def row(name, repeats):
    """Print one problem."""
    n, p, density, q, strengths, count, noise, few = ROWS[name]
    strengths, rng = np.asarray(strengths, float), np.random.default_rng(0)
    X = design(n, p, density, rng)
    Y = responses(X, planted(p, q, count, rng), noise, rng)
    (statistic, solution), size, worst = ours(X, Y, strengths, repeats)
    whole = statistic + solution
    print(
        f"| {name} | ours | {q} | {whole:.3g} ({statistic:.3g} + {solution:.3g}) | "
        f"{size:.4g} | {worst:.0e} | |",
        flush=True,
    )
    for solver, seconds, size, worst in others(X, Y[:, :few], strengths, repeats):
        seconds *= q
        print(
            f"| {name} | {solver} | {few} | {seconds:.3g} | {size:.4g} | {worst:.0e} | "
            f"{seconds / whole:.1f}x |",
            flush=True,
        )


def samples(repeats):
    """Print what comes after the statistics: a strength, a subset of sources, a fold."""
    n, p, density, q, strengths, count, noise, few = ROWS["samples"]
    rng, parts, kept = np.random.default_rng(0), [], []
    B, chunk = planted(p, q, count, rng), n // 20
    begun = time.process_time()
    for part in range(20):
        X = design(chunk, p, density, rng)
        Y = responses(X, B, noise, rng)
        kept.append((X, Y[:, :few].copy()))
        begun = time.process_time()
        stats = GramStatistics.from_arrays(X, Y)
        parts.append(time.process_time() - begun)
        if part == 0:
            fold = total = stats
        else:
            total = total + stats
    X = sp.csc_array(sp.vstack([x for x, _ in kept]))
    Y = np.concatenate([y for _, y in kept])
    del kept
    refit = {name: s * q for name, s, *_ in others(X, Y, np.array(strengths), 1)}
    fastest = min(refit, key=refit.__getitem__)
    print(f"| samples | statistics | {q} | {sum(parts):.3g} | | | |")
    print(f"| samples | refit by {fastest} | {few} | {refit[fastest]:.3g} | | | |")
    layers = np.arange(p // 2)
    tasks = {
        "a new strength": lambda: lasso_path(total, strengths, tol=WANTED),
        "half of the sources": lambda: lasso_path(total.select(x=layers), strengths, tol=WANTED),
        "one more fold": lambda: lasso_path(total + fold, strengths, tol=WANTED),
    }
    for name, task in tasks.items():
        times = []
        for _ in range(repeats):
            begun = time.process_time()
            task()
            times.append(time.process_time() - begun)
        spent = statistics.median(times)
        print(
            f"| samples | {name} | {q} | {spent:.3g} | | | {refit[fastest] / spent:.0f}x |",
            flush=True,
        )


def main():
    """Run the rows asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; by default all")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")  # solvers that stop too early say so; we measure it
    if importlib.util.find_spec("numba"):
        while kernels(wait=True) is None:
            pass
    print(f"compiled: {kernels() is not None}, threads: {os.environ.get('OMP_NUM_THREADS')}")
    print("| problem | solver | of | CPU s | non-zeros | violation | ours is |")
    print("|---|---|---|---|---|---|---|")
    for name in chosen.rows or ROWS:
        if name == "samples":
            samples(chosen.repeats)
        else:
            row(name, chosen.repeats)


if __name__ == "__main__":
    main()

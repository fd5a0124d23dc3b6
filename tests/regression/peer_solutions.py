"""Solutions of another lasso solver, from a process of its own: nnsight gives every object a method
`save`, which numba's classes do not bear.

`python -m tests.regression.peer_solutions NAME FOLDER` reads X, Y (n, q) and alphas (k, q) from
FOLDER/problem.npz and writes coefficients (k, q, p), without intercept, to FOLDER/NAME.npy.
"""

import importlib
import sys
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse as sp


def main(name, folder):
    problem = np.load(folder / "problem.npz")
    solver, X = importlib.import_module(name).Lasso, sp.csc_array(problem["X"])
    settings = {"fit_intercept": False, "tol": 1e-12, "max_iter": 10**4}
    Y = np.ascontiguousarray(problem["Y"].T)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where it stops early, its objective is a bound still
        found = [
            [solver(alpha, **settings).fit(X, y).coef_ for alpha, y in zip(row, Y, strict=True)]
            for row in problem["alphas"]
        ]
    np.save(folder / f"{name}.npy", np.array(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

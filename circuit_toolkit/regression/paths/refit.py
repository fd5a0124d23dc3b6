"""Fit a lasso's support again, without its penalty."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.regression.paths.lasso import LassoPath

_RIDGE = 1e-6  # in correlation units: keeps sources that are copies apart


def refit(path: LassoPath, index: int) -> tuple[sp.csc_array, np.ndarray]:
    """Fit the coefficients on the support of a lasso again, without its penalty.

    The penalty pulls coefficients towards zero; least squares on the support has no such bias, but
    for a ridge of 1e-6 in correlation units, which keeps sources that are copies apart.

    Parameters
    ----------
    path : LassoPath
        The path.
    index : int
        Point of it.

    Returns
    -------
    tuple of csc_array (p, q) and ndarray (q,)
        Coefficients in the unit of the data, zero where the lasso is, and intercepts; zeros where
        the path was fitted on raw statistics.
    """
    stats, found = path.stats, path.coefficients[index].copy()
    raw = stats.form == "raw"
    unit = np.sqrt(stats.xx.diagonal() + stats.mean_x**2) if raw else stats.scale_x
    for j in range(found.shape[1]):
        here = slice(found.indptr[j], found.indptr[j + 1])
        rows = found.indices[here]
        if len(rows):
            G, c = stats.xx[np.ix_(rows, rows)], stats.xy[rows, j]
            if raw:
                G = G + np.outer(stats.mean_x[rows], stats.mean_x[rows])
                c = c + stats.mean_x[rows] * stats.mean_y[j]
            G = G / np.outer(unit[rows], unit[rows]) + _RIDGE * np.eye(len(rows))
            found.data[here] = np.linalg.solve(G, c / unit[rows]) / unit[rows]
    return found, stats.intercepts(found)

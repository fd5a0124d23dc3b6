"""Which strength to look at: by held-out fit, within a standard error of it, or by edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from circuit_toolkit.errors import InputError
from circuit_toolkit.regression.paths.lasso import LassoPath, lasso_path
from circuit_toolkit.regression.statistics.folds import Folds


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """A path on all rows, and how well paths on all folds but one do on that one.

    Parameters
    ----------
    path : LassoPath
        Fitted on all rows.
    held_out : ndarray, shape (folds, k, q)
        Share of variance explained on each fold by the fit on the others.
    """

    path: LassoPath
    held_out: np.ndarray

    def scores(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the held-out fit at each strength, and its standard error over folds: (k,), (k,).

        Of all targets together: their mean, without those that are constant on some fold.

        Returns
        -------
        tuple of ndarray (k,) and ndarray (k,)
        """
        usable = np.isfinite(self.held_out).all(axis=(0, 1))
        if not usable.any():
            raise InputError("Every target is constant on some fold: use fewer folds.")
        fold = self.held_out[:, :, usable].mean(axis=2)  # (folds, k)
        return fold.mean(axis=0), fold.std(axis=0, ddof=1) / np.sqrt(len(fold))

    def best(self) -> int:
        """Index of the strength with the best held-out fit.

        Returns
        -------
        int
        """
        return int(self.scores()[0].argmax())

    def one_standard_error(self) -> int:
        """Index of the greatest strength whose fit is within a standard error of the best.

        Returns
        -------
        int
        """
        mean, error = self.scores()
        best = mean.argmax()
        return int(np.flatnonzero(mean >= mean[best] - error[best])[0])


def cross_validate(
    folds: Folds, strengths: np.ndarray | list[float] | None = None, **settings: Any
) -> CrossValidation:
    """Fit on all folds but one, test on that one, for every fold; rows are not needed.

    Parameters
    ----------
    folds : Folds
        At least two, in the form to fit.
    strengths : array of shape (k,), optional
        As in `lasso_path`; shares of the alpha_max of each fit.
    **settings
        Further settings of `lasso_path`.

    Returns
    -------
    CrossValidation

    Raises
    ------
    InputError
        If there is one fold only.
    """
    if len(folds) < 2:
        raise InputError("Cross-validation needs at least two folds.")
    held_out = [
        lasso_path(folds.without(each), strengths, **settings).held_out_r2(part)
        for each, part in enumerate(folds.parts)
    ]
    return CrossValidation(lasso_path(folds.total(), strengths, **settings), np.array(held_out))


def edge_budget(path: LassoPath, edges: int) -> int:
    """Choose the weakest strength with at most so many edges; counts need not rise all the way.

    Parameters
    ----------
    path : LassoPath
        From strong to weak.
    edges : int
        Coefficients that are not zero, of all targets together.

    Returns
    -------
    int
        Index of the strength.

    Raises
    ------
    InputError
        If every point of the path has more.
    """
    counts = np.array([b.nnz for b in path.coefficients])
    within = np.flatnonzero(counts <= edges)
    if not len(within):
        raise InputError(
            f"At strength {path.strengths[0]:.3g} there are {counts[0]} edges, more than {edges}. "
            "Fit stronger penalties too."
        )
    return int(within[-1])

"""What all paths hold: a solution at each strength, with its certificate."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.regression.certificate import ConvergenceWarning
from circuit_toolkit.regression.settings import check_strengths


@dataclass(frozen=True, eq=False)
class Path:
    """Solutions of p sources and q targets at falling strengths."""

    strengths: np.ndarray
    alphas: np.ndarray
    coefficients: tuple[sp.csc_array, ...]
    gap: np.ndarray
    kkt: np.ndarray
    converged: np.ndarray

    def __repr__(self) -> str:
        """Sizes and the certificate: the arrays are too large to print."""
        p, q = self.coefficients[0].shape  # type: ignore[misc]  # the stub says it may be None
        return (
            f"{type(self).__name__}({len(self.strengths)} strengths {self.strengths[0]:.3g} to "
            f"{self.strengths[-1]:.3g}, sources={p}, targets={q}, "
            f"certified={self.converged.mean() if q else 1:.0%})"
        )

    def at(self, strength: float) -> int:
        """Index of the stored point nearest to a strength, on a logarithmic scale.

        Parameters
        ----------
        strength : float
            Share of alpha_max, in (0, 1].

        Returns
        -------
        int
            Into the first axis of everything the path holds.

        Raises
        ------
        InputError
            If the strength is not in (0, 1].
        """
        (wanted,) = check_strengths([strength])
        tiny = np.finfo(float).tiny  # strengths are 0 where nothing pulls, whatever the penalty
        return int(np.abs(np.log(np.maximum(self.strengths, tiny) / wanted)).argmin())


def warn_of(converged: np.ndarray, what: str, worst: str, tol: float) -> None:
    """Warn the caller of a public function, once, of solutions that are not certified."""
    if not converged.all():
        warnings.warn(
            f"{np.count_nonzero(~converged)} of {converged.size} {what} are not certified "
            f"(largest {worst}, tolerance {tol:.1e}). See path.converged; raise max_iter, or drop "
            "sources that are nearly copies.",
            ConvergenceWarning,
            stacklevel=4,
        )

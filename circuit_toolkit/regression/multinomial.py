"""Sparse multinomial regression paths for a label of several classes, each point certified.

The loss is the mean of -log of the softmax probability of the right class. Classes take turns: for
one of them the loss is replaced by its quadratic model and the lasso that results is solved exactly
(Friedman, Hastie and Tibshirani, 2010), with a line search, so every turn descends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.regression.active_set import active_set
from circuit_toolkit.regression.certificate import violation
from circuit_toolkit.regression.label_path import LabelPath, check_settings, fit, plain, row_shares
from circuit_toolkit.regression.label_problem import CLASSES, Problem, Sources
from circuit_toolkit.regression.matrices import as_matrix
from circuit_toolkit.regression.newton import INNER_STEPS
from circuit_toolkit.regression.settings import check_weights

_EXACT = 1e-7  # violation at which the solver stops, over the strength and the largest slope


@dataclass(frozen=True, eq=False)
class MultinomialPath(LabelPath):
    """Sparse multinomial regressions of one label with K classes at k strengths.

    The objective is `mean(-log p(class)) + alpha (l1_ratio w.|B| + (1 - l1_ratio) |B|^2 / 2)` with
    p the softmax of K decision values, on columns divided by their standard deviation, with the
    intercepts free. A path keeps no rows, so unlike a `LassoPath` it has no `solve`: for another
    strength call `multinomial_path` again.

    Parameters
    ----------
    strengths : ndarray, shape (k,)
        Decreasing; alpha as a share of the smallest that gives no sources.
    alphas : ndarray, shape (k,)
        Penalties in scikit-learn's scale, `1 / (C n)`, for columns in standard deviations.
    coefficients : tuple of k csc_array, shape (p, K)
        In the unit of the data; zeros are exact. `intercepts` goes with them, `standardised` gives
        them per standard deviation of a source.
    constants : ndarray, shape (k, K)
        What `intercepts` gives; their sum over classes is 0.
    gap : ndarray, shape (k,)
        Duality gap over the objective of the model without sources: the objective is at most this
        far from its optimum.
    kkt : ndarray, shape (k,)
        Largest violation of the optimality conditions, those of the intercepts among them, in the
        unit of alpha.
    converged : ndarray of bool, shape (k,)
        Whether the gap, whatever its sign, is within the tolerance. Never read coefficients where
        it is false.
    train_accuracy : ndarray, shape (k,)
        Share of training rows whose class has the largest decision value.
    scale_x : ndarray, shape (p,)
        Standard deviations of the training columns.
    classes : ndarray, shape (K,)
        In the order of the columns.
    """

    classes: np.ndarray

    def _numbers(self, y: Any, rows: int) -> np.ndarray:
        labels = _as_labels(y, rows)
        texts = [each.dtype.kind in "US" for each in (labels, self.classes)]
        if texts[0] != texts[1]:
            raise MismatchError(
                f"y holds {labels.dtype} and the path was fitted on {self.classes.dtype}. Give "
                "labels of one kind."
            )
        wanted = labels[:, None] == self.classes
        return np.where(wanted.any(axis=1), wanted.argmax(axis=1), -1)


def multinomial_path(
    X: object,
    y: Any,
    strengths: np.ndarray | list[float] | None = None,
    tol: float = 1e-6,
    *,
    alphas: np.ndarray | list[float] | None = None,
    weights: np.ndarray | None = None,
    l1_ratio: float = 1.0,
    sample_weights: object | None = None,
    max_iter: int = 200,
) -> MultinomialPath:
    """Fit sparse multinomial regressions, warm-started from strong to weak penalties.

    There is no `positive`: only differences between classes count, so the sign of one coefficient
    says nothing.

    Parameters
    ----------
    X : array, scipy.sparse matrix or Tensor, shape (n, p)
        Source activations. Sparse input stays sparse, but for columns that are not zero in more
        than half of the rows. Constant columns get no coefficients.
    y : array, shape (n,)
        Labels of any kind that sorts, two or more of them present and none missing.
    strengths : array of shape (k,), optional
        Penalties as shares of alpha_max, in (0, 1]; by default 30 from 1 to 0.01.
    tol : float, default 1e-6
        Duality gap, as a share of the objective without sources, that counts as converged.
    alphas : array of shape (k,), optional
        Instead of strengths: penalties as scikit-learn means them, `1 / (C n)` (with
        sample_weights their sum instead of n), positive.
    weights : array of shape (p,) or (p, K), optional
        What the penalty of each source is multiplied with, positive; infinite for a source that
        must not enter. By default ones.
    l1_ratio : float, default 1
        Share of the penalty that is on absolute values, in (0, 1]; the rest is on half the
        squares (elastic net, as in scikit-learn).
    sample_weights : array of shape (n,), optional
        What the loss of each row is multiplied with, not negative; their size does not matter. A
        row of weight 2 counts like two rows, also in standard deviations. By default ones.
    max_iter : int, default 200
        Most rounds through the classes per strength.

    Returns
    -------
    MultinomialPath
        With a certificate for every strength.

    Raises
    ------
    InputError
        If values are not finite, labels are missing or of one class, or settings out of range.
    MismatchError
        If X, y, weights and sample_weights do not fit each other.

    Warns
    -----
    ConvergenceWarning
        Once, if some solutions are not certified.
    """
    check_settings(tol, max_iter, l1_ratio, strengths is not None and alphas is not None)
    matrix = as_matrix("X", X)
    labels = _as_labels(y, matrix.shape[0])
    share = row_shares(sample_weights, len(labels))
    classes = np.unique(labels[share > 0])
    if len(classes) < 2:
        raise InputError(f"All labels are {classes[0]!r}: nothing to tell apart.")
    wanted = (labels[:, None] == classes).astype(float)  # (n, K); zeros in rows without weight
    w = l1_ratio * check_weights(weights, matrix.shape[1], len(classes))
    Z = Sources.of(matrix, share)
    problem = Problem(Z, wanted, share, w, 1 - l1_ratio, False, CLASSES)
    points = fit(problem, _solve, _EXACT, strengths, alphas, tol, max_iter)
    free = points["constants"]
    points["constants"] = free - free.mean(axis=1, keepdims=True)
    return MultinomialPath(**points, classes=classes)


def _as_labels(y: Any, rows: int) -> np.ndarray:
    """Labels of any kind, shape (rows,), of which none is missing."""
    given = plain(y)
    labels = np.asarray(given)
    if labels.shape != (rows,):
        raise MismatchError(f"y must have shape ({rows},), one label per row; got {labels.shape}.")
    try:  # before numpy makes the text 'nan' of a missing label
        missing = [each is None or bool(each != each) for each in np.asarray(given, object)]
        np.unique(labels)
    except TypeError as error:
        raise InputError(
            f"y must hold labels of one kind that sorts, none missing; got {error}."
        ) from error
    if any(missing):
        raise InputError(
            f"y has {sum(missing)} missing labels of {rows}, the first in row "
            f"{missing.index(True)}. Drop those rows."
        )
    return labels


def _solve(
    problem: Problem,
    alpha: float,
    previous: float,
    B: np.ndarray,
    b0: np.ndarray,
    tol: float,
    max_iter: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Solve at one strength, from the solution at the one before."""
    Z, share, B = problem.Z, problem.share, B.copy()
    penalties = np.broadcast_to(problem.penalties(alpha), B.shape)
    rule = np.broadcast_to(problem.rule(alpha, previous), B.shape)
    ridge = alpha * problem.l2
    for _ in range(max_iter):
        fitted = Z.times(B)
        b0 = _best_intercepts(problem, fitted, b0)
        decision = fitted + b0
        pull = problem.pull(problem.residual(decision), B, alpha)
        if violation(pull, B, penalties).max(initial=0) <= tol:
            return B, b0
        for c in range(len(b0)):
            residual = problem.residual(decision)[:, c]
            chance = problem.wanted[:, c] - residual
            weights = share * chance * (1 - chance)
            down = Z.back(share * residual) - ridge * B[:, c]
            near = np.flatnonzero((B[:, c] != 0) | (np.abs(down) > rule[:, c]))
            total = weights.sum()
            if not (len(near) and total > 0):
                continue
            some, b = Z.select(near), B[near, c]
            # the intercept of the class follows its coefficients
            H, mixed = some.curvature(weights)
            H.flat[:: len(H) + 1] += ridge
            rest = share @ residual
            slope = down[near] - mixed * rest / total
            goal = active_set(H, H @ b + slope, penalties[near, c], b, tol / 10, INNER_STEPS)
            shift = (rest - mixed @ (goal - b)) / total
            along = some.times(goal - b) + shift
            step = _line_search(problem, decision, c, along, alpha, B, near, goal)
            decision[:, c] += step * along
            B[near, c] = goal if step == 1 else b + step * (goal - b)
            b0 = b0.copy()
            b0[c] += step * shift
    return B, _best_intercepts(problem, Z.times(B), b0)


def _line_search(problem, decision, c, along, alpha, B, near, goal) -> float:
    """Halve the step until the objective does not rise."""
    moved, at = decision.copy(), B.copy()

    def objective(step: float) -> float:
        moved[:, c] = decision[:, c] + step * along
        at[near, c] = B[near, c] + step * (goal - B[near, c])
        return problem.objective(moved, at, alpha)

    now, step = objective(0.0), 1.0
    while step > 1e-8 and objective(step) > now + 1e-15:
        step /= 2
    return step


def _best_intercepts(problem: Problem, fitted: np.ndarray, b0: np.ndarray) -> np.ndarray:
    """Find the intercepts (K,) at which the residuals of every class sum to 0: damped Newton."""
    share, loss = problem.share, problem.mean_loss
    for _ in range(100):
        residual = problem.residual(fitted + b0)
        slope = share @ residual
        if np.abs(slope).max() < 1e-14:
            break
        chance = problem.wanted - residual
        curvature = np.diag(share @ chance) - chance.T @ (chance * share[:, None])
        move = np.linalg.lstsq(curvature, slope, rcond=1e-12)[0]
        now, step = loss(fitted + b0), 1.0
        while step > 1e-8 and loss(fitted + b0 + step * move) > now + 1e-15:
            step /= 2
        if step <= 1e-8:
            break
        b0 = b0 + step * (move - move.mean())
    return b0

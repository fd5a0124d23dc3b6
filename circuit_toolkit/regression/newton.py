"""Proximal Newton for L1-penalised logistic regression at one strength, and its certificate.

Every step replaces the loss by its quadratic model and solves the lasso that results exactly
(Lee, Sun and Saunders, 2014). The intercept is always at its best value for the coefficients.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.special import entr, expit

from circuit_toolkit.regression.active_set import active_set
from circuit_toolkit.regression.certificate import violation
from circuit_toolkit.regression.matrices import Matrix

_INNER_STEPS = 1000  # active-set steps per Newton step


def proximal_newton(
    Z: Matrix,
    labels: np.ndarray,
    alpha: float,
    previous_alpha: float,
    b: np.ndarray,
    b0: float,
    tol: float,
    max_iter: int,
) -> tuple[np.ndarray, float]:
    """Solve at one strength, starting from the solution at the one before.

    Parameters
    ----------
    Z : ndarray or csc_array, shape (n, p)
        Sources over their standard deviations.
    labels : ndarray, shape (n,)
        Zeros and ones, as floats.
    alpha, previous_alpha : float
        Penalty, and the one that b solves; the strong rule compares them.
    b, b0 : ndarray, shape (p,), and float
        Coefficients and intercept to start from.
    tol : float
        Largest violation of the optimality conditions at which to stop.
    max_iter : int
        Most Newton steps.

    Returns
    -------
    tuple of ndarray (p,) and float
        Coefficients and intercept; the caller certifies.
    """
    n = len(labels)
    for _ in range(max_iter):
        decision, b0 = with_best_intercept(Z @ b, labels, b0)
        probability = expit(decision)
        pull = Z.T @ (labels - probability) / n  # (p,) slope of the log-likelihood
        if violation(pull, b, alpha) <= tol:
            break
        near = np.flatnonzero((b != 0) | (np.abs(pull) > 2 * alpha - previous_alpha))
        H = hessian(Z[:, near], probability * (1 - probability) / n)  # (w, w)
        c = H @ b[near] + pull[near]
        target = b.copy()
        target[near] = active_set(H, c, alpha, b[near], tol / 10, _INNER_STEPS)
        b = _line_search(Z, labels, alpha, b, b0, target - b, pull)
    return b, with_best_intercept(Z @ b, labels, b0)[1]


def hessian(Z: Matrix, weights: np.ndarray) -> np.ndarray:
    """Curvature in the coefficients (w, w) once the intercept follows them."""
    root = np.sqrt(weights)
    if isinstance(Z, np.ndarray):
        scaled = Z * root[:, None]
        raw = scaled.T @ scaled
    else:
        scaled = sp.diags_array(root) @ Z
        raw = (scaled.T @ scaled).toarray()
    mixed = Z.T @ weights  # (w,) with the intercept
    return raw - np.outer(mixed, mixed) / weights.sum()


def _line_search(
    Z: Matrix,
    labels: np.ndarray,
    alpha: float,
    b: np.ndarray,
    b0: float,
    move: np.ndarray,
    pull: np.ndarray,
) -> np.ndarray:
    """Halve the step until the objective falls by a share of what the model promises."""
    before, along = Z @ b, Z @ move

    def objective(step: float) -> float:
        decision, _ = with_best_intercept(before + step * along, labels, b0)
        return _loss(decision, labels) + alpha * np.abs(b + step * move).sum()

    now = objective(0)
    promised = alpha * (np.abs(b + move).sum() - np.abs(b).sum()) - pull @ move  # negative
    step = 1.0
    while step > 1e-8 and objective(step) > now + 1e-4 * step * promised + 1e-14:
        step /= 2
    return b + step * move


def with_best_intercept(
    decision: np.ndarray, labels: np.ndarray, b0: float
) -> tuple[np.ndarray, float]:
    """Add the intercept that makes the residuals sum to zero: Newton, kept inside a bracket."""
    share = labels.mean()
    centre = float(np.log(share / (1 - share)))  # were all decisions equal, they would be this
    low, high = centre - float(decision.max()), centre - float(decision.min())
    b0 = min(max(b0, low), high)
    for _ in range(100):
        probability = expit(decision + b0)
        slope = float((labels - probability).mean())  # falls as b0 grows
        if abs(slope) < 1e-15:
            break
        low, high = (b0, high) if slope > 0 else (low, b0)
        curvature = float((probability * (1 - probability)).mean())
        new = b0 + slope / max(curvature, 1e-300)
        if not low < new < high:
            new = (low + high) / 2
        if new == b0:
            break
        b0 = new
    return decision + b0, b0


def _loss(decision: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0, decision) - labels * decision))


def logistic_certificate(
    Z: Matrix, labels: np.ndarray, b: np.ndarray, b0: float, alpha: float
) -> tuple[float, float]:
    """Duality gap, and largest violation of the optimality conditions.

    The dual value is the mean entropy of probabilities pulled towards the labels until no
    source correlates with their residual by more than alpha.
    """
    decision = Z @ b + b0
    residual = labels - expit(decision)
    pull = Z.T @ residual / len(labels)
    largest = np.abs(pull).max(initial=0)
    shrink = min(1.0, alpha / largest) if largest > 0 else 1.0
    probability = np.clip(labels - shrink * residual, 0, 1)
    dual = float(np.mean(entr(probability) + entr(1 - probability)))
    return _loss(decision, labels) + alpha * np.abs(b).sum() - dual, float(
        violation(pull, b, alpha)
    )

"""Proximal Newton for sparse logistic regression at one strength.

Every step replaces the loss by its quadratic model and solves the lasso that results exactly
(Lee, Sun and Saunders, 2014). The intercept is always at its best value for the coefficients.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from circuit_toolkit.regression.certificate import violation
from circuit_toolkit.regression.labels.label_problem import Problem
from circuit_toolkit.regression.solvers.active_set import active_set

INNER_STEPS = 1000  # active-set steps per Newton step


def proximal_newton(
    problem: Problem,
    alpha: float,
    previous: float,
    B: np.ndarray,
    b0: np.ndarray,
    tol: float,
    max_iter: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Solve at one strength, starting from the solution at the one before."""
    Z, penalties = problem.Z, problem.penalties(alpha)
    labels, rule = problem.wanted[:, 0], problem.rule(alpha, previous)
    for _ in range(max_iter):
        fitted = Z.times(B)  # (n, 1)
        b0 = best_intercept(fitted, labels, problem.share, b0)
        decision = fitted + b0
        pull = problem.pull(problem.residual(decision), B, alpha)
        if violation(pull, B, penalties, problem.positive).max(initial=0) <= tol:
            return B, b0
        near = np.flatnonzero(((B != 0) | (problem.size(pull) > rule))[:, 0])
        probability = expit(decision[:, 0])
        H, _ = Z.select(near).curvature(probability * (1 - probability) * problem.share)
        H.flat[:: len(H) + 1] += alpha * problem.l2
        b, target = B[near, 0], B.copy()
        target[near, 0] = active_set(
            H, H @ b + pull[near, 0], penalties[near, 0], b, tol / 10, INNER_STEPS, problem.positive
        )
        B = _line_search(problem, alpha, B, b0, target, pull)
    return B, best_intercept(Z.times(B), labels, problem.share, b0)


def _line_search(
    problem: Problem,
    alpha: float,
    B: np.ndarray,
    b0: np.ndarray,
    target: np.ndarray,
    pull: np.ndarray,
) -> np.ndarray:
    """Halve the step until the objective falls by a share of what the model promises."""
    labels, share, move = problem.wanted[:, 0], problem.share, target - B
    before, along = problem.Z.times(B), problem.Z.times(move)

    def objective(step: float) -> float:
        fitted = before + step * along
        decision = fitted + best_intercept(fitted, labels, share, b0)
        return problem.objective(decision, B + step * move, alpha)

    now = objective(0)
    rise = problem.absolute(target) - problem.absolute(B)
    promised = alpha * rise - float((pull * move).sum())  # negative
    step = 1.0
    while step > 1e-8 and objective(step) > now + 1e-4 * step * promised + 1e-14:
        step /= 2
    return target if step == 1 else B + step * move


def best_intercept(
    fitted: np.ndarray, labels: np.ndarray, share: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Find the intercept at which the residuals sum to zero: Newton, kept inside a bracket."""
    f, ones = fitted[:, 0], share @ labels
    centre = np.log(ones / (1 - ones))  # were all decisions equal, they would be this
    low, high = centre - f.max(), centre - f.min()
    b0 = min(max(start[0], low), high)
    for _ in range(100):
        probability = expit(f + b0)
        slope = share @ (labels - probability)  # falls as b0 grows
        if abs(slope) < 1e-15:
            break
        low, high = (b0, high) if slope > 0 else (low, b0)
        curvature = share @ (probability * (1 - probability))
        new = b0 + slope / max(curvature, 1e-300)
        if not low < new < high:
            new = (low + high) / 2
        if new == b0:
            break
        b0 = new
    return np.array([b0])

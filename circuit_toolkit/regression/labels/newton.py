"""Proximal Newton for sparse logistic regression at one strength.

Every step replaces the loss by its quadratic model and solves the lasso that results exactly
(Lee, Sun and Saunders, 2014). The intercept is always at its best value for the coefficients.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from circuit_toolkit.regression.certificate import violation
from circuit_toolkit.regression.labels.problem import Problem
from circuit_toolkit.regression.solvers.active_set import active_set

INNER_STEPS = 1000  # active-set steps per Newton step


def proximal_newton(
    problem: Problem,
    alpha: float,
    previous: float,
    b: np.ndarray,
    b0: float,
    tol: float,
    max_iter: int,
) -> tuple[np.ndarray, float]:
    """Solve at one strength, starting from the solution (p,) and intercept at the one before."""
    Z, penalties = problem.Z, problem.penalties(alpha)
    # least pull on a zero coefficient that may matter: the strong rule (Tibshirani, 2012)
    rule = problem.penalties(max(2 * alpha - previous, alpha / 2))
    for _ in range(max_iter):
        fitted = Z.times(b)  # (n,)
        b0 = best_intercept(fitted, problem.labels, b0)
        probability = expit(fitted + b0)
        pull = problem.pull(problem.labels - probability)
        if violation(pull, b, penalties) <= tol:
            return b, b0
        near = np.flatnonzero((b != 0) | (np.abs(pull) > rule))
        H = Z.select(near).curvature(probability * (1 - probability) / len(fitted))
        some, target, c = b[near], b.copy(), pull[near]
        target[near] = active_set(H, H @ some + c, penalties[near], some, tol / 10, INNER_STEPS)
        b = _line_search(problem, alpha, b, b0, target, pull)
    return b, best_intercept(Z.times(b), problem.labels, b0)


def _line_search(
    problem: Problem, alpha: float, b: np.ndarray, b0: float, target: np.ndarray, pull: np.ndarray
) -> np.ndarray:
    """Halve the step until the objective falls by a share of what the model promises."""
    move = target - b
    before, along = problem.Z.times(b), problem.Z.times(move)

    def objective(step: float) -> float:
        fitted = before + step * along
        decision = fitted + best_intercept(fitted, problem.labels, b0)
        return problem.objective(decision, b + step * move, alpha)

    now = objective(0)
    rise = problem.absolute(target) - problem.absolute(b)
    promised = alpha * rise - float(pull @ move)  # negative
    step = 1.0
    while step > 1e-8 and objective(step) > now + 1e-4 * step * promised + 1e-14:
        step /= 2
    return target if step == 1 else b + step * move


def best_intercept(f: np.ndarray, labels: np.ndarray, start: float) -> float:
    """Find the intercept at which the residuals sum to zero: Newton, kept inside a bracket."""
    ones = labels.mean()
    centre = np.log(ones / (1 - ones))  # were all decisions equal, they would be this
    low, high = centre - f.max(), centre - f.min()
    b0 = min(max(start, low), high)
    for _ in range(100):
        probability = expit(f + b0)
        slope = (labels - probability).mean()  # falls as b0 grows
        if abs(slope) < 1e-15:
            break
        low, high = (b0, high) if slope > 0 else (low, b0)
        curvature = (probability * (1 - probability)).mean()
        new = b0 + slope / max(curvature, 1e-300)
        if not low < new < high:
            new = (low + high) / 2
        if new == b0:
            break
        b0 = new
    return float(b0)

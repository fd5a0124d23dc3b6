"""The lasso of one target at falling penalties: Newton steps on the optimality conditions.

With pull = c - G b the slope of the squared error, the conditions say for every source: b is zero
and |pull| <= alpha, or it is not and pull = alpha sign(b). A primal-dual active set reads support
and signs off b and pull, solves for that support exactly, and repeats until they stay as they are.
This is a semismooth Newton method (Griesse and Lorenz, 2008): any number of sources enter and leave
in a step, and from a point nearby, as on a path of penalties (Fan, Jiao and Lu, 2014), one to
three steps end at the solution. They need not, so proximal steps (Rockafellar, 1976) and a search
that is sure to descend are in reserve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circuit_toolkit.regression.certificate import summarise, violation
from circuit_toolkit.regression.compiled import kernels
from circuit_toolkit.regression.solvers.active_set import active_set
from circuit_toolkit.regression.statistics.second_moments import SecondMoments

STEPS = 12  # Newton steps at a penalty; a warm start needs one to three
_PROXIMAL = (1e-2, 1e-4)  # curvature lent, in turn, where they do
_WORKING = 2048  # sources at most that a search looks at beside those that violate most


@dataclass(frozen=True, eq=False)
class OneTarget:
    """One target's problem: minimise b.G b / 2 - c.b + alpha (w.|b| + l2 b.b / 2)."""

    gram: SecondMoments
    c: np.ndarray
    w: np.ndarray
    l2: float
    positive: bool
    max_iter: int

    def path(
        self, alphas: np.ndarray, bounds: np.ndarray, start: np.ndarray, last: float
    ) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
        """Solve at every penalty."""
        found: list[tuple[np.ndarray, np.ndarray]] = []
        summary = np.zeros((len(alphas), 6))
        b, slope = start.copy(), np.zeros_like(start)
        while len(found) < len(alphas):
            self._compiled_path(alphas, bounds, b, slope, last, found, summary)
            here = len(found)
            if here == len(alphas):
                break
            if here:  # what the compiled loop left
                last, b = alphas[here - 1], self._dense(*found[-1])
            b, slope = self._at(alphas[here], bounds[here], b, slope, last, summary[here])
            rows = np.flatnonzero(b)
            found.append((rows, b[rows]))
            last = alphas[here]
        return found, summary

    def _compiled_path(self, alphas, bounds, b, slope, last, found, summary) -> None:
        """Go as far as the compiled loop gets."""
        compiled, first = kernels(), len(found)
        if compiled is None or np.count_nonzero(b) > compiled.LIMIT:
            return
        k = len(alphas)
        counts, index = np.zeros(k, np.int64), np.empty((k, compiled.LIMIT), np.int64)
        value = np.empty((k, compiled.LIMIT))
        gram = self.gram
        end = compiled.walk(
            gram.G, gram.shift, gram.scale, self.c, self.w, alphas, bounds, first, last, self.l2,
            self.positive, min(STEPS, self.max_iter), b.copy(), slope.copy(), counts, index, value,
            summary,
        )  # fmt: skip
        for m in range(first, end):
            found.append((index[m, : counts[m]].copy(), value[m, : counts[m]].copy()))

    def _dense(self, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
        b = np.zeros(len(self.c))
        b[rows] = values
        return b

    def _at(self, alpha, bound, b, slope, last, summary) -> tuple[np.ndarray, np.ndarray]:
        """Solve at one penalty, from a solution b at the one before and its slope there."""
        ahead = b + (last - alpha) * slope  # exact until a source enters or leaves
        ahead[ahead * b < 0] = 0
        found = self._newton(alpha, bound, ahead, slope, 0.0, b)
        if found is None:
            b, slope = self._search(alpha, bound, b), np.zeros_like(b)
        else:
            b, slope = found
        pull = self._pull(b, self.l2 * alpha)
        summary[:] = summarise(self.c, pull, b, alpha * self.w, self.w, self.positive)
        return b, slope

    def _pull(self, b: np.ndarray, ridge: float) -> np.ndarray:
        return self.gram.residual(self.c, np.flatnonzero(b), b) - ridge * b

    def _newton(
        self, alpha, bound, b, slope, curvature, centre
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Primal-dual active set, with `curvature |b - centre|^2 / 2` added; None if it fails."""
        ridge, penalties = self.l2 * alpha + curvature, alpha * self.w
        steps, S, solve = min(STEPS, self.max_iter), np.zeros(0, int), None
        for step in range(steps + 1):
            pull = self._pull(b, ridge) + curvature * centre
            if violation(pull, b, penalties, self.positive) <= bound:
                return b, slope
            enters = (pull if self.positive else np.abs(pull)) > penalties
            stays = (b > 0) & (pull > 0) if self.positive else b * pull > 0
            wanted = np.flatnonzero(np.where(b != 0, stays, enters))
            if step == steps or not len(wanted):
                return None
            signs = np.sign(pull[wanted])
            if not np.array_equal(wanted, S):
                S, solve = wanted, self.gram.solver(wanted, ridge)
                if solve is None:
                    return None
            assert solve is not None
            gone = np.setdiff1d(np.flatnonzero(b), S, assume_unique=True)
            if len(gone):  # what they explained is left to the others
                pull = pull + self.c - self.gram.residual(self.c, gone, b)
            old, b = b, np.zeros_like(b)
            grow = self.w[S] * signs
            move = solve(np.column_stack([pull[S] - alpha * grow, grow]))
            b[S] = old[S] + move[:, 0]
            slope = np.zeros_like(b)
            slope[S] = move[:, 1]
        return None

    def _search(self, alpha, bound, b) -> np.ndarray:
        """Get near by proximal point steps, then descend; on the sources that matter."""
        for curvature in _PROXIMAL:
            lent = curvature * float(self.gram.diagonal().max(initial=0))
            near = self._newton(alpha, bound, b, np.zeros_like(b), lent, b)
            b = b if near is None else near[0]
        b = np.maximum(b, 0) if self.positive else b
        ridge, penalties = self.l2 * alpha, alpha * self.w
        for _ in range(min(STEPS, self.max_iter)):
            pull = self._pull(b, ridge)
            if violation(pull, b, penalties, self.positive) <= bound:
                break
            excess = (pull if self.positive else np.abs(pull)) - penalties
            excess[b != 0] = np.inf
            S = np.argsort(-excess)[: max(_WORKING, 2 * np.count_nonzero(b))]
            S = np.sort(S[np.isfinite(penalties[S])])
            A = self.gram.block(S)
            A.flat[:: len(A) + 1] += ridge
            b[S] = active_set(A, self.c[S], penalties[S], b[S], bound, self.max_iter, self.positive)
        return b

"""Compiled loops: products of sparse columns, and paths of single targets with small supports.

For where numba is installed; `sums` and `one_target` do the same in numpy and LAPACK.
The loops are split into small functions because those compile faster.
"""

from __future__ import annotations

import numpy as np

try:
    from numba import njit  # pyright: ignore[reportMissingImports]
except ImportError:  # then `compiled.kernels` gives None, and nothing here runs
    njit = None

LIMIT = 128  # sources with a coefficient; LAPACK is faster from there on
SUMMARY = 6  # numbers that a certificate is made from: see `certificate.Summary`

# Sums may be reordered; NaN and infinity keep their meaning.
_FAST = {"nsz", "arcp", "contract", "reassoc"}
_settings = {"cache": True, "nogil": True, "fastmath": _FAST, "error_model": "numpy"}
_compiled = njit(**_settings) if njit else lambda function: function


@_compiled
def add_products(starts, rows, values, row_starts, columns, row_values, out, upper):
    """Add X'Y to `out` (p, q): X by columns (csc), Y by rows (csr) with sorted columns."""
    for k in range(len(starts) - 1):
        into = out[k]
        for e in range(starts[k], starts[k + 1]):
            i, x = rows[e], values[e]
            for f in range(row_starts[i + 1] - 1, row_starts[i] - 1, -1):
                j = columns[f]
                if upper and j < k:
                    break
                into[j] += x * row_values[f]


@_compiled
def add_dense_products(row_starts, columns, values, Y, out):
    """Add X'Y to `out` (p, q): X by rows (csr), Y narrow, so that `out` stays in the cache."""
    for i in range(len(row_starts) - 1):
        y = Y[i]
        for e in range(row_starts[i], row_starts[i + 1]):
            into, x = out[columns[e]], values[e]
            for j in range(len(y)):
                into[j] += x * y[j]


@_compiled
def _subtract(pull, a, b, s, t):
    for i in range(len(pull)):  # two rows for one way through `pull`
        pull[i] -= s * a[i] + t * b[i]


@_compiled
def slope_of_error(G, shift, scale, c, support, size, b, pull):
    """Write c - D (G + mm') D b to `pull`, where b is zero off `support[:size]`."""
    along = 0.0
    for i in range(len(pull)):
        pull[i] = 0.0
    for m in range(0, size, 2):
        k, n = support[m], support[min(m + 1, size - 1)]
        s, t = scale[k] * b[k], scale[n] * b[n] if m + 1 < size else 0.0
        _subtract(pull, G[k], G[n], s, t)
        along += s * shift[k] + t * shift[n]
    for i in range(len(pull)):
        pull[i] = c[i] + scale[i] * (pull[i] - along * shift[i])


@_compiled
def gather(G, shift, scale, S, out):
    """Write the part of D (G + mm') D between the sources S to `out` (s, s), but half of it."""
    m, d = np.empty(len(S)), np.empty(len(S))
    for i in range(len(S)):
        m[i], d[i] = shift[S[i]], scale[S[i]]
    for i in range(len(S)):
        row, into, m_i, d_i = G[S[i]], out[i], m[i], d[i]
        for j in range(i, len(S)):
            into[j] = (row[S[j]] + m_i * m[j]) * (d_i * d[j])


@_compiled
def _scan(pull, b, w, alpha, ridge, positive, present):
    """Find the largest violation, and which sources the optimality conditions want."""
    worst, count = 0.0, 0
    for k in range(len(pull)):
        v, lam = b[k], alpha * w[k]
        if v == 0.0:
            bad = (pull[k] if positive else abs(pull[k])) - lam
            stays = bad > 0.0
        else:
            g = pull[k] - ridge * v
            bad = abs(g - lam) if v > 0.0 else abs(g + lam)
            stays = v * g > 0.0
            if positive and v < 0.0:
                bad, stays = np.inf, False
        if bad > worst:
            worst = bad
        if stays:
            if count < LIMIT:
                present[count] = k
            count += 1
    return worst, count


@_compiled
def _factor(A, size):
    """Cholesky factor (lower, reciprocal diagonal) in place; False where nearly singular."""
    for i in range(size):
        row = A[i]
        whole = row[i]
        for j in range(i):
            other, s = A[j], row[j]
            for m in range(j):
                s -= row[m] * other[m]
            row[j] = s * other[j]
        s = whole
        for m in range(i):
            s -= row[m] * row[m]
        if not s > 1e-8 * whole:
            return False
        row[i] = 1.0 / np.sqrt(s)
    return True


@_compiled
def _solve(A, size, x):
    """Solve with the factor, in place."""
    for i in range(size):
        row, s = A[i], x[i]
        for m in range(i):
            s -= row[m] * x[m]
        x[i] = s * row[i]
    for i in range(size - 1, -1, -1):
        row = A[i]
        v = x[i] * row[i]
        x[i] = v
        for m in range(i):
            x[m] -= row[m] * v


@_compiled
def _newton(G, shift, scale, c, w, alpha, ridge, pull, b, S, size, A, move, grow):
    """Solve for b on S[:size], whose signs are those of `pull`; False where that is impossible."""
    for i in range(size):
        k = S[i]
        row = G[k]
        for j in range(i + 1):
            A[i, j] = (row[S[j]] + shift[k] * shift[S[j]]) * scale[k] * scale[S[j]]
        A[i, i] += ridge
        grow[i] = w[k] if pull[k] > 0.0 else -w[k]
        move[i] = c[k] - alpha * grow[i]
    for i in range(size):
        k = S[i]
        move[i] -= A[i, i] * b[k]
        for j in range(i):
            move[i] -= A[i, j] * b[S[j]]
            move[j] -= A[i, j] * b[k]
    if not _factor(A, size):
        return False
    _solve(A, size, move)
    _solve(A, size, grow)
    return True


@_compiled
def _finish(c, w, pull, b, S, size, ridge, positive, index, value, summary):
    """Write down the solution and the sums that its certificate is made from."""
    count = 0
    for i in range(SUMMARY):
        summary[i] = 0.0
    for i in range(size):
        k = S[i]
        v = b[k]
        if v != 0.0:
            index[count], value[count] = k, v
            count += 1
            summary[2] += v * c[k]
            summary[3] += v * (pull[k] - ridge * v)
            summary[4] += w[k] * abs(v)
            summary[5] += v * v
    for k in range(len(pull)):
        g = pull[k] - ridge * b[k]
        g = (g if positive else abs(g)) / w[k]
        if g > summary[1]:
            summary[1] = g
    return count


@_compiled
def walk(
    G, shift, scale, c, w, alphas, bounds, first, last, l2, positive, steps, b, slope,
    counts, index, value, summary,
):  # fmt: skip
    """Walk down the penalties `alphas[first:]` from the solution b at the penalty `last`."""
    p = len(c)
    pull, move, grow = np.empty(p), np.empty(LIMIT), np.empty(LIMIT)
    S, wanted, A = np.empty(LIMIT, np.int64), np.empty(LIMIT, np.int64), np.empty((LIMIT, LIMIT))
    size = 0
    for k in range(p):
        if b[k] != 0.0:
            if size == LIMIT:
                return first
            S[size] = k
            size += 1
    for m in range(first, len(alphas)):
        alpha, ridge = alphas[m], l2 * alphas[m]
        for i in range(size):
            k = S[i]
            ahead = b[k] + (last - alpha) * slope[k]
            b[k] = ahead if ahead * b[k] > 0.0 else 0.0
        step = 0
        while True:
            slope_of_error(G, shift, scale, c, S, size, b, pull)
            worst, count = _scan(pull, b, w, alpha, ridge, positive, wanted)
            if worst <= bounds[m]:
                break
            if step == steps or count > LIMIT:
                return m
            for i in range(size):
                slope[S[i]] = 0.0
            for i in range(count):
                slope[wanted[i]] = 1.0
            for i in range(size):
                if slope[S[i]] == 0.0:
                    b[S[i]] = 0.0
            if not _newton(
                G, shift, scale, c, w, alpha, ridge, pull, b, wanted, count, A, move, grow
            ):
                return m
            for i in range(count):
                k = wanted[i]
                S[i] = k
                b[k] += move[i]
                slope[k] = grow[i]
            size, step = count, step + 1
        counts[m] = _finish(c, w, pull, b, S, size, ridge, positive, index[m], value[m], summary[m])
        summary[m, 0], last = worst, alpha
    return len(alphas)

"""Non-negative effects on responses that grow with their causes.

Responses such as "how much did the output change" are 0 without a cause, and their scatter grows
with their size. So rows are weighted by the inverse square of what is expected of them: small
effects are then learnt from rows in which no large one is at work, with an error that is a share
of their own size (quasi-likelihood; Wedderburn, 1974).
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuit_toolkit.errors import InputError

FLOOR = 0.02  # smallest response that rows are weighted by, in means of the response
TOLERANCE = 1e-4  # of the optimality conditions, in units of the largest correlation
TOGETHER = 16  # responses with matrices of their own that are solved at once: these fit a cache


def nonnegative_lasso(
    X: Tensor,
    Y: Tensor,
    *,
    allowed: Tensor | None = None,
    rounds: int = 5,
) -> Tensor:
    """Fit each response as a sum of non-negative effects, with a free intercept."""
    n, p, q = len(X), X.shape[1], Y.shape[1]
    if len(Y) != n or (allowed is not None and tuple(allowed.shape) != (p, q)):
        raise InputError(
            f"X {tuple(X.shape)}, Y {tuple(Y.shape)} and allowed must have shapes (n, p), (n, q) "
            "and (p, q)."
        )
    Y, mean, mask = _prepared(p, Y, allowed)
    B = Y.new_zeros(p, q)
    for start in range(0, q, TOGETHER):
        some = slice(start, start + TOGETHER)
        used = mask[:, some].any(1).nonzero().flatten()
        if len(used):
            B[used, some] = _fitted(X[:, used], Y[:, some], mask[used, some], rounds)
    return B * mean


def _fitted(X: Tensor, Y: Tensor, mask: Tensor, rounds: int) -> Tensor:
    """Fit responses (n, q) to X (n, p), rows weighted alike and then by what was expected."""
    weights = Y.new_full((len(Y), 1), 1 / len(Y))
    B = Y.new_zeros(X.shape[1], Y.shape[1])
    for _ in range(rounds):
        x_mean, y_mean = weights.T @ X, (weights * Y).sum(0)  # (q or 1, p), (q,)
        if _is_wide(X):  # then the matrix A itself is smaller than A'A
            G = (X - x_mean[:, None]) * weights.T[..., None].sqrt()  # (q or 1, n, p)
        else:
            G = torch.stack([(X * w[:, None]).T @ X for w in weights.T])  # (q or 1, p, p)
            G -= x_mean[:, :, None] * x_mean[:, None]
        B = _solve(G, (weights * (Y - y_mean)).T @ X, mask.T, B.T).T
        expected = X @ B + (y_mean - (x_mean * B.T).sum(1))
        weights = (expected.clamp(min=0) + FLOOR) ** -2
        weights = weights / weights.sum(0)  # (n, q), each column sums to 1
    return B


def _prepared(p: int, Y: Tensor, allowed: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return responses in means, so that none is too large or small for its square; means; mask."""
    mean = Y.mean(0).clamp(min=torch.finfo(Y.dtype).tiny)
    mask = torch.ones(p, Y.shape[1], dtype=torch.bool) if allowed is None else allowed
    return Y / mean, mean, mask


def _is_wide(A: Tensor) -> bool:
    return A.shape[-2] < A.shape[-1]


def _solve(gram: Tensor, pull: Tensor, mask: Tensor, start: Tensor) -> Tensor:
    """Minimise b G b / 2 - c b over b >= 0 by accelerated projected gradients; a wide G is A."""
    wide = _is_wide(gram)
    scale = gram.norm(dim=1) if wide else gram.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    live = mask & (scale > 1e-6)
    inverse = torch.where(scale > 1e-6, 1 / scale.clamp(min=1e-6), 0.0)
    G = gram * inverse[:, None] * (1 if wide else inverse[:, :, None])
    c = pull * inverse * live
    top = c.amax(1, keepdim=True).clamp(min=0)
    step = 1 / (1.1 * _largest_eigenvalue(G))[:, None]
    b = z = start * scale * live
    t = 1.0
    for number in range(500):
        slope = c - _times(G, z)
        new = ((z + step * slope).clamp(min=0)) * live
        if number % 5 == 4:
            moved = ((new - z).abs() / step).amax(1)  # 0 at a solution
            if bool((moved <= TOLERANCE * top[:, 0]).all()):
                b = new
                break
        turned = ((z - new) * (new - b)).sum(1, keepdim=True) > 0
        t_new = (1 + (1 + 4 * t * t) ** 0.5) / 2
        z = torch.where(turned, new, new + (t - 1) / t_new * (new - b))
        b, t = new, t_new
    return b * inverse


def _times(G: Tensor, z: Tensor) -> Tensor:
    """Multiply G, or A'A of a wide A, (q or 1, n or p, p), with (q, p) -> (q, p)."""
    if len(G) == 1:
        return (z @ G[0].T) @ G[0] if _is_wide(G) else z @ G[0]
    y = torch.bmm(G, z[..., None])
    return (torch.bmm(G.mT, y) if _is_wide(G) else y)[..., 0]


def _largest_eigenvalue(G: Tensor) -> Tensor:
    """Largest eigenvalue of each matrix, (q, p, p) -> (q,), by power iteration."""
    v = torch.ones_like(G[:, 0])  # (q or 1, p)
    size = G.new_ones(len(G))
    for _ in range(20):
        v = _times(G, v)
        size = v.norm(dim=1)
        v = v / size.clamp(min=1e-12)[:, None]
    return size.clamp(min=1.0)

"""Effects between features of adjacent sites, from runs in which many features were changed.

Two regressions, token by token. A later feature that is active moves with what changes at its own
token, and one that is not stays at zero; so first, at the tokens where a later feature is active
on the plain prompt, its change is regressed on the changes of the earlier features there. What
this leaves (features that come on, and what attention carries between tokens) is then regressed,
at all tokens, on the changes there and on those of all tokens before. The effect of a feature is
its slopes times what changing it alone would change, averaged as the truth is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from circuit_toolkit.patching.feature_runs import FeatureRuns
from circuit_toolkit.sites import Site

Sparse = Any  # scipy.sparse.csr_array, whose shapes the type checker cannot follow
_DAMPING = 0.1  # of the first regression, beside what a pair would count for by chance
_STEPS = 25  # of LSQR: columns are nearly orthogonal, since all was changed at random
_RIDGE = 0.03  # of the second, beside the variance of a column
_ENTRIES = 20_000_000  # of the first design that are held at once: 240 MB
_TOGETHER = 8  # batches: the sums over fewer take longer than the products
_DENSE = 0.1  # fuller matrices are multiplied as dense ones


@dataclass(frozen=True, eq=False)
class TokenChanges:
    """What one batch of runs changed at a site, and what came of it at the next."""

    moved: Sparse
    found: Sparse
    tokens: np.ndarray
    lengths: np.ndarray


def token_effects(runs: FeatureRuns, site: Site, parts: Sequence[TokenChanges]) -> np.ndarray:
    """Estimate mean effects of the features of a site on those of the next."""
    later = runs.sites[runs.sites.index(site) + 1]
    active = _sparse(runs.acts[later] > 0)  # (tokens, q)
    deltas = _sparse(runs.deltas[site])  # (tokens, p)
    lengths = runs.where.sum(1).cpu().numpy()
    weight = np.repeat(1 / lengths, lengths)[:, None] / len(lengths)  # of a token in the average
    slopes, fitted = _slopes_where_active(parts, active)
    effect = slopes * (deltas * weight).T.dot(active).toarray()
    rest = _slopes_everywhere(parts, fitted)
    alone = np.concatenate(
        [(each * weight).sum(0) for each in (deltas, _before(lengths) @ deltas)]
    )  # (2 p,)
    p = len(effect)
    total = rest * alone[:, None]
    return effect + total[:p] + total[p:]


def _slopes_where_active(
    parts: Sequence[TokenChanges], active: Sparse
) -> tuple[np.ndarray, list[Sparse]]:
    """Slopes (p, q) within tokens, where the later feature is active, and what they explain."""
    from scipy.sparse.linalg import lsqr

    moved: Any = sp.vstack([part.moved for part in parts]).tocsr()
    found: Any = sp.vstack([part.found for part in parts]).tocsr()
    on = active[np.concatenate([part.tokens for part in parts])]
    p, q = moved.shape[1], on.shape[1]
    energy = np.asarray(moved.power(2).sum(0)).ravel()
    by_chance = energy[:, None] * (np.asarray(on.sum(0)).ravel() / on.shape[0])  # (p, q)
    unit = np.divide(1, np.sqrt(by_chance), out=np.zeros((p, q)), where=by_chance > 0)
    unit = unit.astype(np.float32)
    slopes = np.zeros((p, q))
    fits = []
    entries = int(np.diff(moved.indptr) @ np.diff(on.indptr))
    for columns in np.array_split(np.arange(q), 1 + entries // _ENTRIES):
        some = on[:, columns]
        row, column = np.repeat(np.arange(some.shape[0]), np.diff(some.indptr)), some.indices
        design = _design(moved, some, unit[:, columns])
        y = np.asarray(found[row, columns[column]]).ravel().astype(np.float32)
        damp, steps = np.sqrt(_DAMPING), _STEPS
        solved = lsqr(design, y, damp=damp, iter_lim=steps, atol=0, btol=0)[0]
        slopes[:, columns] = solved.reshape(p, len(columns)) * unit[:, columns]
        fits.append(sp.csr_array((design @ solved, (row, column)), shape=some.shape))
    fitted: Any = sp.hstack(fits).tocsr()
    ends = np.cumsum([0, *(len(part.tokens) for part in parts)])
    return slopes, [fitted[a:b] for a, b in zip(ends, ends[1:], strict=False)]


def _design(moved: Sparse, on: Sparse, unit: np.ndarray) -> Sparse:
    """Equations of `_slopes_where_active`, shape (entries of on, p q); columns in their units."""
    row = np.repeat(np.arange(moved.shape[0]), np.diff(moved.indptr))  # of each change
    each = np.diff(on.indptr)[row]  # later features that a change is set beside
    first = np.repeat(on.indptr[row] - (each.cumsum() - each), each)
    equation = first + np.arange(len(first))
    source, target = np.repeat(moved.indices, each), on.indices[equation]
    pair = source.astype(np.int64) * on.shape[1] + target
    values = np.repeat(moved.data, each) * unit[source, target]
    return sp.csr_array((values, (equation, pair)), shape=(on.nnz, unit.size))


def _slopes_everywhere(parts: Sequence[TokenChanges], fitted: Sequence[Sparse]) -> np.ndarray:
    """Ridge slopes (2 p, q) of what is left, on changes within tokens and at tokens before."""
    p, q = parts[0].moved.shape[1], parts[0].found.shape[1]
    gram, cross = np.zeros((2 * p, 2 * p)), np.zeros((2 * p, q))
    for start in range(0, len(parts), _TOGETHER):
        some = parts[start : start + _TOGETHER]
        moved = sp.vstack([part.moved for part in some]).tocsr()
        before = _before(np.concatenate([part.lengths for part in some])) @ moved
        X: Any = sp.hstack([moved, before]).tocsr()
        Y = sp.vstack([part.found for part in some]) - sp.vstack(fitted[start : start + _TOGETHER])
        if X.nnz > _DENSE * X.shape[0] * X.shape[1]:
            X = X.toarray()
        square = X.T @ X
        gram += square if isinstance(square, np.ndarray) else square.toarray()
        product = X.T @ Y
        cross += product if isinstance(product, np.ndarray) else product.toarray()
    size = np.sqrt(np.diag(gram))
    unit = np.divide(1, size, out=np.zeros_like(size), where=size > 0)
    gram = gram * unit[:, None] * unit + _RIDGE * np.eye(2 * p)
    return np.linalg.solve(gram, cross * unit[:, None]) * unit[:, None]


def _before(lengths: np.ndarray) -> Sparse:
    """Matrix (t, t) that adds up, for each token, the tokens before it in its own run."""
    first = np.repeat(lengths.cumsum() - lengths, lengths)
    numbers = np.arange(lengths.sum())
    count = numbers - first  # tokens before
    starts = np.repeat(first - (count.cumsum() - count), count)
    columns = starts + np.arange(count.sum())
    indptr = np.concatenate([[0], count.cumsum()])
    shape = (len(numbers), len(numbers))
    return sp.csr_array((np.ones(len(columns), np.float32), columns, indptr), shape=shape)


def _sparse(values: torch.Tensor) -> Sparse:
    return sp.csr_array(values.float().cpu().numpy())

"""Which edges of a ranking hold: each is patched alone, and has to do some share of what all do.

In a trained model every edge does something, and with enough prompts everything is significant.
So an edge is held against the smallest effect that is of interest (minimum-effect test; Murphy and
Myors, 1999, doi 10.1037/0021-9010.84.2.234), a share of what patching all edges at once does. The
null is its own scatter over prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from circuit_toolkit.models.model import Model
from circuit_toolkit.patching.effects import effects_and_whole
from circuit_toolkit.tasks.prompt_pairs import PromptPairs, TokenPairs, rows_of, tokenized_pairs

# The smallest share of interest, of squared changes: a seventh of their size. Chosen on models of
# `benchmarks.known_circuits`; between .02 and .05 little depends on it.
SMALLEST = 0.02
# Conventions: the error over all edges, how many prompts are enough, and how many edges in a row
# have to fail before the rest is left untested.
ERROR, PROMPTS, IN_A_ROW = 0.05, 200, 5
_AT_ONCE = 16  # edges


def patched_alone(
    model: Model,
    task: PromptPairs,
    ranked: Sequence[tuple[str, str]],
    n_edges: int,
    *,
    sure: np.ndarray,
    corrupted: bool = True,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> np.ndarray:
    """Patch edges in their order, until some in a row fail: share of the whole, low, high, (k, 3).

    Shares are of the squares of `task.change` where all edges are patched. The intervals hold for
    all `n_edges` from which the ranked ones were chosen. Those that are
    sure, (k,), never fail.
    """
    n = min(n_prompts or PROMPTS, PROMPTS)
    pairs = tokenized_pairs(model, task, n, corrupted=corrupted)
    if not corrupted:
        partners = pairs.partners(seed, lone=True)
        pairs = TokenPairs(pairs.clean, rows_of(pairs.clean, partners))
    found, end = np.empty((0, 3)), None
    while len(found) < len(ranked) and end is None:
        sets = [[edge] for edge in ranked[len(found) : len(found) + _AT_ONCE]]
        each, whole = effects_and_whole(
            model, task, pairs, sets, "change", batch_size=batch_size, progress=progress
        )
        more = shares(each.double().numpy(), whole.double().numpy(), n_edges)
        found = np.concatenate([found, more])
        end = _end_of_failures((found[:, 1] > SMALLEST) | sure[: len(found)])
    return found[:end]


def _end_of_failures(held: np.ndarray) -> int | None:
    """Return how many edges there are up to the end of the first long row of failures."""
    row = 0
    for number, each in enumerate(held.tolist(), 1):
        row = 0 if each else row + 1
        if row == IN_A_ROW:
            return number
    return None


def shares(each: np.ndarray, whole: np.ndarray, tests: int) -> np.ndarray:
    """Return mean squares of (n, edges) as shares of that of (n,), with their ends: (edges, 3).

    The ends are those of Student's t for a ratio of means, by the delta method.
    """
    from scipy.stats import t

    each, whole, n = np.square(each), np.square(whole), len(each)
    if not whole.any():  # nothing changes, whatever is patched
        return np.zeros((each.shape[1], 3))
    mean = whole.mean()
    share, scatter = each.mean(0) / mean, np.full(each.shape[1], np.inf)
    if n > 1:
        scatter = (each - share * whole[:, None]).std(0, ddof=1) / mean / n**0.5
    wide = t.isf(ERROR / tests, max(n - 1, 1)) * scatter
    return np.stack([share, share - wide, share + wide], 1)

"""The two regressions behind edges of features, on changes whose effects are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from circuit_toolkit.circuit_lasso import token_effects as module
from circuit_toolkit.circuit_lasso.token_effects import TokenChanges, token_effects

N, P, Q = 300, 12, 5  # prompts, earlier and later features
FIRST, LATER = "first", "later"


def made_up(seed, gated, carried):
    """Runs of prompts with given effects within tokens and from tokens before, and the truth."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 6, N)
    owner = np.repeat(np.arange(N), lengths)
    deltas = -rng.random((len(owner), P)) * (rng.random((len(owner), P)) < 0.5)
    active = rng.random((len(owner), Q)) < 0.3
    on = active if gated else np.ones_like(active)
    slopes = rng.normal(size=(P, Q)) * (rng.random((P, Q)) < 0.4)
    across = carried * rng.normal(size=(P, Q))

    def response(moved):
        before = np.concatenate(
            [moved[owner == each].cumsum(0) - moved[owner == each] for each in range(N)]
        )
        return on * (moved @ slopes) + before @ across

    parts = []
    for _ in range(3):
        bits = rng.random((N, P)) < 0.2  # a feature is changed at all tokens of a prompt
        moved = deltas * bits[owner]
        parts.append(
            TokenChanges(
                sp.csr_array(moved.astype(np.float32)),
                sp.csr_array(response(moved).astype(np.float32)),
                np.arange(len(owner)),
                lengths,
            )
        )
    truth = np.zeros((P, Q))
    for feature in range(P):
        alone = np.zeros_like(deltas)
        alone[:, feature] = deltas[:, feature]
        prompts = np.add.reduceat(response(alone), np.r_[0, lengths.cumsum()[:-1]])
        truth[feature] = (prompts / lengths[:, None]).mean(0)
    where = torch.as_tensor(np.arange(5) < lengths[:, None])
    runs = SimpleNamespace(
        sites=[FIRST, LATER],
        acts={LATER: torch.as_tensor(active).float()},
        deltas={FIRST: torch.as_tensor(deltas)},
        where=where,
    )
    return runs, parts, truth


@pytest.mark.parametrize("gated", [True, False])
def test_what_happens_within_tokens_is_found(gated):
    runs, parts, truth = made_up(0, gated, carried=0.0)
    found = token_effects(runs, FIRST, parts)
    # No noise: what is off is the shrinkage of the two ridges, .1 and .03 of a column's own size.
    np.testing.assert_allclose(found, truth, atol=0.05 * np.abs(truth).max())


def test_what_is_carried_from_tokens_before_is_found():
    runs, parts, truth = made_up(1, gated=True, carried=0.3)
    found = token_effects(runs, FIRST, parts)
    np.testing.assert_allclose(found, truth, atol=0.1 * np.abs(truth).max())
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.995


def test_no_response_has_no_effects():
    runs, parts, truth = made_up(2, gated=True, carried=0.3)
    silent = [TokenChanges(part.moved, 0 * part.found, part.tokens, part.lengths) for part in parts]
    assert not token_effects(runs, FIRST, silent).any()
    assert truth.any()


def test_a_feature_that_never_changed_has_no_effects():
    runs, parts, _ = made_up(3, gated=True, carried=0.3)
    still = np.ones(P)
    still[4] = 0
    parts = [
        TokenChanges(sp.csr_array(part.moved * still), part.found, part.tokens, part.lengths)
        for part in parts
    ]
    found = token_effects(runs, FIRST, parts)
    assert np.isfinite(found).all() and not found[4].any() and found[3].any()


def test_blocks_and_dense_products_change_nothing(monkeypatch):
    runs, parts, truth = made_up(4, gated=True, carried=0.3)
    whole = token_effects(runs, FIRST, parts)
    monkeypatch.setattr(module, "_DENSE", 1.0)
    monkeypatch.setattr(module, "_TOGETHER", 1)
    # Float32 products, summed in another order.
    np.testing.assert_allclose(token_effects(runs, FIRST, parts), whole, atol=1e-5)
    monkeypatch.setattr(module, "_ENTRIES", 5_000)
    # LSQR stops after 30 steps, elsewhere when blocks are solved apart.
    np.testing.assert_allclose(
        token_effects(runs, FIRST, parts), whole, atol=1e-3 * np.abs(truth).max()
    )


def test_tokens_before_stay_within_a_run():
    before = module._before(np.array([2, 1, 3])).toarray()
    expected = np.zeros((6, 6))
    expected[1, 0] = expected[4, 3] = expected[5, 3] = expected[5, 4] = 1
    np.testing.assert_array_equal(before, expected)

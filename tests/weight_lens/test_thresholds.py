"""Presets, own thresholds, outliers, and what a threshold of z can and cannot let through."""

import math

import pytest
import torch
from scipy import stats

from circuit_toolkit.errors import InputError
from circuit_toolkit.weight_lens import PRESETS, WeightLens, largest_group
from circuit_toolkit.weight_lens.candidates import products, row_outliers, z_scores
from circuit_toolkit.weight_lens.thresholds import reach, thresholds_for


def rule(preset, model_type="gemma2", slack=1.0, **own):
    return thresholds_for(preset, own, slack, model_type)


def test_presets_are_those_of_the_code_and_of_the_paper():
    code = rule("code")
    assert (code.theta_token, code.theta_feature) == (5.5, 4)
    assert (code.pool_tokens, code.pool_features, code.upstream) == (1000, 100, "all")
    assert rule("code", "gpt2").upstream == "first"
    assert [rule("paper", m).theta_token for m in ("gemma2", "llama", "gpt2")] == [4.5, 4.5, 4]
    paper = rule("paper")
    assert (paper.theta_feature, paper.pool_tokens, paper.pool_features) == (3, None, 100)
    assert not paper.robust and rule("robust").robust


def test_own_thresholds_override_and_are_recorded():
    lens = WeightLens("paper", theta_token=3.0, pool_features="all")
    assert lens.own == {"theta_token": 3.0, "pool_features": "all"}
    own = rule("paper", **lens.own)
    assert own.theta_token == 3 and own.pool_features is None and own.theta_feature == 3
    assert own.floor_token == 2 and own.preset == "paper"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preset": "best"}, "robust"),
        ({"theta_token": 0.5}, "slack"),
        ({"slack": 6}, "slack"),
        ({"pool_tokens": 2}, "at least 3"),
        ({"upstream": "last"}, "'first', 'all'"),
        ({"language": "klingon"}, "lemmas"),
        ({"n_permuted": -1}, "n_permuted"),
        ({"n_permuted": 2.5}, "n_permuted"),
        ({"theta_token": "a"}, "theta_token must be a number"),
        ({"theta_feature": float("nan")}, "theta_feature must be a number"),
        ({"slack": "a"}, "slack must be a number"),
        ({"pool_tokens": 3.5}, "pool_tokens, unless it is 'all', must be a whole number"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        WeightLens(**options)


@pytest.mark.parametrize("theta", [3, 4, 4.5, 5.5])
@pytest.mark.parametrize("n", [12, 40, 100, 1000])
def test_the_largest_group_is_what_the_rule_lets_through(n, theta):
    """Spikes of any height: as many as are said pass together, and one more does not."""
    m = largest_group(n, theta)
    for group, passes in ((m, True), (m + 1, False)):
        if not group:
            continue
        x = torch.zeros(1, n, dtype=torch.float64)
        x[0, :group] = 1e6
        z = z_scores(x, robust=False)[0, 0].item()
        assert z == pytest.approx(math.sqrt((n - group) * (n - 1) / (n * group)), rel=1e-9)
        assert (z > theta) == passes
        assert (len(row_outliers(x, theta, None, robust=False)[0]) == group) == passes


def test_numbers_of_the_card():
    assert [largest_group(1000, theta) for theta in (5.5, 4.5, 4)] == [31, 47, 58]
    assert [largest_group(100, theta) for theta in (4, 3)] == [5, 9]
    for theta, n in [(3, 11), (4, 18), (4.5, 23), (5, 27), (5.5, 33)]:
        assert largest_group(n, theta) == 1 and largest_group(n - 1, theta) == 0


def test_a_vocabulary_that_is_too_small_is_said():
    with pytest.warns(
        UserWarning, match="Among 25 tokens the largest z-score there can be is 4.80"
    ):
        found = reach(rule("code"), 25, 300)
    assert found == {"tokens": 0, "features": 5}
    assert reach(rule("robust"), 25, 30) == {"tokens": None, "features": None}


def test_robust_scores_see_groups_that_others_miss():
    x = torch.randn(1, 1220, generator=torch.Generator().manual_seed(0))
    x[0, :100] += 8
    assert len(row_outliers(x, 4.5, None, robust=False)[0]) == 0
    assert set(row_outliers(x, 4.5, None, robust=True)[1].tolist()) >= set(range(100))


def test_rows_without_spread_have_no_outliers():
    x = torch.ones(2, 50)
    for robust in (False, True):
        assert not z_scores(x, robust).any()
    assert not z_scores(torch.ones(2, 1), False).any()


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("pool", [None, 60])
def test_outliers_are_those_of_a_slow_loop(pool, robust):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, 200, generator=generator, dtype=torch.float64) ** 3
    row, column, value, z = row_outliers(x, 1.5, pool, robust, low=True)
    found = {(r, c): (v, s) for r, c, v, s in zip(row, column, value, z, strict=True)}
    expected = {}
    for r in range(7):
        for sign in (1, -1):
            order = sorted(range(200), key=lambda c, r=r, s=sign: -s * x[r, c].item())[
                : pool or 200
            ]
            chosen = x[r, order]
            middle, spread = chosen.mean(), chosen.std()
            if robust:
                middle = chosen.median()
                spread = 1.4826 * (chosen - middle).abs().median()
            for c in order:
                score = ((x[r, c] - middle) / spread).item()
                if sign * score > 1.5:
                    expected[r, c] = (x[r, c].item(), score)
    assert found.keys() == expected.keys() and len(found) > 20
    for key, (v, s) in found.items():
        assert (v, s) == pytest.approx(expected[key], rel=1e-12)
    assert row.tolist() == sorted(row.tolist())


def test_products_in_blocks_and_pieces_are_the_product(monkeypatch):
    monkeypatch.setattr("circuit_toolkit.weight_lens.candidates.BLOCK", 100)
    rows, matrix = torch.randn(7, 5), torch.randn(40, 5)
    parts = list(products(rows, lambda: matrix.split(7), 40))
    assert [start for start, _ in parts] == [0, 2, 4, 6]
    torch.testing.assert_close(torch.cat([x for _, x in parts]), rows @ matrix.T)


@pytest.mark.parametrize(("theta", "card"), [(4, 4.3), (4.5, 2.2), (5.5, 0.5)])
def test_chance_in_a_pool_is_that_of_the_card(theta, card):
    n = 200
    x = torch.randn(n, 50257, generator=torch.Generator().manual_seed(2))
    mean = len(row_outliers(x, theta, 1000, robust=False)[0]) / n
    # 4 standard errors of counts about as scattered as Poisson's, and the card's rounding
    assert mean == pytest.approx(card, abs=4 * math.sqrt(card / n) + 0.05)


@pytest.mark.parametrize("theta", [2.5, 3.0])
def test_chance_over_all_is_exact(theta):
    """Internally studentised values of a normal sample: t with n - 2 degrees of freedom."""
    n, rows = 1220, 2000
    x = torch.randn(rows, n, generator=torch.Generator().manual_seed(3))
    t = theta * math.sqrt(n * (n - 2) / ((n - 1) ** 2 - n * theta**2))
    expected = n * stats.t.sf(t, n - 2)
    mean = len(row_outliers(x, theta, None, robust=False)[0]) / rows
    assert mean == pytest.approx(expected, abs=4 * math.sqrt(expected / rows))


def test_every_preset_names_the_same_settings():
    assert len({frozenset(each) for each in PRESETS.values()}) == 1

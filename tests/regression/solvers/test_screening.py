import numpy as np
import pytest

from circuit_toolkit.errors import InputError
from circuit_toolkit.regression import GramStatistics, lasso_path, screen_features
from tests.regression.problems import codes


def test_rare_constant_and_copied_sources_are_dropped_and_accounted_for():
    X, Y = codes()
    X[:, 3] = 7  # constant, though active everywhere
    X[:, 5] = 0
    X[:9, 5] = np.arange(1, 10)  # active in nine rows
    X[:, 10] = 4 * X[:, 2]
    X[:, 20] = -X[:, 10] + 1  # a copy of a copy
    X[:, 12] = X[:, 2] + 1e-2 * X[:, 4]  # close, but no copy
    screening = screen_features(GramStatistics.from_arrays(X, Y))
    assert set(range(40)) - set(screening.kept.tolist()) == {3, 5, 10, 20}
    assert screening.substitutes(2).tolist() == [10, 20]
    assert screening.substitutes(0).tolist() == []
    assert screening.representative[[2, 3, 5, 10, 12, 20]].tolist() == [2, -1, -1, 2, 12, 2]


def test_min_active_counts_rows():
    X, Y = codes()
    stats = GramStatistics.from_arrays(X, Y)
    counts = (X != 0).sum(axis=0)
    kept = screen_features(stats, min_active=int(np.median(counts))).kept
    np.testing.assert_array_equal(kept, np.flatnonzero(counts >= int(np.median(counts))))
    with pytest.raises(InputError, match="min_active"):
        screen_features(stats, min_active=-1)


def test_dropping_copies_leaves_the_fit_unchanged():
    X, Y = codes()
    doubled = GramStatistics.from_arrays(np.hstack([X, -3 * X + 2]), Y)
    kept = screen_features(doubled, min_active=0).kept
    np.testing.assert_array_equal(kept, np.arange(40))
    doubled = doubled.standardised()
    path, full = lasso_path(doubled.select(x=kept), [0.3, 0.05]), lasso_path(doubled, [0.3, 0.05])
    np.testing.assert_allclose(path.r2, full.r2, atol=1e-9)


def test_only_kept_sources_stand_for_others():
    """A source that resembles a dropped one, yet no kept one, is kept."""
    rng = np.random.default_rng(0)
    a, noise = rng.normal(size=(2, 5000))
    X = np.column_stack([a, a + 0.4 * noise, a + 0.9 * noise])  # correlations .93, .93, .74
    stats = GramStatistics.from_arrays(X, X[:, :1])
    screening = screen_features(stats, max_correlation=0.9)
    assert screening.representative.tolist() == [0, 0, 2]

"""Folds taken shard by shard are those of the rows in memory."""

import numpy as np
import pytest

from circuit_toolkit.capture import capture
from circuit_toolkit.circuits.fold_statistics import site_folds
from circuit_toolkit.errors import InputError
from circuit_toolkit.regression import GramStatistics
from circuit_toolkit.sites import Site
from circuit_toolkit.store import ActivationStore
from circuit_toolkit.tasks import BUNDLED


@pytest.fixture(scope="module")
def acts(tiny, tiny_saes):
    return capture(tiny, BUNDLED["ioi"](tiny, n=60, seed=0), tiny_saes, progress=False)


@pytest.mark.parametrize("positions", ["last", "mean", "all"])
def test_a_store_gives_what_memory_gives(acts, tmp_path, positions):
    first, second = acts.sites[:2]
    store = ActivationStore.open(acts.save(tmp_path / "store"))
    kept = np.arange(0, acts.features[first].shape[1], 3)
    settings = {"positions": positions, "folds": 4, "kept_sources": kept}
    ours, streamed = (site_folds(each, first, second, **settings) for each in (acts, store))
    rows = acts.pooled(positions)
    whole = GramStatistics.from_arrays(rows.features[first][:, kept], rows.features[second])
    for found in (ours, streamed):
        assert len(found) == 4 and min(part.n for part in found.parts) > 0
        total = found.total()
        for field in ("n", "mean_x", "mean_y", "xx", "xy", "yy", "active_x"):
            np.testing.assert_allclose(getattr(total, field), getattr(whole, field), atol=1e-10)
    for a, b in zip(ours.parts, streamed.parts, strict=True):
        np.testing.assert_allclose(a.xx, b.xx, atol=1e-10)


def test_prompts_stay_in_one_fold_and_the_seed_decides(acts):
    first, second = acts.sites[:2]
    sizes = [
        [part.n for part in site_folds(acts, first, second, folds=3, seed=seed).parts]
        for seed in (0, 0, 1)
    ]
    assert sizes[0] == sizes[1] != sizes[2]
    twins = np.bincount(acts.groups)[0]  # prompts of a group
    assert all(size % twins == 0 for size in sizes[0])
    with pytest.raises(InputError, match="was not captured"):
        site_folds(acts, first, Site("mlp_out", 99))
    with pytest.raises(InputError, match="without gaps"):
        site_folds(acts, first, second, folds=10_000)
